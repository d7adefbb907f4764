"""What a model looked at, drawn on the image: the box, and what speaks for or against."""

import io
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from busi_pipeline.imaging.crops import Window
from busi_pipeline.imaging.decoding import UInt8Array

# As in other plots: readers blue, the localizer orange. RGB.
_BY_READER, _BY_LOCALIZER = (0, 114, 178), (230, 120, 0)
# Red speaks for a positive class, blue against; both are seen with any colour vision.
_FOR, _AGAINST = np.array([[215, 25, 28], [44, 123, 182]], np.float32)
# Rows that are coloured at once, so that a large image takes no more memory than a small one.
_ROWS = 256
# The strongest attribution covers this much of the image; the share of places stronger than it.
_OPAQUE, _STRONGEST = 0.65, 0.01


@dataclass(frozen=True, eq=False)
class Attribution:
    """Which places of an image speak for a positive class, above 0, and which against it.

    Attributes:
        maps: float32 (windows, h, w), see models.attribution.add_attribution.
        windows: of the image, in its pixels, that the maps are of.
    """

    maps: np.ndarray
    windows: tuple[Window, ...]

    def __eq__(self, other: object) -> bool:
        """Return whether the other one is the same, number by number."""
        return (
            isinstance(other, Attribution)
            and self.windows == other.windows
            and np.array_equal(self.maps, other.maps)
        )

    def __hash__(self) -> int:
        """Return what is the same of what is equal."""
        return hash(self.windows)

    def place(self, height: int, width: int) -> np.ndarray:
        """Return float32 (height, width), of an image of this size.

        The sum over the image, and over what the windows show beyond it, is what the image adds to
        the log odds of the positive classes.
        """
        placed = np.zeros((height, width), np.float32)
        for values, window in zip(self.maps, self.windows, strict=True):
            rows, columns = values.shape
            down = _interpolate(window.top, window.bottom, rows, height)
            across = _interpolate(window.left, window.right, columns, width)
            share = window.width * window.height * len(self.windows)
            placed += down @ (values / share) @ across.T
        return placed


def _interpolate(start: float, stop: float, places: int, length: int) -> np.ndarray:
    """Return float32 (length, places): how much of each place is at each pixel; 0 outside.

    Args:
        start, stop: between which the places lie, in pixels.
        places: their number.
        length: number of pixels.
    """
    at = (np.arange(length) + 0.5 - start) / (stop - start) * places - 0.5
    inside = (at >= -0.5) & (at < places - 0.5)
    distance = np.abs(np.clip(at, 0, places - 1)[:, None] - np.arange(places))
    return (np.maximum(0, 1 - distance) * inside[:, None]).astype(np.float32)


def draw_finding(
    pixels: UInt8Array,
    box: Window | None,
    by_reader: bool = False,
    attribution: Attribution | None = None,
) -> UInt8Array:
    """Return uint8 (h, w, 3): an image with the box that was looked at.

    Args:
        pixels: uint8 (h, w, 3), RGB.
        box: of the lesion; None for none.
        by_reader: whether a reader drew it, or the localizer found it.
        attribution: to draw under the box.
    """
    if attribution is not None:
        pixels = draw_attribution(pixels, attribution)
    return (
        pixels if box is None else draw_box(pixels, box, _BY_READER if by_reader else _BY_LOCALIZER)
    )


def draw_box(pixels: UInt8Array, box: Window, colour: tuple[int, int, int]) -> UInt8Array:
    """Return uint8 (h, w, 3) with a box."""
    drawn = np.ascontiguousarray(pixels).copy()
    height, width = pixels.shape[:2]
    # The last pixels of the box, which ends after them.
    left, top = max(0, round(box.left)), max(0, round(box.top))
    right, bottom = min(width, round(box.right)) - 1, min(height, round(box.bottom)) - 1
    thickness = max(1, round(min(pixels.shape[:2]) / 200))
    cv2.rectangle(drawn, (left, top), (right, bottom), colour, thickness)
    return drawn


def draw_attribution(pixels: UInt8Array, attribution: Attribution) -> UInt8Array:
    """Return uint8 (h, w, 3) with what speaks for a positive class in red, against it in blue.

    The stronger, the more of the colour; the strongest of an image has the same in every picture.
    """
    height, width = pixels.shape[:2]
    placed = _place_by_strength(attribution, height, width)
    drawn = np.empty_like(pixels)
    for start in range(0, height, _ROWS):
        strip = slice(start, start + _ROWS)
        strength = np.abs(placed[strip])[..., None] * np.float32(_OPAQUE)
        colour = np.where(placed[strip][..., None] > 0, _FOR, _AGAINST)
        drawn[strip] = np.round((1 - strength) * pixels[strip] + strength * colour)
    return drawn


def make_attribution_layer(attribution: Attribution, height: int, width: int) -> UInt8Array:
    """Return uint8 (h, w, 4), RGBA: what `draw_attribution` lays over an image of this size."""
    placed = _place_by_strength(attribution, height, width)
    layer = np.empty((height, width, 4), np.uint8)
    layer[..., :3] = np.where(placed[..., None] > 0, _FOR, _AGAINST)
    layer[..., 3] = np.round(255 * _OPAQUE * np.abs(placed))
    return layer


def encode_png(pixels: UInt8Array) -> bytes:
    """Return a PNG of uint8 (h, w, 3) or (h, w, 4), written fast."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def _place_by_strength(attribution: Attribution, height: int, width: int) -> np.ndarray:
    """Return float32 (h, w), -1 to 1: the strongest places of the image that was seen have 1."""
    placed = attribution.place(height, width)
    shown = np.zeros((height, width), bool)
    for window in attribution.windows:
        rows = slice(max(0, round(window.top)), max(0, round(window.bottom)))
        columns = slice(max(0, round(window.left)), max(0, round(window.right)))
        shown[rows, columns] = True
    strongest = np.quantile(np.abs(placed[shown]), 1 - _STRONGEST) if shown.any() else 0
    return np.zeros_like(placed) if strongest == 0 else np.clip(placed / strongest, -1, 1)
