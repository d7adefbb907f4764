"""From the bytes of a file to uint8 RGB, right side up."""

import io
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

UInt8Array = npt.NDArray[np.uint8]

# A channel spread that JPEG's colour noise does not reach, on more than a speck of the image.
_COLOUR_SPREAD = 16
_COLOUR_SHARE = 1e-4


class UnusableImageError(ValueError):
    """The file cannot be used as an image; the message is the reason for the quarantine table."""


class DecodedImage(NamedTuple):
    """`pixels`: uint8 (height, width, 3), RGB, 0-255; `mode`: Pillow's name of the file's mode."""

    pixels: UInt8Array
    mode: str


def decode_image(content: bytes) -> DecodedImage:
    """Decode a PNG, JPEG, BMP or TIFF file of any mode into upright 8-bit RGB.

    Transparency is laid over black, 16-bit grey is scaled by the depth its brightest pixel needs
    (8, 10, 12, 14 or 16 bits), an EXIF rotation is undone. Raises UnusableImageError with the
    reason where that is not possible.
    """
    if not content:
        raise UnusableImageError("zero bytes")
    try:
        with Image.open(io.BytesIO(content)) as image:
            frames = getattr(image, "n_frames", 1)
            if frames > 1:
                raise UnusableImageError(f"{frames} frames in one file: export one image a file")
            mode = image.mode
            image.load()
            upright = ImageOps.exif_transpose(image)
            return DecodedImage(np.ascontiguousarray(_to_rgb(upright)), mode)
    except UnidentifiedImageError:
        raise UnusableImageError("unreadable: no image format was recognised") from None
    except Image.DecompressionBombError:
        raise UnusableImageError("unreadable: more pixels than Pillow opens") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        if isinstance(error, UnusableImageError):
            raise
        raise UnusableImageError(f"unreadable or truncated: {error}") from None


def _to_rgb(image: Image.Image) -> UInt8Array:
    if image.mode.startswith("I") or image.mode == "F":
        return np.repeat(_scale_to_8_bit(np.asarray(image))[..., None], 3, axis=2)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    return np.asarray(image.convert("RGB"))


def _scale_to_8_bit(values: np.ndarray) -> UInt8Array:
    """Map grey of unknown depth to uint8: a 12-bit image in a 16-bit file must not come out black.

    Raises UnusableImageError for negative or endless values, which no ultrasound export has.
    """
    lowest, highest = float(values.min()), float(values.max())
    if not (np.isfinite(lowest) and np.isfinite(highest)) or lowest < 0 or highest >= 2**16:
        raise UnusableImageError(
            f"grey values from {lowest:g} to {highest:g}: at most 16 bits are expected"
        )
    depth = next(bits for bits in (8, 10, 12, 14, 16) if highest < 2**bits)
    return np.round(values.astype(np.float64) * (255 / (2**depth - 1))).astype(np.uint8)


def has_colour(pixels: UInt8Array) -> bool:
    """Return whether uint8 (h, w, 3) RGB carries colour: a marker, a Doppler box."""
    red, green, blue = (pixels[..., channel] for channel in range(3))
    # Pairwise: a reduction over the last axis takes twenty times as long.
    spread = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    return bool((spread > _COLOUR_SPREAD).mean() > _COLOUR_SHARE)
