"""Other scanners: the same lesion in other pictures, the same for the same seed."""

import numpy as np
import pytest

from busi_pipeline.imaging.scanner_variation import show_as_scanned_elsewhere, vary_scanner
from busi_pipeline.synthetic import simulate_scan

SIZE = 96


@pytest.fixture(scope="module")
def scan() -> tuple[np.ndarray, np.ndarray]:
    made = simulate_scan("malignant", 200, 260, np.random.default_rng(3))
    return np.asarray(made.image, dtype=np.uint8), (np.asarray(made.mask) > 0).astype(np.uint8)


def show(scan: tuple[np.ndarray, np.ndarray], seed: int) -> tuple[np.ndarray, np.ndarray]:
    return show_as_scanned_elsewhere(*scan, SIZE, np.random.default_rng(seed))


def test_the_lesion_stays_in_the_picture(scan: tuple[np.ndarray, np.ndarray]) -> None:
    for seed in range(40):
        shown, lesion = show(scan, seed)
        assert shown.shape == lesion.shape == (SIZE, SIZE)
        assert shown.dtype == np.uint8
        rows, columns = np.nonzero(lesion)
        assert len(rows) > 20
        assert 0.05 * SIZE < rows.mean() < 0.95 * SIZE
        assert 0.05 * SIZE < columns.mean() < 0.95 * SIZE


def test_the_lesion_stays_darker_than_its_surroundings(
    scan: tuple[np.ndarray, np.ndarray],
) -> None:
    darker = 0
    for seed in range(20):
        shown, lesion = show(scan, seed)
        inside = lesion > 0
        darker += shown[inside].mean() < shown[~inside & (shown > 0)].mean()
    assert darker >= 16


def test_pictures_differ_by_seed_alone(scan: tuple[np.ndarray, np.ndarray]) -> None:
    np.testing.assert_array_equal(show(scan, 1)[0], show(scan, 1)[0])
    first, second = show(scan, 1)[0].astype(int), show(scan, 2)[0].astype(int)
    assert np.abs(first - second).mean() > 5


def test_an_image_without_a_lesion_has_none(scan: tuple[np.ndarray, np.ndarray]) -> None:
    shown, lesion = show((scan[0], np.zeros_like(scan[1])), 5)
    assert shown.any()
    assert not lesion.any()


def test_the_scanner_varies_and_nothing_moves(scan: tuple[np.ndarray, np.ndarray]) -> None:
    grey = np.repeat(scan[0][..., None], 3, axis=2)
    grey[:, :20] = 0
    varied = vary_scanner(grey, 5)
    assert varied.shape == grey.shape
    assert varied.dtype == np.uint8
    assert (varied == varied[..., :1]).all(), "grey stays grey"
    assert not np.array_equal(varied, grey)
    assert (varied[:, :10] == 0).all(), "beyond the picture it stays black"
    np.testing.assert_array_equal(varied, vary_scanner(grey, 5))
    assert not np.array_equal(varied, vary_scanner(grey, 6))
    blurred = [np.asarray(x[40:-40:8, 40:-40:8, 0], float).ravel() for x in (grey, varied)]
    assert np.corrcoef(*blurred)[0, 1] > 0.5, "it shows the same"


def test_a_black_picture_stays_black() -> None:
    black = np.zeros((32, 32, 3), np.uint8)
    assert not vary_scanner(black, 1).any()
