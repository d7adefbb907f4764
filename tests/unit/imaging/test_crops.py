"""Windows: cut where they say, at the true shape, black beyond the image, and back again."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from busi_pipeline.imaging.crops import (
    Window,
    cut_window,
    find_content,
    find_inside,
    find_lesion_box,
    list_lesion_window,
    list_whole_window,
    place_in_image,
    place_in_window,
    show_whole,
    stretch_intensity,
)

EDGES = st.floats(-200, 200)


def draw_windows() -> st.SearchStrategy[Window]:
    return st.builds(
        lambda left, top, width, height: Window(left, top, left + width, top + height),
        EDGES,
        EDGES,
        st.floats(1, 300),
        st.floats(1, 300),
    )


def test_a_window_of_pixels_is_a_slice() -> None:
    pixels = np.arange(60 * 80, dtype=np.uint8).reshape(60, 80)
    np.testing.assert_array_equal(
        cut_window(pixels, Window(10, 20, 42, 52), 32), pixels[20:52, 10:42]
    )


def test_a_window_beyond_the_image_is_black_there() -> None:
    pixels = np.full((40, 40, 3), 200, dtype=np.uint8)
    window = Window(-20, -10, 60, 70)
    cut = cut_window(pixels, window, 80).copy()
    rows, columns = find_inside((40, 40), window, 80)
    assert (rows, columns) == (slice(10, 50), slice(20, 60))
    assert (cut[rows, columns] == 200).all()
    cut[rows, columns] = 0
    assert not cut.any()


def test_a_square_window_keeps_what_is_taller_than_wide() -> None:
    mask = np.zeros((300, 500), dtype=np.uint8)
    mask[100:180, 200:240] = 255
    box = find_lesion_box(mask)
    assert box == Window(200, 100, 240, 180)
    window = list_lesion_window(box, 0.35, keep_aspect=True)
    assert window.width == window.height == pytest.approx(1.7 * 80)
    assert window.centre == box.centre
    seen = find_lesion_box(cut_window(mask, window, 224) > 127)
    assert seen is not None
    assert seen.height / seen.width == pytest.approx(2, abs=0.05)
    stretched = list_lesion_window(box, 0.35, keep_aspect=False)
    assert (stretched.width, stretched.height) == (pytest.approx(68), pytest.approx(136))


def test_the_whole_image_is_in_the_middle_of_its_square() -> None:
    assert list_whole_window(300, 500, keep_aspect=False) == Window(0, 0, 500, 300)
    assert list_whole_window(300, 500, keep_aspect=True) == Window(0, -100, 500, 400)


@given(box=draw_windows(), window=draw_windows(), size=st.integers(1, 500))
def test_a_box_goes_into_a_window_and_comes_back(box: Window, window: Window, size: int) -> None:
    there = place_in_window(box, window, size)
    np.testing.assert_allclose(place_in_image(there, window, size), box, atol=1e-6)
    assert place_in_window(window, window, size) == pytest.approx((0, 0, size, size))


def test_overlap_is_measured_over_the_union() -> None:
    box = Window(0, 0, 10, 10)
    assert box.measure_iou(box) == 1
    assert box.measure_iou(Window(5, 0, 15, 10)) == pytest.approx(50 / 150)
    assert box.measure_iou(Window(20, 20, 30, 30)) == 0


def test_nothing_drawn_has_no_box() -> None:
    assert find_lesion_box(np.zeros((5, 5))) is None


def test_intensity_is_stretched_inside_and_black_outside() -> None:
    pixels = np.zeros((40, 40), dtype=np.uint8)
    pixels[10:30, 10:30] = np.linspace(80, 120, 400).reshape(20, 20)
    inside = slice(10, 30), slice(10, 30)
    stretched = stretch_intensity(pixels, inside)
    assert stretched[inside].min() == 0
    assert stretched[inside].max() == 255
    assert abs(float(np.median(stretched[inside])) - 127.5) < 3
    stretched[inside] = 0
    assert not stretched.any()
    flat = np.full((4, 4), 9, dtype=np.uint8)
    np.testing.assert_array_equal(stretch_intensity(flat, (slice(None), slice(None))), flat)


@pytest.mark.parametrize("gain", [0.4, 1.0, 1.9])
def test_gain_of_the_scanner_is_taken_out(gain: float) -> None:
    scene = np.random.default_rng(0).uniform(10, 120, (64, 64, 1)).repeat(3, 2)
    shown, _ = show_whole((gain * scene).astype(np.uint8), 32)
    reference, _ = show_whole(scene.astype(np.uint8), 32)
    assert np.abs(shown.astype(int) - reference.astype(int)).mean() < 6


def test_dark_borders_are_not_content() -> None:
    grey = np.zeros((60, 80), dtype=np.uint8)
    grey[5:50, 12:70] = 90
    assert find_content(grey) == Window(12, 5, 70, 50)
    assert find_content(np.zeros((6, 8), dtype=np.uint8)) == Window(0, 0, 8, 6)
