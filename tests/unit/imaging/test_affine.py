"""Affine transforms: each goes where it says."""

import numpy as np
import pandas as pd
import pytest

from busi_pipeline.imaging.affine import (
    AffineTransform,
    apply_affine,
    list_transforms,
)


@pytest.fixture
def dotted() -> np.ndarray:
    """Black, with a bright spot up and to the right of the middle."""
    pixels = np.zeros((41, 41, 3), dtype=np.uint8)
    pixels[9:12, 29:32] = 200
    return pixels


def find_spot(pixels: np.ndarray) -> tuple[float, float]:
    """Return row and column of the centre of brightness."""
    grey = pixels[..., 0].astype(float)
    rows, columns = np.mgrid[: grey.shape[0], : grey.shape[1]]
    return float((rows * grey).sum() / grey.sum()), float((columns * grey).sum() / grey.sum())


def test_no_transform_changes_nothing(dotted: np.ndarray) -> None:
    np.testing.assert_array_equal(apply_affine(dotted, AffineTransform()), dotted)


@pytest.mark.parametrize(
    ("transform", "expected"),
    [
        (AffineTransform(flip_horizontal=True), (10, 10)),
        (AffineTransform(flip_vertical=True), (30, 30)),
        (AffineTransform(rotation_degrees=90), (10, 10)),  # counter-clockwise: right goes up
        (AffineTransform(rotation_degrees=-90), (30, 30)),
        (AffineTransform(zoom=1.5), (5, 35)),
        (AffineTransform(shift_x=5 / 41), (10, 35)),
        (AffineTransform(shift_y=5 / 41), (15, 30)),
        (AffineTransform(shear_degrees=np.rad2deg(np.arctan(0.2))), (10, 28)),
    ],
)
def test_each_transform_goes_where_it_says(
    dotted: np.ndarray, transform: AffineTransform, expected: tuple[int, int]
) -> None:
    assert find_spot(apply_affine(dotted, transform)) == pytest.approx(expected, abs=0.3)


def test_nothing_black_comes_in_from_outside() -> None:
    grey = np.full((40, 50, 3), 90, dtype=np.uint8)
    transform = AffineTransform(rotation_degrees=30, zoom=0.7, shift_x=0.2, shear_degrees=9)
    np.testing.assert_array_equal(apply_affine(grey, transform), grey)


def test_brightness_scales_and_stays_in_range(dotted: np.ndarray) -> None:
    assert apply_affine(dotted, AffineTransform(brightness=0.5)).max() == 100
    assert apply_affine(dotted, AffineTransform(brightness=2.0)).max() == 255
    assert dotted.max() == 200, "the image handed in must not change"


def test_transforms_of_a_plan_come_in_its_order() -> None:
    transforms = [AffineTransform(zoom=1.2), AffineTransform(flip_horizontal=True, shift_x=0.1)]
    plan = pd.DataFrame(transforms)[["zoom", *reversed(AffineTransform._fields[2:])]]
    plan["rotation_degrees"] = 0.0
    assert list(list_transforms(plan)) == transforms
