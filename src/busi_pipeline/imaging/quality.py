"""What an image must be for a model to look at it, and how it compares with others."""

from typing import Any, NamedTuple

import numpy as np

from busi_pipeline.imaging.crops import to_grey
from busi_pipeline.imaging.decoding import UInt8Array, UnusableImageError, measure_colour
from busi_pipeline.imaging.masks import is_two_valued

# Pixels of the shorter side: below it no lesion can be seen.
SMALLEST_SIDE = 32
# Grey values between the darkest and the brightest hundredth: below it there is no picture.
_FLATTEST = 8.0
_EDGES = (1.0, 99.0)


class Quality(NamedTuple):
    """How much there is to see in an image.

    Attributes:
        shorter_side: in pixels.
        contrast: grey values between the darkest and the brightest hundredth of the pixels.
        detail: standard deviation of the differences of neighbouring pixels, as a share of the
            contrast: low where an image is blurred or was enlarged, high where it is noise.
        colour: share of the pixels that are not grey.
        brightness: mean grey value.
    """

    shorter_side: float
    contrast: float
    detail: float
    colour: float
    brightness: float


class CheckedImage(NamedTuple):
    """An image that a model may look at.

    Attributes:
        pixels: uint8 (h, w, 3), RGB.
        quality: how much there is to see.
    """

    pixels: UInt8Array
    quality: Quality


def check_pixels(pixels: Any) -> CheckedImage:
    """Return an image that a model may look at; grey of (h, w) or (h, w, 1) is repeated.

    Args:
        pixels: uint8 of these shapes, 0 to 255, RGB.

    Raises UnusableImageError, one line, for everything that no model was made for: other types and
    shapes, images below SMALLEST_SIDE, images of hardly more than one or two grey values.
    """
    if not isinstance(pixels, np.ndarray):
        raise UnusableImageError(
            f"an image must be an array of uint8, or the bytes or the path of a file; got "
            f"{type(pixels).__name__}"
        )
    if pixels.dtype != np.uint8:
        raise UnusableImageError(_describe_type(pixels))
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[-1] not in (1, 3):
        raise UnusableImageError(
            f"an image must have the shape (height, width) or (height, width, 3), RGB; got "
            f"{pixels.shape}"
        )
    height, width, channels = pixels.shape
    if min(height, width) < SMALLEST_SIDE:
        raise UnusableImageError(
            f"too small: {width} x {height} pixels; each side must have {SMALLEST_SIDE}"
        )
    if channels == 1:
        pixels = np.repeat(pixels, 3, axis=2)
    quality = measure_quality(pixels)
    if quality.contrast < _FLATTEST:
        raise UnusableImageError(
            f"no picture: nearly all grey values lie within {quality.contrast:.0f} of 255"
        )
    if is_two_valued(pixels):
        raise UnusableImageError("a picture of two grey values: a mask, or a page of text")
    return CheckedImage(np.ascontiguousarray(pixels), quality)


def _describe_type(pixels: np.ndarray) -> str:
    """Say what is wrong with an array that is not uint8, and what to do."""
    allowed = "an image must be uint8, 0 to 255"
    if pixels.dtype.kind == "f":
        if not np.isfinite(pixels).all():
            return f"{allowed}; got {pixels.dtype} with values that are not finite"
        if pixels.size and pixels.min() >= 0 and pixels.max() <= 1:
            return f"{allowed}; got {pixels.dtype} from 0 to 1: multiply by 255 and round"
    return f"{allowed}; got {pixels.dtype}. Pass the bytes of the file: they are decoded right"


def measure_quality(pixels: UInt8Array) -> Quality:
    """Return how much there is to see in uint8 (h, w, 3), RGB."""
    grey = to_grey(pixels)
    low, high = np.percentile(grey, _EDGES)
    contrast = float(high - low)
    beside = np.diff(grey.astype(np.int16), axis=1)
    return Quality(
        float(min(grey.shape)),
        contrast,
        float(beside.std()) / max(1.0, contrast),
        measure_colour(pixels),
        float(grey.mean()),
    )
