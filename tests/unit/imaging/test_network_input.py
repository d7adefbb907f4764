"""What a network sees: plain as ever, or the lesion at its true shape, the mask with it."""

from typing import Any

import numpy as np
import pytest

from busi_pipeline.imaging.crops import Window, cut_window
from busi_pipeline.imaging.network_input import (
    InputDescription,
    find_windows,
    list_windows,
    show_input,
    show_lesion_mask,
    show_windows,
)
from busi_pipeline.imaging.resizing import resize_image
from tests.privacy_factories import INK, make_named_picture

BOX = Window(150, 60, 190, 140)
LESION: dict[str, Any] = {"view": "lesion", "keep_aspect": True, "margin": 0.35}


@pytest.fixture
def pixels() -> np.ndarray:
    """A bright field with a dark lesion in BOX, in colour."""
    made = np.full((200, 300, 3), (140, 150, 160), dtype=np.uint8)
    made[60:140, 150:190] = 30
    return made


def test_plain_input_is_the_stretched_image(pixels: np.ndarray) -> None:
    np.testing.assert_array_equal(
        show_input(pixels, None, InputDescription(), 64), resize_image(pixels, 64)
    )


def test_the_lesion_is_in_the_middle_at_its_true_shape(pixels: np.ndarray) -> None:
    seen = show_input(pixels, BOX, InputDescription(**LESION), 136)
    assert seen.shape == (136, 136, 3)
    mask = np.zeros((200, 300), dtype=np.uint8)
    mask[60:140, 150:190] = 1
    shown = show_lesion_mask(mask, pixels, BOX, InputDescription(**LESION), 136)
    rows, columns = np.nonzero(shown)
    assert (rows.min(), rows.max() + 1) == (28, 108)
    assert (columns.min(), columns.max() + 1) == (48, 88)
    assert (seen[40:100, 55:80] == 30).all()


def test_grey_and_stretched_intensity(pixels: np.ndarray) -> None:
    grey = show_input(pixels, BOX, InputDescription(**LESION, grey=True), 64)
    assert (grey[..., :1] == grey).all()
    stretched = show_input(
        pixels, BOX, InputDescription(**LESION, grey=True, stretch_intensity=True), 64
    )
    assert (stretched.min(), stretched.max()) == (0, 255)


def test_borders_are_cut_off_and_the_box_moves_along() -> None:
    framed = np.zeros((200, 300, 3), dtype=np.uint8)
    framed[40:, 100:] = 120
    framed[80:120, 200:240] = 30
    without = InputDescription(view="whole", remove_borders=True)
    assert (show_input(framed, None, without, 50) > 20).all()
    box = Window(200, 80, 240, 120)
    shape = InputDescription(**LESION | {"margin": 0.0})
    moved = InputDescription(**LESION | {"margin": 0.0}, remove_borders=True)
    np.testing.assert_array_equal(
        show_input(framed, box, shape, 40), show_input(framed, box, moved, 40)
    )


def test_text_is_covered_before_anything_is_cut_out() -> None:
    named = make_named_picture(128, 128)
    assert (show_input(named, None, InputDescription(keep_aspect=True), 128) == INK).any()
    covered = show_input(named, None, InputDescription(keep_aspect=True, remove_text=True), 128)
    assert (covered < INK).all()


def test_several_margins_are_as_many_windows(pixels: np.ndarray) -> None:
    several = InputDescription(**LESION | {"margin": [0.35, 1.0]})
    assert list_windows(several) == (0.35, 1.0)
    windows = show_windows(pixels, BOX, several, 64)
    assert windows.shape == (2, 64, 64, 3)
    for number, margin in enumerate((0.35, 1.0)):
        one = InputDescription(**LESION | {"margin": margin})
        np.testing.assert_array_equal(windows[number], show_input(pixels, BOX, one, 64))
        np.testing.assert_array_equal(show_input(pixels, BOX, several, 64, number), windows[number])
    assert (windows[0] == 30).sum() > (windows[1] == 30).sum(), "more of it is surroundings"


def test_one_window_has_no_dimension_of_its_own(pixels: np.ndarray) -> None:
    assert show_windows(pixels, BOX, InputDescription(**LESION), 64).shape == (64, 64, 3)
    whole = InputDescription(margin=[0.35, 1.0])
    assert show_windows(pixels, None, whole, 64).shape == (64, 64, 3), "of the whole there is one"


def test_both_is_one_window_more_with_the_whole_image(pixels: np.ndarray) -> None:
    both = InputDescription(**LESION | {"view": "both", "margin": [0.35, 1.0]})
    assert list_windows(both) == (0.35, 1.0, None)
    whole = InputDescription(view="whole", keep_aspect=True)
    np.testing.assert_array_equal(
        show_windows(pixels, BOX, both, 64)[2], show_input(pixels, None, whole, 64)
    )
    one = InputDescription(**LESION | {"view": "both"})
    assert show_windows(pixels, BOX, one, 64).shape == (2, 64, 64, 3)


def test_the_mask_is_shown_in_the_window_asked_for(pixels: np.ndarray) -> None:
    several = InputDescription(**LESION | {"margin": [0.35, 1.0]})
    mask = (pixels[..., 0] == 30).astype(np.uint8)
    near, far = (show_lesion_mask(mask, pixels, BOX, several, 64, n).sum() for n in (0, 1))
    assert near > 2 * far > 0


def test_a_lesion_view_needs_a_box(pixels: np.ndarray) -> None:
    with pytest.raises(ValueError, match="needs a box of the lesion"):
        show_input(pixels, None, InputDescription(**LESION), 64)


@pytest.mark.parametrize("view", ["lesion", "both", "whole"])
def test_windows_are_found_where_they_were_cut(view: str) -> None:
    """In pixels of the image, with its borders, which the network does not see."""
    pixels = np.zeros((260, 380, 3), dtype=np.uint8)
    scan = np.random.default_rng(0).integers(60, 255, (200, 300), dtype=np.uint8)
    pixels[40:240, 50:350] = scan[..., None]
    shape = InputDescription(
        view=view, keep_aspect=False, margin=[0.1, 0.3], grey=True, remove_borders=True
    )
    box = Window(190, 100, 240, 180)
    windows = find_windows(pixels, box, shape)
    shown = show_windows(pixels, box, shape, 64)
    shown = shown if len(windows) > 1 else shown[None]
    assert len(windows) == {"lesion": 2, "both": 3, "whole": 1}[view]
    for window, own in zip(windows, shown, strict=True):
        # At the edges, the border is mixed into the one and not into the other.
        middle = np.s_[6:-6, 6:-6]
        np.testing.assert_array_equal(cut_window(pixels, window, 64)[middle], own[middle])
    if view == "whole":
        assert windows == (Window(50, 40, 350, 240),)
