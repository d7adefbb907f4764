"""Augmentation: training images only, within the limits, and moved as the plan says."""

import hashlib

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from busi_pipeline.caching.arrays import StoredArray
from busi_pipeline.learning.batch_affine import apply_affine_batch
from busi_pipeline.errors import BadInputError
from busi_pipeline.imaging.affine import (
    FLIPPED,
    ORIGINAL,
    AffineTransform,
    invert_affine,
    list_transforms,
    apply_affine,
)
from busi_pipeline.pipelines.preprocessing.nodes import (
    PLAN_COLUMNS,
    plot_augmentation,
    plan_all_images,
    plan_augmentation,
    prepare_images,
)
from busi_pipeline.synthetic import simulate_scan
from tests.test_images import encode

LIMITS = {
    "seed": 42,
    "views": 6,
    "rotation_degrees": 15,
    "zoom": 0.1,
    "horizontal_flip": True,
    "vertical_flip": False,
    "shift": 0.05,
    "shear_degrees": 0,
    "brightness": 0.1,
}
SETTINGS = {
    "title": "T",
    "image_size": 32,
    "augmentation": LIMITS,
    "training": {"tta_horizontal_flip": True},
}


@pytest.fixture
def split_manifest() -> pd.DataFrame:
    ids = [f"benign/{i}" for i in range(30)]
    return pd.DataFrame(
        {
            "image_id": ids,
            "label": (["benign"] * 10 + ["malignant"] * 10 + ["normal"] * 10),
            "split": ["train", "train", "validation", "test", "train"] * 6,
        }
    )


@pytest.mark.parametrize("mirror", [True, False])
def test_only_training_images_are_augmented(split_manifest: pd.DataFrame, mirror: bool) -> None:
    plan = plan_augmentation(split_manifest, SETTINGS | {"training": {"tta_horizontal_flip": mirror}})
    assert list(plan.columns) == PLAN_COLUMNS
    views = plan.groupby("image_id")["view"].apply(list).map(tuple)
    of_split = split_manifest.set_index("image_id")["split"].reindex(views.index)
    still = (ORIGINAL, FLIPPED) if mirror else (ORIGINAL,)
    assert set(views[of_split == "train"]) == {(*range(1, 7), *still)}
    assert set(views[of_split == "validation"]) == {still}
    assert set(of_split) == {"train", "validation"}, "no test image"
    plain = plan[plan["view"] == ORIGINAL]
    assert set(list_transforms(plain)) == {AffineTransform()}


@pytest.mark.parametrize("mirror", [True, False])
def test_all_views_are_those_of_every_fold(split_manifest: pd.DataFrame, mirror: bool) -> None:
    settings = SETTINGS | {"training": {"tta_horizontal_flip": mirror}}
    everything = plan_all_images(split_manifest, settings)
    views = everything.groupby("image_id")["view"].apply(lambda v: tuple(sorted(v)))
    judged = (FLIPPED, ORIGINAL) if mirror else (ORIGINAL,)
    assert set(views) == {(*judged, *range(1, 7))}
    assert len(views) == len(split_manifest)
    flipped = everything[everything["view"] == FLIPPED]
    assert all(m == AffineTransform(flip_horizontal=True) for m in list_transforms(flipped))
    one_split = plan_augmentation(split_manifest, settings)
    key = ["image_id", "view"]
    both = one_split.merge(everything, on=key, suffixes=("", "_all"))
    assert len(both) == len(one_split)
    np.testing.assert_array_equal(both["zoom"], both["zoom_all"])


def test_movements_stay_within_the_limits(split_manifest: pd.DataFrame) -> None:
    plan = plan_augmentation(split_manifest, SETTINGS)
    assert plan["rotation_degrees"].abs().max() <= 15
    assert plan["rotation_degrees"].abs().max() > 10
    assert plan["zoom"].between(0.9, 1.1).all()
    assert plan["shift_x"].abs().max() <= 0.05
    assert plan["brightness"].between(0.9, 1.1).all()
    assert (plan["shear_degrees"] == 0).all()
    assert 0.2 < plan["flip_horizontal"].mean() < 0.8
    assert not plan["flip_vertical"].any()


def test_plan_of_an_image_depends_on_it_and_the_seed_alone(split_manifest: pd.DataFrame) -> None:
    plan = plan_augmentation(split_manifest, SETTINGS)
    alone = plan_augmentation(split_manifest.iloc[[4, 2]], SETTINGS)
    ours, others = (p[p["image_id"] == "benign/4"].reset_index(drop=True) for p in (plan, alone))
    pd.testing.assert_frame_equal(ours, others)
    other = plan_augmentation(split_manifest, SETTINGS | {"augmentation": LIMITS | {"seed": 43}})
    assert not np.allclose(plan["zoom"], other["zoom"])


def test_more_views_leave_the_first_ones_as_they_are(split_manifest: pd.DataFrame) -> None:
    plan = plan_augmentation(split_manifest, SETTINGS)
    more = plan_augmentation(split_manifest, SETTINGS | {"augmentation": LIMITS | {"views": 9}})
    assert more["view"].max() == 9
    first = more[more["view"] <= LIMITS["views"]].reset_index(drop=True)
    pd.testing.assert_frame_equal(first, plan)


@pytest.fixture
def marked() -> np.ndarray:
    """Black, with a bright spot up and to the right of the middle."""
    pixels = np.zeros((41, 41, 3), dtype=np.uint8)
    pixels[9:12, 29:32] = 200
    return pixels


