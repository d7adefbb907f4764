"""Copies: found where they are, not where they are not, and kept cv_group."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image, ImageDraw

from busi_pipeline.datasets.computed_table import ComputedTableDataset, TableOnDemand
from busi_pipeline.errors import BadInputError
from busi_pipeline.imaging.decoding import decode_image
from busi_pipeline.pipelines.deduplication import nodes
from busi_pipeline.pipelines.deduplication.grouping import group_images
from busi_pipeline.imaging.duplicate_matching import describe_picture, flip_picture
from busi_pipeline.pipelines.deduplication.plots import plot_duplicate_pairs
from busi_pipeline.imaging.duplicate_search import find_duplicates
from busi_pipeline.synthetic import simulate_scan
from tests.conftest import PROJECT
from tests.test_images import encode

JOIN = {"patient_groups": "join"}


def make_manifest(labels: str) -> pd.DataFrame:
    """One image a letter, with that label."""
    ids = [f"{label}/{i}" for i, label in enumerate(labels)]
    return pd.DataFrame({"image_id": ids, "path": [f"{i}.png" for i in ids], "label": list(labels)})


def make_pairs(*pairs: tuple[str, str]) -> pd.DataFrame:
    return pd.DataFrame(pairs, columns=["image_a", "image_b"])


def test_connected_images_share_a_group_and_mixed_labels_are_told() -> None:
    manifest = make_manifest("bbbmmn")
    groups, summary = group_images(manifest, make_pairs(("b/0", "b/2"), ("b/2", "m/4")), None, JOIN)
    assert groups["group"].tolist() == ["b/0", "b/1", "b/0", "m/3", "b/0", "n/5"]
    assert groups["group_size"].tolist() == [3, 1, 3, 1, 3, 1]
    assert groups["mixed_labels"].tolist() == [True, False, True, False, True, False]
    assert summary["copies"] == {
        "groups": 4,
        "groups_with_copies": 1,
        "images_in_them": 3,
        "largest_group": 3,
        "groups_of_mixed_labels": 1,
        "images_of_mixed_labels": 3,
    }


def test_no_pair_leaves_every_image_alone() -> None:
    groups, _ = group_images(make_manifest("bmn"), make_pairs(), None, JOIN)
    assert groups["group"].tolist() == groups["image_id"].tolist()


@pytest.mark.parametrize(
    ("use", "expected"),
    [
        ("join", ["b/0", "b/0", "b/0", "m/3"]),
        ("only", ["b/0", "b/1", "b/1", "m/3"]),
        ("ignore", ["b/0", "b/0", "b/2", "m/3"]),
    ],
)
def test_own_groups_join_replace_or_stand_aside(use: str, expected: list[str]) -> None:
    own = pd.DataFrame(
        {"image_id": ["b/0", "b/1", "b/2", "m/3"], "group": ["p1", "p2", "p2", "p3"]}
    )
    groups, _ = group_images(
        make_manifest("bbbm"), make_pairs(("b/0", "b/1")), own, {"patient_groups": use}
    )
    assert groups["group"].tolist() == expected


def test_own_groups_may_name_files_and_leave_images_out() -> None:
    own = pd.DataFrame({"path": ["b/0.png", "b/2.png"], "group": ["p", "p"]})
    groups, _ = group_images(make_manifest("bbb"), make_pairs(), own, JOIN)
    assert groups["group"].tolist() == ["b/0", "b/1", "b/0"]


@pytest.mark.parametrize(
    ("own", "use", "message"),
    [
        (None, "only", "there is no groups.csv"),
        ({"image_id": ["b/0"], "group": ["p"]}, "only", "leaves out 2 images"),
        ({"image_id": ["b/9"], "group": ["p"]}, "join", "1 images that are not in the manifest"),
        ({"image": ["b/0"], "group": ["p"]}, "join", "needed are image_id"),
        (None, "both", "copies.patient_groups must be one of"),
    ],
)
def test_wrong_own_groups_are_named(own: dict[str, Any] | None, use: str, message: str) -> None:
    table = None if own is None else pd.DataFrame(own)
    with pytest.raises(BadInputError, match=message):
        group_images(make_manifest("bbb"), make_pairs(), table, {"patient_groups": use})


def write_on(image: Image.Image, text: str, *places: tuple[int, int]) -> Image.Image:
    """Return the image with a caption and callipers drawn on it."""
    drawn = image.copy()
    pen = ImageDraw.Draw(drawn)
    pen.text((12, image.height - 26), text, fill=255, font_size=16)
    for x, y in places:
        pen.line([(x - 5, y), (x + 5, y)], fill=255)
        pen.line([(x, y - 5), (x, y + 5)], fill=255)
    return drawn


@pytest.fixture(scope="module")
def pictures() -> dict[str, Image.Image]:
    """Twelve scans, all but one with the same lettering, and copies of some of them."""
    labels = ["benign", "malignant", "normal"] * 4
    scans = [
        Image.fromarray(simulate_scan(label, 300, 380, np.random.default_rng(i)).image)
        for i, label in enumerate(labels)
    ]
    images = {f"scan{i}": write_on(scan, "RT AXILLA") for i, scan in enumerate(scans)}
    images["file"] = images["scan0"]
    images["drawn"] = write_on(scans[1], "RT AXILLA", (120, 90), (240, 170))
    images["cropped"] = images["scan2"].crop((40, 30, 350, 270))
    images["enlarged"] = images["scan3"].resize((494, 390), Image.Resampling.BICUBIC)
    images["enlarged cropped"] = images["scan3"].crop((60, 40, 340, 280)).resize((420, 360))
    images["mirrored"] = scans[4].transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    images["brighter"] = images["scan5"].point(lambda v: min(255, int(1.2 * v + 10)))
    return images


@pytest.fixture(scope="module")
def settings() -> dict[str, Any]:
    return yaml.safe_load((PROJECT / "conf/base/parameters_copies.yml").read_text())["copies"]


@pytest.fixture(scope="module")
def raw_images(pictures: dict[str, Image.Image]) -> dict[str, Callable[[], bytes]]:
    contents = {f"{name}.png": encode(image) for name, image in pictures.items()}
    return {path: (lambda content=content: content) for path, content in contents.items()}


@pytest.fixture(scope="module")
def pictured(
    pictures: dict[str, Image.Image], raw_images: dict[str, Callable[[], bytes]]
) -> pd.DataFrame:
    """The manifest of the pictures; the enlarged copies carry another label than their scan."""
    names = list(pictures)
    return pd.DataFrame(
        {
            "image_id": names,
            "path": [f"{name}.png" for name in names],
            "label": ["malignant" if "enlarged" in name else "benign" for name in names],
            "byte_sha256": [
                hashlib.sha256(raw_images[f"{name}.png"]()).hexdigest() for name in names
            ],
            "pixel_sha256": [
                hashlib.sha256(pictures[name].tobytes()).hexdigest() for name in names
            ],
        }
    )


@pytest.fixture(scope="module")
def pairs(
    raw_images: dict[str, Callable[[], bytes]],
    pictured: pd.DataFrame,
    settings: dict[str, Any],
) -> pd.DataFrame:
    return find_duplicates(raw_images, pictured, settings).compute()


def test_copies_are_found_with_their_kind_and_nothing_else(pairs: pd.DataFrame) -> None:
    found = {(a, b): k for a, b, k in zip(pairs.image_a, pairs.image_b, pairs.kind, strict=True)}
    assert found == {
        ("scan0", "file"): "identical file",
        ("scan1", "drawn"): "re-annotated",
        ("scan2", "cropped"): "re-cropped",
        ("scan3", "enlarged"): "zoomed",
        ("scan3", "enlarged cropped"): "zoomed",
        ("enlarged", "enlarged cropped"): "zoomed",
        ("scan4", "mirrored"): "re-annotated",
        ("scan5", "brighter"): "re-annotated",
    }
    assert pairs["same_frame"].all()
    assert pairs.loc[pairs["mirrored"], "image_b"].tolist() == ["mirrored"]
    assert (pairs["score"] > 0.92).all()
    of_pair = pairs.set_index("image_b")
    assert of_pair.loc["file", "score"] == 1
    assert of_pair.loc["enlarged", "scale"] == pytest.approx(380 / 494, abs=0.01)
    assert of_pair.loc["cropped", "overlap"] == pytest.approx(310 * 240 / (380 * 300), abs=0.03)


def test_mirrored_features_are_those_of_the_mirror_image(
    pictures: dict[str, Image.Image],
) -> None:
    pixels = np.stack([np.asarray(pictures["scan7"])] * 3, axis=-1)
    turned = flip_picture(describe_picture(pixels, 512, 300))
    seen = describe_picture(np.ascontiguousarray(pixels[:, ::-1]), 512, 300)
    np.testing.assert_array_equal(turned.grey, seen.grey)
    apart = np.linalg.norm(turned.points[:, None] - seen.points[None], axis=2)
    found = apart.min(axis=1) < 0.5
    assert found.mean() > 0.2
    likeness = (turned.descriptors * seen.descriptors[apart.argmin(axis=1)]).sum(axis=1)
    assert np.median(likeness[found]) > 0.98


def test_lettering_alone_is_no_copy(pairs: pd.DataFrame) -> None:
    scans = [f"scan{i}" for i in range(12)]
    assert not (pairs["image_a"].isin(scans) & pairs["image_b"].isin(scans)).any()


def test_a_pair_far_down_the_list_is_found_through_its_group(
    raw_images: dict[str, Callable[[], bytes]], pictured: pd.DataFrame, settings: dict[str, Any]
) -> None:
    """With one likely partner each, the third of a group is reached through the second."""
    three = pictured[pictured["image_id"].isin(["scan3", "enlarged", "enlarged cropped"])]
    found = find_duplicates(raw_images, three, settings | {"candidates": 1}).compute()
    assert len(found) == 3


def test_pictures_that_memory_does_not_hold_are_not_described_again(
    raw_images: dict[str, Callable[[], bytes]],
    pictured: pd.DataFrame,
    settings: dict[str, Any],
    pairs: pd.DataFrame,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    described = []
    monkeypatch.setattr(nodes, "_HELD", 3)
    monkeypatch.setattr(nodes, "_BLOCK", 4)
    monkeypatch.setattr(nodes, "decode_image", lambda c: described.append(c) or decode_image(c))
    found = find_duplicates(raw_images, pictured, settings).compute()
    pd.testing.assert_frame_equal(found, pairs)
    assert len(described) == len(pictured)


def test_copies_are_likely_partners_among_images_that_nothing_was_learned_from(
    raw_images: dict[str, Callable[[], bytes]],
    pictured: pd.DataFrame,
    settings: dict[str, Any],
    pairs: pd.DataFrame,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(nodes, "_LEARNED_FROM", 3)
    found = find_duplicates(raw_images, pictured, settings | {"candidates": 1}).compute()
    pd.testing.assert_frame_equal(found, pairs)


def test_identical_files_are_copies_though_nothing_in_them_can_be_matched(
    raw_images: dict[str, Callable[[], bytes]], pictured: pd.DataFrame, settings: dict[str, Any]
) -> None:
    blank = encode(Image.new("L", (200, 160), 40))
    rows = pictured.iloc[[0, 0]].assign(
        image_id=["blank", "blank again"], path=["blank.png", "blank again.png"]
    )
    rows["byte_sha256"] = rows["pixel_sha256"] = "of the blank"
    found = find_duplicates(
        {**raw_images, "blank.png": lambda: blank, "blank again.png": lambda: blank},
        pd.concat([pictured.iloc[:4], rows], ignore_index=True),
        settings,
    ).compute()
    assert found[["image_a", "image_b", "kind"]].to_numpy().tolist() == [
        ["blank", "blank again", "identical file"]
    ]


def test_montage_shows_the_pairs(
    raw_images: dict[str, Callable[[], bytes]], pictured: pd.DataFrame, pairs: pd.DataFrame
) -> None:
    figure = plot_duplicate_pairs(raw_images, pictured, pairs)
    titles = [axis.get_title() for axis in figure.axes]
    assert sum("different labels" in title for title in titles) == 2
    assert len([axis for axis in figure.axes if axis.images]) == 2 * (4 + 2)
    nothing = plot_duplicate_pairs(raw_images, pictured, pairs.iloc[:0])
    assert "0 pairs" in nothing.get_suptitle()


def test_search_is_repeated_only_where_something_changed(
    raw_images: dict[str, Callable[[], bytes]], pictured: pd.DataFrame, settings: dict[str, Any]
) -> None:
    recipe = find_duplicates(raw_images, pictured, settings).recipe
    assert find_duplicates(raw_images, pictured, settings).recipe == recipe
    assert find_duplicates(raw_images, pictured, settings | {"patient_groups": "only"}).recipe == recipe
    assert find_duplicates(raw_images, pictured, settings | {"same_frame": 0.9}).recipe != recipe
    assert find_duplicates(raw_images, pictured.iloc[1:], settings).recipe != recipe


def test_table_is_computed_again_only_for_another_recipe(tmp_path: Path) -> None:
    computed = []

    def table(recipe: str) -> TableOnDemand:
        def compute() -> pd.DataFrame:
            computed.append(recipe)
            return pd.DataFrame({"made_by": [recipe]})

        return TableOnDemand({"recipe": recipe}, compute)

    path = tmp_path / "table.csv"
    dataset = ComputedTableDataset(filepath=str(path), save_args={"index": False})
    for recipe in ("a", "a", "b", "b"):
        dataset.save(table(recipe))
    assert computed == ["a", "b"]
    assert dataset.load()["made_by"].tolist() == ["b"]
    path.write_text("made_by\nsomebody\n")
    dataset.save(table("b"))
    assert computed == ["a", "b", "b"], "an edited file is not the table of the recipe"
