"""What part of an image a network sees, and how it is brought to the network's size.

A window is cut out of the image as it was decoded, so that a small lesion keeps its detail, and
resized once. A square window keeps the shape of what it shows: "taller than wide", a sign of
cancer, is lost where an image is stretched. Where a window reaches beyond the image, it is black.
"""

import math
from typing import NamedTuple

import numpy as np
from PIL import Image

from busi_pipeline.imaging.decoding import UInt8Array

# Grey values above this, in more than this share of a row or column, are part of a picture.
_DARK, _FILLED = 12, 0.02
# Grey values below and above which one in a hundred pixels lies become black and white.
_PERCENTILES = (1.0, 99.0)


class Window(NamedTuple):
    """A rectangle in pixels of an image; it may reach beyond the image.

    Attributes:
        left, top: of its upper left corner; pixel (0, 0) begins at 0.
        right, bottom: where it ends.
    """

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        """In pixels."""
        return self.right - self.left

    @property
    def height(self) -> float:
        """In pixels."""
        return self.bottom - self.top

    @property
    def centre(self) -> tuple[float, float]:
        """x and y."""
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2

    def measure_iou(self, other: "Window") -> float:
        """Return intersection over union of both, 0 to 1."""
        across = min(self.right, other.right) - max(self.left, other.left)
        down = min(self.bottom, other.bottom) - max(self.top, other.top)
        common = max(0.0, across) * max(0.0, down)
        return common / (self.width * self.height + other.width * other.height - common)


def find_lesion_box(mask: np.ndarray) -> Window | None:
    """Return the bounding box of what is set in (h, w); None where nothing is."""
    return _enclose(np.asarray(mask.any(axis=1)), np.asarray(mask.any(axis=0)))


def _enclose(is_row: np.ndarray, is_column: np.ndarray) -> Window | None:
    """Return the smallest window with these rows (h,) and columns (w,); None without any."""
    rows, columns = np.flatnonzero(is_row), np.flatnonzero(is_column)
    if not (len(rows) and len(columns)):
        return None
    return Window(float(columns[0]), float(rows[0]), columns[-1] + 1.0, rows[-1] + 1.0)


def find_content(grey: UInt8Array) -> Window:
    """Return the window of uint8 (h, w) without the dark rows and columns at its edges.

    All of it, where all is dark.
    """
    bright = grey > _DARK
    content = _enclose(bright.mean(axis=1) > _FILLED, bright.mean(axis=0) > _FILLED)
    return content or list_whole_window(grey.shape[0], grey.shape[1], keep_aspect=False)


def list_whole_window(height: int, width: int, keep_aspect: bool) -> Window:
    """Return the window of a whole image: the image, or the smallest square around it."""
    if not keep_aspect:
        return Window(0.0, 0.0, float(width), float(height))
    return _make_square((width / 2, height / 2), max(height, width))


def list_lesion_window(box: Window, margin: float, keep_aspect: bool) -> Window:
    """Return the window around a lesion.

    Args:
        box: of the lesion.
        margin: on each side, as a share of the box's longer side, or of each side where the aspect
            ratio is not kept.
        keep_aspect: whether the window is square.
    """
    if keep_aspect:
        return _make_square(box.centre, (1 + 2 * margin) * max(box.width, box.height))
    beside, above = margin * box.width, margin * box.height
    return Window(box.left - beside, box.top - above, box.right + beside, box.bottom + above)


def _make_square(centre: tuple[float, float], side: float) -> Window:
    x, y = centre
    return Window(x - side / 2, y - side / 2, x + side / 2, y + side / 2)


def cut_window(pixels: UInt8Array, window: Window, size: int) -> UInt8Array:
    """Return a window of uint8 (h, w) or (h, w, 3), resized to `size` x `size`, antialiased."""
    height, width = pixels.shape[:2]
    before = max(0, math.ceil(-window.top)), max(0, math.ceil(-window.left))
    after = max(0, math.ceil(window.bottom) - height), max(0, math.ceil(window.right) - width)
    beyond = [*zip(before, after, strict=True), (0, 0)][: pixels.ndim]
    down, right = before
    box = (
        window.left + right,
        window.top + down,
        window.right + right,
        window.bottom + down,
    )
    padded = Image.fromarray(np.pad(pixels, beyond))
    return np.asarray(padded.resize((size, size), Image.Resampling.BILINEAR, box=box))


def find_inside(shape: tuple[int, int], window: Window, size: int) -> tuple[slice, slice]:
    """Return which rows and columns of a cut window show the image of this height and width."""
    height, width = shape
    return (
        _find_inside(window.top, window.bottom, height, size),
        _find_inside(window.left, window.right, width, size),
    )


def _find_inside(start: float, stop: float, length: int, size: int) -> slice:
    """Of the pixels whose centre is inside; at least one."""
    scale = size / (stop - start)
    first = min(size - 1, max(0, math.ceil(-start * scale - 0.5)))
    last = max(first + 1, min(size, math.floor((length - start) * scale + 0.5)))
    return slice(first, last)


def stretch_intensity(pixels: UInt8Array, inside: tuple[slice, slice]) -> UInt8Array:
    """Stretch the grey values of what is inside from 0 to 255; what is outside stays black.

    The darkest and the brightest hundredth are clipped. So gain and dynamic range of the scanner
    are taken out. A picture of one grey value stays as it is.
    """
    low, high = np.percentile(pixels[inside], _PERCENTILES)
    if high <= low:
        return pixels
    stretched = np.zeros_like(pixels)
    values = (pixels[inside].astype(np.float32) - low) * (255 / (high - low))
    stretched[inside] = np.round(np.clip(values, 0, 255)).astype(np.uint8)
    return stretched


def show_whole(pixels: np.ndarray, size: int) -> tuple[np.ndarray, Window]:
    """Return what a localizer sees of an image, and which window of it that is.

    Args:
        pixels: uint8 (h, w, 3).
        size: of the localizer's input.

    Returns uint8 (size, size), grey: the image at its true shape in a black square, its grey values
    stretched from 0 to 255.
    """
    grey = to_grey(pixels)
    window = list_whole_window(grey.shape[0], grey.shape[1], keep_aspect=True)
    inside = find_inside(grey.shape, window, size)
    return stretch_intensity(cut_window(grey, window, size), inside), window


def to_grey(pixels: np.ndarray) -> np.ndarray:
    """Return uint8 (h, w) of uint8 (h, w, 3) RGB, by ITU-R BT.601."""
    return np.round(pixels @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)


def place_in_window(box: Window, window: Window, size: int) -> Window:
    """Return a box of the image in pixels of the cut window."""
    across, down = size / window.width, size / window.height
    return Window(
        (box.left - window.left) * across,
        (box.top - window.top) * down,
        (box.right - window.left) * across,
        (box.bottom - window.top) * down,
    )


def place_in_image(box: Window, window: Window, size: int) -> Window:
    """Return a box in pixels of the cut window in those of the image."""
    across, down = window.width / size, window.height / size
    return Window(
        box.left * across + window.left,
        box.top * down + window.top,
        box.right * across + window.left,
        box.bottom * down + window.top,
    )
