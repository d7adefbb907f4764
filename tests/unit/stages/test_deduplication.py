"""Duplicates: found where they are, not where they are not, and kept together."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageDraw

from busi_pipeline.caching.cache import Cache
from busi_pipeline.config.schemas import DeduplicationSettings, PrivacySettings
from busi_pipeline.errors import BadInputError
from busi_pipeline.imaging import duplicate_search
from busi_pipeline.imaging.decoding import DecodedImage, decode_image
from busi_pipeline.imaging.duplicate_matching import describe_picture, flip_picture
from busi_pipeline.imaging.duplicate_search import PAIR_COLUMNS
from busi_pipeline.imaging.text_cover import cover_text
from busi_pipeline.pipelines.deduplication.grouping import group_images
from busi_pipeline.pipelines.deduplication.nodes import find_duplicates
from busi_pipeline.pipelines.deduplication.plots import plot_duplicate_pairs
from busi_pipeline.plotting.style import NothingToShow
from busi_pipeline.synthetic import simulate_scan
from tests.factories import RawFiles, as_raw_images, encode_image, load_parameters
from tests.privacy_factories import COVERED, UNCOVERED, list_pictures, make_named_picture

SETTINGS = load_parameters()["deduplication"]


def choose_use(use: str) -> DeduplicationSettings:
    return SETTINGS.updated({"patient_groups": use})


def label_images(labels: str, patients: str = "") -> pd.DataFrame:
    """Return a manifest of one image a letter, with that label and patient; `-` is none."""
    ids = [f"{label}/{i}" for i, label in enumerate(labels)]
    return pd.DataFrame(
        {
            "image_id": ids,
            "path": [f"{i}.png" for i in ids],
            "label": list(labels),
            "patient": [name.strip("-") for name in patients or "-" * len(labels)],
            "byte_sha256": ids,
            "pixel_sha256": ids,
        }
    )


def pair(*pairs: tuple[str, str]) -> pd.DataFrame:
    return pd.DataFrame(pairs, columns=["image_a", "image_b"])


# Groups


def test_connected_images_share_a_group() -> None:
    pairs = pair(("b/0", "b/2"), ("b/2", "m/4"))
    groups, summary = group_images(label_images("bbbmmn"), pairs, choose_use("join"))
    assert groups["group"].tolist() == ["b/0", "b/1", "b/0", "m/3", "b/0", "n/5"]
    assert groups["group_size"].tolist() == [3, 1, 3, 1, 3, 1]
    assert groups["mixed_labels"].tolist() == [True, False, True, False, True, False]
    assert summary["duplicates"] == {
        "groups": 4,
        "groups_with_duplicates": 1,
        "images_in_them": 3,
        "largest_group": 3,
        "groups_of_mixed_labels": 1,
        "images_of_mixed_labels": 3,
    }


def test_no_pair_leaves_every_image_alone() -> None:
    groups, _ = group_images(label_images("bmn"), pair(), choose_use("join"))
    assert groups["group"].tolist() == groups["image_id"].tolist()


@pytest.mark.parametrize(
    ("use", "expected"),
    [
        ("join", ["b/0", "b/0", "b/0", "m/3"]),
        ("only", ["b/0", "b/1", "b/1", "m/3"]),
        ("ignore", ["b/0", "b/0", "b/2", "m/3"]),
    ],
)
def test_patients_join_replace_or_stand_aside(use: str, expected: list[str]) -> None:
    manifest = label_images("bbbm", "xyyz")
    groups, _ = group_images(manifest, pair(("b/0", "b/1")), choose_use(use))
    assert groups["group"].tolist() == expected


def test_images_without_a_patient_stand_alone(caplog: pytest.LogCaptureFixture) -> None:
    """An unknown patient is not one patient."""
    groups, _ = group_images(label_images("bbbb", "p--p"), pair(), choose_use("join"))
    assert groups["group"].tolist() == ["b/0", "b/1", "b/2", "b/0"]
    assert "2 images have no patient" in caplog.text


def test_only_patients_need_a_patient_for_every_image() -> None:
    with pytest.raises(BadInputError, match="is 'only', but 2 of 3 images have no") as caught:
        group_images(label_images("bbb", "p--"), pair(), choose_use("only"))
    assert "'b/1', for one" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_patient_with_two_labels_is_kept_together_and_kept() -> None:
    """A woman may have a cyst and a cancer; one scan may not be both."""
    manifest = label_images("bmmbn", "ppqqq")
    groups, summary = group_images(manifest, pair(("m/2", "b/3")), choose_use("join"))
    assert groups["group"].tolist() == ["b/0", "b/0", "m/2", "m/2", "m/2"]
    assert groups["mixed_labels"].tolist() == [False, False, True, True, False]
    assert summary["duplicates"]["groups"] == 2
    assert summary["duplicates"]["images_in_them"] == 2, "of one scan, not of one patient"
    assert summary["duplicates"]["largest_group"] == 2
    assert summary["duplicates"]["groups_of_mixed_labels"] == 1


@pytest.mark.parametrize("column", ["byte_sha256", "pixel_sha256"])
def test_identical_images_of_two_patients_are_counted(
    column: str, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = label_images("bbbb", "pqrr").assign(**{column: ["1", "1", "2", "2"]})
    pairs = pair(("b/0", "b/1"), ("b/2", "b/3"))
    group_images(manifest, pairs, choose_use("join"))
    assert "identical" not in caplog.text
    group_images(manifest, pairs, choose_use("only"))
    assert "2 images are identical to an image of another group" in caplog.text


# The search


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
    """Nine scans with the same lettering, and duplicates of some of them."""
    labels = ["benign", "malignant", "normal"] * 3
    scans = [
        Image.fromarray(simulate_scan(label, 300, 380, np.random.default_rng(i)).image)
        for i, label in enumerate(labels)
    ]
    images = {f"scan{i}": write_on(scan, "RT AXILLA") for i, scan in enumerate(scans)}
    images["file"] = images["scan0"]
    images["annotated"] = write_on(scans[1], "RT AXILLA", (120, 90), (240, 170))
    images["cropped"] = images["scan2"].crop((40, 30, 350, 270))
    images["enlarged"] = images["scan3"].resize((494, 390), Image.Resampling.BICUBIC)
    images["enlarged cropped"] = images["scan3"].crop((60, 40, 340, 280)).resize((420, 360))
    images["flipped"] = scans[4].transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    images["brighter"] = images["scan5"].point(lambda v: min(255, int(1.2 * v + 10)))
    return images


@pytest.fixture(scope="module")
def raw_images(pictures: dict[str, Image.Image]) -> RawFiles:
    return as_raw_images({f"{name}.png": encode_image(image) for name, image in pictures.items()})


@pytest.fixture(scope="module")
def pictured(pictures: dict[str, Image.Image], raw_images: RawFiles) -> pd.DataFrame:
    """The manifest of the pictures; the enlarged ones carry another label than their scan."""
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
    raw_images: RawFiles, pictured: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory
) -> pd.DataFrame:
    return find_duplicates(
        raw_images, pictured, SETTINGS, Cache(tmp_path_factory.mktemp("duplicates"))
    )


def test_duplicates_are_found_with_their_kind_and_no_others(pairs: pd.DataFrame) -> None:
    found = {(a, b): k for a, b, k in zip(pairs.image_a, pairs.image_b, pairs.kind, strict=True)}
    assert found == {
        ("scan0", "file"): "identical file",
        ("scan1", "annotated"): "re-annotated",
        ("scan2", "cropped"): "re-cropped",
        ("scan3", "enlarged"): "zoomed",
        ("scan3", "enlarged cropped"): "zoomed",
        ("enlarged", "enlarged cropped"): "zoomed",
        ("scan4", "flipped"): "re-annotated",
        ("scan5", "brighter"): "re-annotated",
    }
    assert list(pairs.columns) == PAIR_COLUMNS
    assert pairs["same_frame"].all()
    assert pairs.loc[pairs["flipped"], "image_b"].tolist() == ["flipped"]
    assert (pairs["score"] > 0.92).all()
    of_pair = pairs.set_index("image_b")
    assert of_pair.loc["file", "score"] == 1
    assert of_pair.loc["enlarged", "scale"] == pytest.approx(380 / 494, abs=0.01)
    assert of_pair.loc["cropped", "overlap"] == pytest.approx(310 * 240 / (380 * 300), abs=0.03)


def test_flipped_features_are_those_of_the_flipped_image(pictures: dict[str, Image.Image]) -> None:
    pixels = np.stack([np.asarray(pictures["scan7"])] * 3, axis=-1)
    turned = flip_picture(describe_picture(pixels, 512, 300))
    seen = describe_picture(np.ascontiguousarray(pixels[:, ::-1]), 512, 300)
    np.testing.assert_array_equal(turned.grey, seen.grey)
    apart = np.linalg.norm(turned.points[:, None] - seen.points[None], axis=2)
    found = apart.min(axis=1) < 0.5
    assert found.mean() > 0.2
    likeness = (turned.descriptors * seen.descriptors[apart.argmin(axis=1)]).sum(axis=1)
    assert np.median(likeness[found]) > 0.98


def test_lettering_alone_is_no_duplicate(pairs: pd.DataFrame) -> None:
    scans = [f"scan{i}" for i in range(9)]
    assert not (pairs["image_a"].isin(scans) & pairs["image_b"].isin(scans)).any()


def test_one_menu_beside_other_frames_is_no_duplicate(
    pictures: dict[str, Image.Image], tmp_path: Path
) -> None:
    """A third of each picture is the machine's own, ruler and menu, now left, now right."""
    menu = simulate_scan("normal", 300, 130, np.random.default_rng(99)).image
    frames = [np.asarray(pictures[f"scan{i}"].convert("L"))[:, :250] for i in range(3)]
    beside = {
        "left": Image.fromarray(np.hstack([menu, frames[0]])),
        "right": Image.fromarray(np.hstack([frames[1], menu])),
        "third": Image.fromarray(np.hstack([menu, frames[2]])),
    }
    beside["cropped"] = beside["third"].crop((60, 30, 380, 280))
    raw = as_raw_images({f"{name}.png": encode_image(image) for name, image in beside.items()})
    manifest = pd.DataFrame(
        {
            "image_id": list(beside),
            "path": list(raw),
            "label": "benign",
            "byte_sha256": list(beside),
            "pixel_sha256": list(beside),
        }
    )
    found = find_duplicates(raw, manifest, SETTINGS, Cache(tmp_path / "whole"))
    assert found[["image_a", "image_b"]].to_numpy().tolist() == [["third", "cropped"]]
    anything = SETTINGS.updated({"min_shared": 0.0})
    parts = find_duplicates(raw, manifest, anything, Cache(tmp_path / "parts"))
    assert ["left", "right"] in parts[["image_a", "image_b"]].to_numpy().tolist()