def spot(pixels: np.ndarray) -> tuple[float, float]:
    """Row and column of the centre of brightness."""
    grey = pixels[..., 0].astype(float)
    rows, columns = np.mgrid[: grey.shape[0], : grey.shape[1]]
    return float((rows * grey).sum() / grey.sum()), float((columns * grey).sum() / grey.sum())


def test_no_movement_changes_nothing(marked: np.ndarray) -> None:
    np.testing.assert_array_equal(apply_affine(marked, AffineTransform()), marked)


@pytest.mark.parametrize(
    ("movement", "expected"),
    [
        (AffineTransform(flip_horizontal=True), (10, 10)),
        (AffineTransform(flip_vertical=True), (30, 30)),
        (AffineTransform(rotation_degrees=90), (10, 10)),  # counter-clockwise: right goes up, up goes left
        (AffineTransform(rotation_degrees=-90), (30, 30)),
        (AffineTransform(zoom=1.5), (5, 35)),
        (AffineTransform(shift_x=5 / 41), (10, 35)),
        (AffineTransform(shift_y=5 / 41), (15, 30)),
    ],
)
def test_each_movement_goes_where_it_says(
    marked: np.ndarray, movement: AffineTransform, expected: tuple[int, int]
) -> None:
    assert spot(apply_affine(marked, movement)) == pytest.approx(expected, abs=0.3)


def test_nothing_black_comes_in_from_outside() -> None:
    grey = np.full((40, 50, 3), 90, dtype=np.uint8)
    moved = apply_affine(grey, AffineTransform(rotation_degrees=30, zoom=0.7, shift_x=0.2, shear_degrees=9))
    np.testing.assert_array_equal(moved, grey)


def test_brightness_scales_and_stays_in_range(marked: np.ndarray) -> None:
    assert apply_affine(marked, AffineTransform(brightness=0.5)).max() == 100
    assert apply_affine(marked, AffineTransform(brightness=2.0)).max() == 255
    assert marked.max() == 200, "the image handed in must not change"


@pytest.mark.parametrize("size", [(40, 40), (33, 48)])
def test_a_batch_is_moved_as_one_image_is(size: tuple[int, int]) -> None:
    movements = [
        AffineTransform(),
        AffineTransform(12.0, 1.1, True, False, 0.04, -0.03, 3.0, 1.08),
        AffineTransform(-15.0, 0.9, False, True, -0.05, 0.02, -5.0, 0.91),
        AffineTransform(zoom=1.3, brightness=1.9),
    ]
    scans = [simulate_scan("benign", *size, np.random.default_rng(i)).image for i in range(4)]
    images = np.stack([np.stack([scan, scan // 2, 255 - scan], axis=-1) for scan in scans])
    batch = apply_affine_batch(
        images,
        np.array([invert_affine(m, *size) for m in movements]),
        np.array([m.brightness for m in movements]),
    )
    moved = np.asarray(batch).astype(int)
    assert np.asarray(batch).dtype == np.uint8
    for ours, image, movement in zip(moved, images, movements, strict=True):
        apart = np.abs(ours - apply_affine(image, movement))
        assert np.quantile(apart, 0.9) <= 2, movement
        assert apart.mean() < 1, movement
    np.testing.assert_array_equal(moved[0], images[0])


def test_movements_of_a_plan_come_in_its_order(split_manifest: pd.DataFrame) -> None:
    plan = plan_augmentation(split_manifest, SETTINGS)
    movements = list(list_transforms(plan))
    assert len(movements) == len(plan)
    assert movements[3].zoom == plan.loc[3, "zoom"]
    assert movements[3].flip_horizontal == plan.loc[3, "flip_horizontal"]


def test_prepared_images_are_in_the_manifests_order() -> None:
    scan = simulate_scan("benign", 80, 100, np.random.default_rng(1)).image
    files = {"a": encode(Image.fromarray(scan)), "b": encode(Image.fromarray(255 - scan))}
    raw = {path: (lambda content=content: content) for path, content in files.items()}
    manifest = pd.DataFrame(
        {
            "image_id": ["y", "x"],
            "path": ["b", "a"],
            "byte_sha256": [hashlib.sha256(files[name]).hexdigest() for name in "ba"],
        }
    )
    stream = prepare_images(raw, manifest, size=32)
    values = np.concatenate(list(stream.compute(np.arange(2))))
    assert values.shape == (2, 32, 32, 3)
    assert values.dtype == stream.dtype
    assert list(stream.index["image_id"]) == ["y", "x"]
    assert values[0].mean() < 128 < values[1].mean()


def test_a_file_that_changed_since_ingestion_is_not_prepared() -> None:
    manifest = pd.DataFrame({"image_id": ["x"], "path": ["a.png"], "byte_sha256": ["0" * 64]})
    stream = prepare_images({"a.png": lambda: b"other bytes"}, manifest, size=32)
    with pytest.raises(BadInputError, match=r"a\.png changed since ingestion: rerun"):
        list(stream.compute(np.arange(1)))


def test_sheet_shows_each_class(split_manifest: pd.DataFrame) -> None:
    plan = plan_augmentation(split_manifest, SETTINGS)
    images = StoredArray(split_manifest[["image_id"]], np.zeros((30, 32, 32, 3), dtype=np.uint8))
    figure = plot_augmentation(images, split_manifest, plan, SETTINGS)
    titles = [axis.get_title() for axis in figure.axes]
    for label in ("benign", "malignant", "normal"):
        assert titles.count(f"original, {label}") == 2
    assert len(figure.axes) == 6 * 6
