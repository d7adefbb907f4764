"""What a model looked at lies where it looked, in colours of its sign."""

import numpy as np

from busi_pipeline.imaging.crops import Window
from busi_pipeline.imaging.overlays import Attribution, draw_attribution, draw_box

GREY = np.full((40, 60, 3), 100, dtype=np.uint8)


def make_attribution(*windows: Window, seed: int = 0) -> Attribution:
    maps = np.random.default_rng(seed).normal(size=(len(windows), 4, 5)).astype(np.float32)
    return Attribution(maps, windows)


def test_the_sum_over_the_image_is_the_mean_over_the_maps() -> None:
    inside = make_attribution(Window(0, 0, 60, 40), Window(10, 4, 30, 36))
    assert np.isclose(inside.place(40, 60).sum(), inside.maps.mean(), atol=1e-5)
    half = Attribution(np.ones((1, 4, 5), np.float32), (Window(-30, 0, 30, 40),))
    assert np.isclose(half.place(40, 60).sum(), 0.5), "half of it lies beyond the image"


def test_a_place_lies_in_its_part_of_the_window() -> None:
    maps = np.zeros((1, 4, 4), np.float32)
    maps[0, 1, 2] = 1.0
    placed = Attribution(maps, (Window(20, 8, 40, 28),)).place(40, 60)
    # Five pixels a place: rows 13 to 17 and columns 30 to 34, the middle the strongest.
    assert np.unravel_index(placed.argmax(), placed.shape) == (15, 32)
    assert not placed[:, :20].any()
    assert not placed[:, 40:].any()
    assert placed[8:28, 20:40].sum() == placed.sum()
    np.testing.assert_allclose(placed[13:18, 30:35], placed[13:18, 30:35][::-1, ::-1], atol=1e-7)


def test_for_is_red_and_against_is_blue_and_nothing_is_grey() -> None:
    maps = np.array([[[1.0, 0.0, -1.0]]], np.float32)
    drawn = draw_attribution(GREY, Attribution(maps, (Window(0, 0, 60, 40),))).astype(int)
    red, _, blue = drawn[20, 3]
    assert (red > 140, blue < 100) == (True, True)
    red, _, blue = drawn[20, 56]
    assert (red < 100, blue > 140) == (True, True)
    assert abs(drawn[20, 30] - 100).max() < 8
    none = Attribution(0 * maps, (Window(0, 0, 60, 40),))
    np.testing.assert_array_equal(draw_attribution(GREY, none), GREY)


def test_a_box_leaves_the_image_as_it_is() -> None:
    before = GREY.copy()
    drawn = draw_box(GREY, Window(10.4, 5, 30, 20), (230, 120, 0))
    assert tuple(drawn[5, 20]) == tuple(drawn[12, 10]) == (230, 120, 0)
    assert tuple(drawn[12, 20]) == (100, 100, 100)
    np.testing.assert_array_equal(GREY, before)
    whole = draw_box(GREY, Window(0, 0, 60, 40), (230, 120, 0))
    for row, column in ((0, 30), (39, 30), (20, 0), (20, 59)):
        assert tuple(whole[row, column]) == (230, 120, 0)


def test_a_small_window_is_drawn_as_strongly_as_a_large_one() -> None:
    maps = np.array([[[1.0, 0.5], [0.2, -1.0]]], np.float32)
    large = np.full((400, 600, 3), 100, dtype=np.uint8)
    drawn = draw_attribution(large, Attribution(maps, (Window(300, 200, 330, 230),)))
    changed = np.ptp(drawn[200:230, 300:330].astype(int), axis=-1)
    assert changed.max() > 80
    assert (changed > 110).mean() < 0.3, "the weak places have less of the colour"
    assert np.ptp(drawn.astype(int), axis=-1)[:190].max() == 0
