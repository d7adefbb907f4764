"""Burned-in annotations: drawn marks are found where they are, tissue is no mark."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from busi_pipeline.caching.cache import Cache
from busi_pipeline.imaging.annotation_search import find_burned_in_annotations
from busi_pipeline.imaging.burned_in_annotations import find_cross, find_text
from tests.factories import as_raw_images, encode_image


def draw_speckle(seed: int, brightest: int = 170) -> np.ndarray:
    """Return tissue: smoothed noise, uint8 (200, 260)."""
    noise = np.random.default_rng(seed).gamma(2.0, 1.0, (200, 260))
    smooth = cv2.GaussianBlur(noise, (0, 0), 2.5)
    return (smooth / smooth.max() * brightest).astype(np.uint8)


def draw_cross(image: np.ndarray, length: int = 15, width: int = 2) -> np.ndarray:
    """Draw a calliper's cross at (120, 90), across and down, into a copy."""
    marked, reach, half = image.copy(), length // 2, width // 2
    marked[90 - reach : 91 + reach, 120 - half : 120 - half + width] = 225
    marked[90 - half : 90 - half + width, 120 - reach : 121 + reach] = 225
    return marked


def write_text(image: np.ndarray, text: str, at: tuple[int, int], size: float = 0.5) -> np.ndarray:
    """Write at the left end of a baseline, into a copy."""
    return cv2.putText(image.copy(), text, at, cv2.FONT_HERSHEY_SIMPLEX, size, 225, 2)


@pytest.mark.parametrize("length", [11, 13, 15, 17])
@pytest.mark.parametrize("width", [2, 3])
def test_cross_is_found_where_it_is(length: int, width: int) -> None:
    found = find_cross(draw_cross(draw_speckle(length), length, width))
    assert found is not None
    centre = (found.left + found.width / 2, found.top + found.height / 2)
    assert centre == pytest.approx((120, 90), abs=2)
    assert found.score > 0.72


@pytest.mark.parametrize("seed", range(8))
def test_tissue_is_no_annotation(seed: int) -> None:
    assert find_cross(draw_speckle(seed, 230)) is None
    assert find_text(draw_speckle(seed, 230)) is None


def test_letters_are_no_cross() -> None:
    assert find_cross(write_text(draw_speckle(1), "LT TIT", (80, 100), 0.6)) is None


def test_faint_cross_is_not_found() -> None:
    faint = (draw_cross(draw_speckle(15, 60)) * 0.6).astype(np.uint8)
    assert find_cross(faint) is None


def test_image_smaller_than_a_cross_has_none() -> None:
    assert find_cross(np.zeros((12, 40), dtype=np.uint8)) is None


def test_text_is_found_where_it_is() -> None:
    found = find_text(write_text(draw_speckle(3), "RT AX", (90, 150)))
    assert found is not None
    assert found.score >= 3
    assert 85 <= found.left <= 95
    assert found.top + found.height == pytest.approx(150, abs=3)


def test_name_of_the_scanner_does_not_count() -> None:
    assert find_text(write_text(draw_speckle(4), "LOG", (4, 20))) is None


def test_one_letter_is_no_text() -> None:
    assert find_text(write_text(draw_speckle(3), "I", (90, 150))) is None


def test_annotations_of_a_set_are_listed(tmp_path: Path) -> None:
    plain = draw_speckle(5)
    drawn = (plain, draw_cross(draw_speckle(6)), write_text(draw_speckle(7), "RT 3", (90, 150)))
    files = {f"benign/{n}.png": encode_image(Image.fromarray(x)) for n, x in enumerate(drawn)}
    manifest = pd.DataFrame(
        {
            "image_id": [path.removesuffix(".png") for path in files],
            "path": list(files),
            "label": "benign",
            "byte_sha256": ["a", "b", "c"],
            "colour_overlay": [True, False, False],
        }
    )
    opened = []

    def note(read: Callable[[], bytes]) -> Callable[[], bytes]:
        return lambda: (opened.append(1), read())[1]

    raw = {path: note(read) for path, read in as_raw_images(files).items()}
    table = find_burned_in_annotations(raw, manifest, Cache(tmp_path))
    assert table["callipers"].tolist() == [False, True, False]
    assert table["text"].tolist() == [False, False, True]
    assert table["colour"].tolist() == [True, False, False]
    assert np.isfinite(table.loc[1, ["callipers_left", "callipers_score"]].to_numpy(float)).all()
    pd.testing.assert_frame_equal(find_burned_in_annotations(raw, manifest, Cache(tmp_path)), table)
    assert len(opened) == 3, "searched once a data set"
