"""Augmentation: training images only, within the limits, and moved as the plan says."""

import hashlib

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from busi_pipeline.arrays import StoredArray
from busi_pipeline.errors import BadInputError
from busi_pipeline.movements import Movement, list_movements, move_image
from busi_pipeline.pipelines.augmentation.nodes import (
    PLAN_COLUMNS,
    draw_augmentation_sheet,
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
SETTINGS = {"title": "T", "image_size": 32, "augmentation": LIMITS}


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


def test_only_training_images_are_augmented(split_manifest: pd.DataFrame) -> None:
    plan = plan_augmentation(split_manifest, SETTINGS)
    training = split_manifest.loc[split_manifest["split"] == "train", "image_id"]
    assert list(plan.columns) == PLAN_COLUMNS
    assert set(plan["image_id"]) == set(training)
    assert (plan.groupby("image_id")["view"].apply(list).map(tuple) == tuple(range(1, 7))).all()


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
    alone = plan_augmentation(split_manifest.iloc[[4]], SETTINGS)
    pd.testing.assert_frame_equal(
        plan[plan["image_id"] == "benign/4"].reset_index(drop=True), alone
    )
    other = plan_augmentation(split_manifest, SETTINGS | {"augmentation": LIMITS | {"seed": 43}})
    assert not np.allclose(plan["zoom"], other["zoom"])


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
    np.testing.assert_array_equal(move_image(marked, Movement()), marked)


@pytest.mark.parametrize(
    ("movement", "expected"),
    [
        (Movement(flip_horizontal=True), (10, 10)),
        (Movement(flip_vertical=True), (30, 30)),
        (Movement(rotation_degrees=90), (10, 10)),  # counter-clockwise: right goes up, up goes left
        (Movement(rotation_degrees=-90), (30, 30)),
        (Movement(zoom=1.5), (5, 35)),
        (Movement(shift_x=5 / 41), (10, 35)),
        (Movement(shift_y=5 / 41), (15, 30)),
    ],
)
def test_each_movement_goes_where_it_says(
    marked: np.ndarray, movement: Movement, expected: tuple[int, int]
) -> None:
    assert spot(move_image(marked, movement)) == pytest.approx(expected, abs=0.3)


def test_brightness_scales_and_stays_in_range(marked: np.ndarray) -> None:
    assert move_image(marked, Movement(brightness=0.5)).max() == 100
    assert move_image(marked, Movement(brightness=2.0)).max() == 255
    assert marked.max() == 200, "the image handed in must not change"


def test_movements_of_a_plan_come_in_its_order(split_manifest: pd.DataFrame) -> None:
    plan = plan_augmentation(split_manifest, SETTINGS)
    movements = list(list_movements(plan))
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
    assert values.shape == (2, *stream.shape)
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
    figure = draw_augmentation_sheet(images, split_manifest, plan, SETTINGS)
    titles = [axis.get_title() for axis in figure.axes]
    for label in ("benign", "malignant", "normal"):
        assert titles.count(f"original, {label}") == 2
    assert len(figure.axes) == 6 * 6
