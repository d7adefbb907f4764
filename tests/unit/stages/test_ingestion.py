"""Ingestion: every file is in the manifest, paired as a mask, or in quarantine with a reason."""

import pytest

from busi_pipeline.config.schemas import IngestionSettings
from busi_pipeline.errors import BadInputError
from busi_pipeline.pipelines.ingestion.nodes import MANIFEST_COLUMNS, Ingestion, build_manifest
from busi_pipeline.stats.classes import Classes
from tests.factories import CLASSES, as_raw_images, make_png

FILES = {
    "benign/benign (2).png": make_png(2),
    "benign/benign (10).png": make_png(10),
    "benign/benign (10)_mask.png": make_png(0),
    "benign/benign (10)_mask_1.png": make_png(0),
    "malignant/malignant (1).png": make_png(30),
    "malignant/malignant (2).png": make_png(2),
    "normal/normal (1).jpg": make_png(50),
    "normal/normal (1)_mask.png": make_png(0),
    "normal/normal (2).png": make_png(60)[:50],
    "normal/normal (3).png": b"",
    "normal/normal (4).png": b"hello",
    "normal/normal (5).png": make_png(70, side=20),
    "normal/normal (6)_mask.png": make_png(0),
    "normal/notes.txt": b"hello",
    "cysts/cyst (1).png": make_png(80),
    "readme.png": make_png(90),
}


def ingest(
    files: dict[str, bytes], classes: Classes = CLASSES, min_images_per_class: int = 1
) -> Ingestion:
    settings = IngestionSettings(min_side=32, min_images_per_class=min_images_per_class)
    return build_manifest(as_raw_images(files), settings, classes)


def test_the_manifest_describes_every_usable_image() -> None:
    manifest = ingest(FILES).manifest
    assert list(manifest.columns) == MANIFEST_COLUMNS
    assert list(manifest["image_id"]) == [
        "benign/benign (2)",
        "benign/benign (10)",
        "malignant/malignant (1)",
        "malignant/malignant (2)",
        "normal/normal (1)",
    ]
    assert list(manifest["label"]) == ["benign"] * 2 + ["malignant"] * 2 + ["normal"]
    assert list(manifest["masks"]) == [0, 2, 0, 0, 1]
    assert set(manifest["height"]) == {40}
    assert set(manifest["width"]) == {45}
    assert not any("_mask" in path for path in manifest["path"])


def test_a_file_of_the_same_bytes_stays_and_is_marked() -> None:
    manifest = ingest(FILES).manifest
    duplicates = dict(zip(manifest["image_id"], manifest["byte_duplicate_of"], strict=True))
    assert duplicates.pop("malignant/malignant (2)") == "benign/benign (2)"
    assert set(duplicates.values()) == {""}


def test_quarantine_says_why_and_nothing_is_lost() -> None:
    result = ingest(FILES)
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
    assert len(result.manifest) + len(result.quarantine) + result.summary["masks"] == len(FILES)


def test_counts_are_summarised() -> None:
    summary = ingest(FILES).summary
    assert summary["images"] == {"benign": 2, "malignant": 2, "normal": 1, "all": 5}
    assert summary["quarantined"] == 8
    assert summary["byte_duplicates"] == 1
    assert summary["masks"] == 3


def test_the_data_hash_follows_the_bytes() -> None:
    def digest(files: dict[str, bytes]) -> str:
        return ingest(files).tags["data_sha256"]

    before = digest(FILES)
    assert digest(dict(reversed(FILES.items()))) == before
    assert digest(FILES | {"benign/benign (2).png": make_png(3)}) != before
    assert digest(FILES | {"benign/benign (3).png": make_png(3)}) != before


@pytest.mark.parametrize(
    "names",
    [
        ["a (2)", "a (10)", "a (11)"],
        ["2", "10", "100"],
        ["p1_2", "p1_10", "p2_1", "p10_1"],
        ["scan-2", "scan-10"],
        ["a1.5", "a1.10"],
    ],
)
def test_the_order_is_as_a_person_counts(names: list[str]) -> None:
    files = {f"benign/{name}.png": make_png(n) for n, name in enumerate(reversed(names))}
    files |= {"malignant/m.png": make_png(90), "normal/n.png": make_png(91)}
    manifest = ingest(files).manifest
    assert list(manifest["image_id"])[:-2] == [f"benign/{name}" for name in names]


def test_the_same_name_with_two_suffixes_gives_two_ids() -> None:
    files = {"benign/a.png": make_png(1), "benign/a.bmp": make_png(2)}
    files |= {"malignant/b.png": make_png(3), "normal/c.png": make_png(4)}
    manifest = ingest(files).manifest
    assert manifest["image_id"].is_unique
    assert set(manifest["image_id"]) >= {"benign/a.png", "benign/a.bmp"}


def test_classes_are_the_users() -> None:
    classes = Classes(("None", "NA", "null", "suspicious: high"), ("suspicious: high",))
    files = {f"{name}/{name}.png": make_png(n) for n, name in enumerate(classes)}
    result = ingest(files | {"benign/b.png": make_png(9)}, classes)
    assert sorted(result.manifest["label"]) == sorted(classes)
    assert list(result.quarantine["path"]) == ["benign/b.png"]


def test_a_class_without_enough_images_is_named() -> None:
    with pytest.raises(BadInputError) as caught:
        ingest(FILES, min_images_per_class=2)
    message = str(caught.value)
    assert "too few images of class normal" in message
    assert "'normal': 1" in message
    assert "Expected layout" in message
    assert "\n" not in message


def test_a_class_without_any_image_is_named() -> None:
    with pytest.raises(BadInputError, match="too few images of class malignant"):
        ingest({"benign/b (1).png": make_png(1), "normal/n (1).png": make_png(2)})


def test_no_image_at_all_is_named() -> None:
    with pytest.raises(BadInputError, match="too few images of class benign, malignant, normal"):
        ingest({"readme.txt": b"hello"})


def test_the_users_groups_are_no_stray_file() -> None:
    quarantine = ingest(FILES | {"groups.csv": b"image_id,group"}).quarantine
    assert "groups.csv" not in set(quarantine["path"])
