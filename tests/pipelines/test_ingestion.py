"""Ingestion: every file is in the manifest, paired as a mask, or in quarantine with a reason."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from busi_pipeline.errors import BadInputError
from busi_pipeline.pipelines.ingestion.nodes import MANIFEST_COLUMNS, build_manifest
from tests.conftest import CLASSES

Wrap = Callable[[dict[str, bytes]], dict[str, Callable[[], bytes]]]


def png(value: int, side: int = 40) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((side, side + 5), value, dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def files() -> dict[str, bytes]:
    """A small set in BUSI's layout, with one of everything that goes wrong."""
    return {
        "benign/benign (2).png": png(2),
        "benign/benign (10).png": png(10),
        "benign/benign (10)_mask.png": png(0),
        "benign/benign (10)_mask_1.png": png(0),
        "malignant/malignant (1).png": png(30),
        "malignant/malignant (2).png": png(2),
        "normal/normal (1).jpg": png(50),
        "normal/normal (1)_mask.png": png(0),
        "normal/normal (2).png": png(60)[:50],
        "normal/normal (3).png": b"",
        "normal/normal (4).png": b"hello",
        "normal/normal (5).png": png(70, side=20),
        "normal/normal (6)_mask.png": png(0),
        "normal/notes.txt": b"hello",
        "cysts/cyst (1).png": png(80),
        "readme.png": png(90),
    }


def test_manifest_describes_every_usable_image(
    files: dict[str, bytes], as_raw_images: Wrap, ingestion_settings: dict[str, int]
) -> None:
    result = build_manifest(as_raw_images(files), ingestion_settings, CLASSES)
    manifest = result.manifest
    assert list(manifest.columns) == MANIFEST_COLUMNS
    assert list(manifest["image_id"]) == [
        "benign/benign (2)",
        "benign/benign (10)",
        "malignant/malignant (1)",
        "malignant/malignant (2)",
        "normal/normal (1)",
    ]
    assert list(manifest["masks"]) == [0, 2, 0, 0, 1]
    assert set(manifest["height"]) == {40}
    assert set(manifest["width"]) == {45}
    assert not any("_mask" in path for path in manifest["path"])


def test_byte_copy_stays_and_is_marked(
    files: dict[str, bytes], as_raw_images: Wrap, ingestion_settings: dict[str, int]
) -> None:
    manifest = build_manifest(as_raw_images(files), ingestion_settings, CLASSES).manifest
    copies = dict(zip(manifest["image_id"], manifest["byte_copy_of"], strict=True))
    assert copies.pop("malignant/malignant (2)") == "benign/benign (2)"
    assert set(copies.values()) == {""}


def test_quarantine_says_why_and_nothing_is_lost(
    files: dict[str, bytes], as_raw_images: Wrap, ingestion_settings: dict[str, int]
) -> None:
    result = build_manifest(as_raw_images(files), ingestion_settings, CLASSES)
    reasons = dict(zip(result.quarantine["path"], result.quarantine["reason"], strict=True))
    for path, reason in {
        "normal/normal (2).png": "truncated",
        "normal/normal (3).png": "zero bytes",
        "normal/normal (4).png": "no image format",
        "normal/normal (5).png": "too small: 25 x 20 pixels, at least 32",
        "normal/normal (6)_mask.png": "mask without image",
        "normal/notes.txt": "not an image file",
        "cysts/cyst (1).png": "unknown class folder",
        "readme.png": "not in a class folder",
    }.items():
        assert reason in reasons.pop(path)
    assert not reasons
    paired = result.summary["masks"]
    assert len(result.manifest) + len(result.quarantine) + paired == len(files)


def test_counts_are_logged(
    files: dict[str, bytes], as_raw_images: Wrap, ingestion_settings: dict[str, int]
) -> None:
    summary = build_manifest(as_raw_images(files), ingestion_settings, CLASSES).summary
    assert summary["images"] == {"benign": 2, "malignant": 2, "normal": 1, "all": 5}
    assert summary["quarantined"] == 8
    assert summary["byte_copies"] == 1


def test_data_hash_follows_the_bytes(
    files: dict[str, bytes], as_raw_images: Wrap, ingestion_settings: dict[str, int]
) -> None:
    def digest(content: dict[str, bytes]) -> str:
        result = build_manifest(as_raw_images(content), ingestion_settings, CLASSES)
        return result.tags["data_sha256"]

    same = digest(dict(reversed(files.items())))
    assert digest(files) == same
    assert digest(files | {"benign/benign (2).png": png(3)}) != same


def test_same_name_with_two_suffixes_gives_two_ids(
    as_raw_images: Wrap, ingestion_settings: dict[str, int]
) -> None:
    files = {"benign/a.png": png(1), "benign/a.bmp": png(2), "malignant/b.png": png(3)}
    files["normal/c.png"] = png(4)
    manifest = build_manifest(as_raw_images(files), ingestion_settings, CLASSES).manifest
    assert manifest["image_id"].is_unique
    assert set(manifest["image_id"]) >= {"benign/a.png", "benign/a.bmp"}


def test_class_without_enough_images_stops_with_what_was_found(
    files: dict[str, bytes], as_raw_images: Wrap
) -> None:
    with pytest.raises(BadInputError) as caught:
        build_manifest(as_raw_images(files), {"min_side": 32, "min_images_per_class": 2}, CLASSES)
    message = str(caught.value)
    assert "too few images of class normal" in message
    assert "'normal': 1" in message
    assert "Expected layout" in message
    assert "\n" not in message


def test_class_without_any_image_stops(as_raw_images: Wrap) -> None:
    files = {"benign/b (1).png": png(1), "normal/n (1).png": png(2)}
    with pytest.raises(BadInputError, match="too few images of class malignant"):
        build_manifest(as_raw_images(files), {"min_side": 32, "min_images_per_class": 1}, CLASSES)


def test_the_users_groups_are_no_stray_file(
    files: dict[str, bytes], as_raw_images: Wrap, ingestion_settings: dict[str, int]
) -> None:
    with_groups = build_manifest(
        as_raw_images(files | {"groups.csv": b"image_id,group"}), ingestion_settings, CLASSES
    )
    assert "groups.csv" not in set(with_groups.quarantine["path"])