def test_a_pair_far_down_the_list_is_found_through_its_group(
    raw_images: RawFiles, pictured: pd.DataFrame, tmp_path: Path
) -> None:
    """With one likely partner each, the third of a group is reached through the second."""
    three = pictured[pictured["image_id"].isin(["scan3", "enlarged", "enlarged cropped"])]
    one_each = SETTINGS.updated({"candidates": 1})
    assert len(find_duplicates(raw_images, three, one_each, Cache(tmp_path))) == 3


def test_the_index_finds_the_same_pairs(
    pairs: pd.DataFrame,
    pictured: pd.DataFrame,
    raw_images: RawFiles,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With vectors that lie in a file, as those of many images do."""
    monkeypatch.setattr(duplicate_search, "_HELD", 5)
    few = SETTINGS.updated({"exact_up_to": 5})
    found = find_duplicates(raw_images, pictured, few, Cache(tmp_path))
    pd.testing.assert_frame_equal(found, pairs)


def test_pictures_beyond_the_memory_are_described_once(
    raw_images: RawFiles,
    pictured: pd.DataFrame,
    pairs: pd.DataFrame,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    described: list[bytes] = []

    def describe(content: bytes) -> DecodedImage:
        described.append(content)
        return decode_image(content)

    monkeypatch.setattr(duplicate_search, "_HELD", 3)
    monkeypatch.setattr(duplicate_search, "_BLOCK", 4)
    monkeypatch.setattr(duplicate_search, "decode_image", describe)
    found = find_duplicates(raw_images, pictured, SETTINGS, Cache(tmp_path))
    pd.testing.assert_frame_equal(found, pairs)
    assert len(described) == len(pictured)


def test_duplicates_are_found_among_images_not_learned_from(
    raw_images: RawFiles,
    pictured: pd.DataFrame,
    pairs: pd.DataFrame,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(duplicate_search, "_LEARNED_FROM", 3)
    one_each = SETTINGS.updated({"candidates": 1})
    found = find_duplicates(raw_images, pictured, one_each, Cache(tmp_path))
    pd.testing.assert_frame_equal(found, pairs)


def test_identical_files_are_found_without_a_feature(
    raw_images: RawFiles, pictured: pd.DataFrame, tmp_path: Path
) -> None:
    blank = encode_image(Image.new("L", (200, 160), 40))
    rows = pictured.iloc[[0, 0]].assign(
        image_id=["blank", "blank again"], path=["blank.png", "blank again.png"]
    )
    rows["byte_sha256"] = rows["pixel_sha256"] = "of the blank"
    found = find_duplicates(
        raw_images | as_raw_images({"blank.png": blank, "blank again.png": blank}),
        pd.concat([pictured.iloc[:4], rows], ignore_index=True),
        SETTINGS,
        Cache(tmp_path),
    )
    assert found[["image_a", "image_b", "kind"]].to_numpy().tolist() == [
        ["blank", "blank again", "identical file"]
    ]


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each search looked at; none is really made."""
    made: list[int] = []

    def search(raw_images: Any, manifest: pd.DataFrame, settings: Any) -> pd.DataFrame:
        made.append(len(manifest))
        return pd.DataFrame(columns=PAIR_COLUMNS)

    monkeypatch.setattr(duplicate_search, "_search", search)
    return made


def test_the_search_is_repeated_only_where_something_changed(
    pictured: pd.DataFrame, searches: list[int], tmp_path: Path
) -> None:
    def count_searches(manifest: pd.DataFrame, **changes: Any) -> int:
        before = len(searches)
        find_duplicates({}, manifest, SETTINGS.updated(changes), Cache(tmp_path))
        return len(searches) - before

    assert count_searches(pictured) == 1
    assert count_searches(pictured) == 0
    assert count_searches(pictured, patient_groups="only") == 0
    assert count_searches(pictured, exact_up_to=len(pictured)) == 0
    assert count_searches(pictured, exact_up_to=len(pictured) - 1) == 1, "by the index"
    for name in type(SETTINGS).model_fields:
        if name not in ("patient_groups", "exact_up_to"):
            step = 1 if isinstance(getattr(SETTINGS, name), int) else -0.01
            assert count_searches(pictured, **{name: getattr(SETTINGS, name) + step}) == 1, name
    assert count_searches(pictured.iloc[1:]) == 1
    assert count_searches(pictured.assign(byte_sha256="other")) == 1


def test_the_plot_shows_the_pairs(
    raw_images: RawFiles, pictured: pd.DataFrame, pairs: pd.DataFrame
) -> None:
    figure = plot_duplicate_pairs(raw_images, pictured, pairs, UNCOVERED)
    titles = [axis.get_title() for axis in figure.axes]
    assert sum("different labels" in title for title in titles) == 2
    assert len([axis for axis in figure.axes if axis.images]) == 2 * (4 + 2)
    nothing = plot_duplicate_pairs(raw_images, pictured, pairs.iloc[:0], UNCOVERED)
    assert isinstance(nothing, NothingToShow)


@pytest.mark.parametrize("privacy", [COVERED, UNCOVERED])
def test_the_plot_covers_names_if_privacy_says_so(privacy: PrivacySettings) -> None:
    picture = make_named_picture()
    files = {f"{name}.png": encode_image(Image.fromarray(picture)) for name in "ab"}
    pair_found = pd.DataFrame(
        {
            **{"image_a": ["a"], "image_b": ["b"], "label_a": ["x"], "label_b": ["x"]},
            **{"score": [1.0], "same_frame": [True], "kind": ["same file"]},
        }
    )
    manifest = pd.DataFrame({"image_id": ["a", "b"], "path": list(files)})
    figure = plot_duplicate_pairs(as_raw_images(files), manifest, pair_found, privacy)
    expected = cover_text(picture) if privacy.cover_text else picture
    shown = list_pictures(figure)
    assert len(shown) == 2
    assert all((pixels == expected).all() for pixels in shown)
