"""From an image as it was decoded to what a network sees: training, prediction and page alike."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

import numpy as np

from busi_pipeline.imaging.crops import (
    Window,
    cut_window,
    find_content,
    find_inside,
    list_lesion_window,
    list_whole_window,
    stretch_intensity,
    to_grey,
)
from busi_pipeline.imaging.decoding import UInt8Array
from busi_pipeline.imaging.resizing import resize_image
from busi_pipeline.imaging.text_cover import cover_text

WHOLE: Final = "whole"
BOTH: Final = "both"
# Of a mask's grey values.
_HALF = 127


class InputShape(Protocol):
    """What a network sees of an image; `config.schemas.InputSettings` fits."""

    @property
    def view(self) -> Literal["whole", "lesion", "both"]: ...

    @property
    def keep_aspect(self) -> bool: ...

    @property
    def margin(self) -> float | Sequence[float]: ...

    @property
    def grey(self) -> bool: ...

    @property
    def stretch_intensity(self) -> bool: ...

    @property
    def remove_text(self) -> bool: ...

    @property
    def remove_borders(self) -> bool: ...


@dataclass(frozen=True)
class InputDescription:
    """The settings as a delivered model names them; see config.schemas.InputSettings.

    A model that names none sees the whole image, stretched.
    """

    view: Literal["whole", "lesion", "both"] = WHOLE
    keep_aspect: bool = False
    margin: float | Sequence[float] = 0.0
    grey: bool = False
    stretch_intensity: bool = False
    remove_text: bool = False
    remove_borders: bool = False


def is_plain(shape: InputShape) -> bool:
    """Return whether a network sees the whole image, stretched, and nothing else."""
    return shape.view == WHOLE and not (
        shape.keep_aspect
        or shape.grey
        or shape.stretch_intensity
        or shape.remove_text
        or shape.remove_borders
    )


def list_windows(shape: InputShape) -> tuple[float | None, ...]:
    """Return the windows that the network sees, by their margins; None is the whole image."""
    if shape.view == WHOLE:
        return (None,)
    margins = shape.margin if isinstance(shape.margin, Sequence) else (shape.margin,)
    return (*margins, None) if shape.view == BOTH else tuple(margins)


def show_windows(
    pixels: UInt8Array, box: Window | None, shape: InputShape, size: int
) -> UInt8Array:
    """Return what a model takes: uint8 (size, size, 3), or (windows, size, size, 3) of several.

    See `show_input`.
    """
    count = len(list_windows(shape))
    shown = [show_input(pixels, box, shape, size, window) for window in range(count)]
    return shown[0] if count == 1 else np.stack(shown)


def show_input(
    pixels: UInt8Array, box: Window | None, shape: InputShape, size: int, window: int = 0
) -> UInt8Array:
    """Return what the network sees: uint8 (size, size, 3).

    Args:
        pixels: uint8 (h, w, 3), RGB, as decoded.
        box: of the lesion, in pixels of the image; not used where the view is the whole image.
        shape: the settings.
        size: height and width of the network's input.
        window: which of `list_windows`.
    """
    if is_plain(shape):
        return resize_image(pixels, size)
    if shape.remove_text:
        pixels = cover_text(pixels, framed=False)
    if shape.grey:
        pixels = np.repeat(to_grey(pixels)[..., None], 3, axis=2)
    content = _find_content(pixels, shape)
    shown, part = _cut(pixels, content), _choose_window(content, box, shape, window)
    cut = cut_window(shown, part, size)
    if not shape.stretch_intensity:
        return cut
    return stretch_intensity(cut, find_inside(shown.shape[:2], part, size))


def show_lesion_mask(
    mask: np.ndarray,
    pixels: UInt8Array,
    box: Window | None,
    shape: InputShape,
    size: int,
    window: int = 0,
) -> np.ndarray:
    """Return a mask uint8 (h, w) of 0 and 1 as `show_input` shows its image: (size, size)."""
    content = _find_content_of_raw(pixels, shape)
    part = _choose_window(content, box, shape, window)
    shown = cut_window(255 * _cut(mask, content), part, size)
    return (shown > _HALF).astype(np.uint8)


def find_windows(pixels: UInt8Array, box: Window | None, shape: InputShape) -> tuple[Window, ...]:
    """Return which windows of an image `show_windows` shows, in pixels of the image.

    They may reach beyond it.
    """
    content = _find_content_of_raw(pixels, shape)
    x, y = content.left, content.top
    parts = (_choose_window(content, box, shape, i) for i in range(len(list_windows(shape))))
    return tuple(Window(p.left + x, p.top + y, p.right + x, p.bottom + y) for p in parts)


def _find_content_of_raw(pixels: UInt8Array, shape: InputShape) -> Window:
    """Return the content of an image that may have text on its borders."""
    if shape.remove_text and shape.remove_borders:
        pixels = cover_text(pixels, framed=False)
    return _find_content(pixels, shape)


def _find_content(pixels: UInt8Array, shape: InputShape) -> Window:
    height, width = pixels.shape[:2]
    if shape.remove_borders:
        return find_content(to_grey(pixels))
    return list_whole_window(height, width, keep_aspect=False)


def _cut(values: np.ndarray, content: Window) -> np.ndarray:
    return values[int(content.top) : int(content.bottom), int(content.left) : int(content.right)]


def _choose_window(content: Window, box: Window | None, shape: InputShape, window: int) -> Window:
    """Return what is shown, in pixels of the content."""
    margin = list_windows(shape)[window]
    if margin is None:
        return list_whole_window(int(content.height), int(content.width), shape.keep_aspect)
    if box is None:
        raise ValueError(f"input.view {shape.view} needs a box of the lesion")
    x, y = content.left, content.top
    moved = Window(box.left - x, box.top - y, box.right - x, box.bottom - y)
    return list_lesion_window(moved, margin, shape.keep_aspect)
