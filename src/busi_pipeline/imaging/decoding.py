"""From the bytes of a file to uint8 RGB, right side up."""

import hashlib
import io
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image, ImageFile, ImageOps
from PIL.BmpImagePlugin import BmpImageFile
from PIL.JpegImagePlugin import jpeg_factory
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

UInt8Array = npt.NDArray[np.uint8]

MAX_PIXELS = 25_000_000
# Markers of the segments of JPEG and JPEG-LS that hold the size.
JPEG_FRAME_HEADERS = frozenset((*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), 0xF7))
DAMAGED_JPEG = "damaged JPEG data: parts of the picture may be wrong"

# A channel spread that JPEG's colour noise does not reach, on more than a speck of the image.
_COLOUR_SPREAD = 16
_COLOUR_SHARE = 1e-4

# As large as JPEG allows. Pillow fills memory for some files with longer rows.
_LONGEST_SIDE = 65_535
# A progressive JPEG goes over all its pixels once a scan, and a scan can be 40 bytes.
_SCANNED_PIXELS = 500_000_000
_MOST_SEGMENTS = 10_000
# Conversions need several copies: they are made a strip of so many pixels at a time.
_STRIP = 2_000_000

_Open = Callable[[io.BytesIO], ImageFile.ImageFile]
# Opened by these classes and not by `Image.open`, which warns of sizes on its own terms.
_OPENERS: dict[bytes, _Open] = {
    b"\x89PNG\r\n\x1a\n": PngImageFile,
    b"\xff\xd8\xff": jpeg_factory,
    b"BM": BmpImageFile,
    b"II*\0": TiffImageFile,
    b"MM\0*": TiffImageFile,
    b"II+\0": TiffImageFile,
    b"MM\0+": TiffImageFile,
}
_ALLOWED = "PNG, JPEG, BMP and TIFF are read"
_OTHER_KINDS = {
    b"GIF8": "a GIF image",
    rb"RIFF....WEBP": "a WebP image",
    rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51": "a JPEG 2000 image",
    rb"\0\0\0\x0cJXL |\xff\x0a": "a JPEG XL image",
    rb"....ftyp(avif|avis)": "an AVIF image",
    rb"....ftyp(heic|heix|hevc|mif1|msf1)": "a HEIC image",
    rb"....ftyp": "a video",
    rb"%!PS|\xc5\xd0\xd3\xc6": "a PostScript file (EPS)",
    b"%PDF": "a PDF file",
    b"8BPS": "a Photoshop file",
    rb"P[1-7]\s": "a PNM image",
    rb".{128}DICM": "a DICOM file: its name must end in .dcm",
    rb"PK\x03\x04": "a ZIP archive",
    rb"\x1f\x8b": "a gzip archive",
    b"version https://git-lfs": "a pointer of Git LFS: fetch the file with `git lfs pull`",
    rb"\s*(<!DOCTYPE|<html|<\?xml|<svg)": "an HTML, XML or SVG file",
    rb"\0{16}": "a file that begins with zero bytes, as after a failed copy",
}

_JPEG_MARKER = re.compile(rb"\xff([\xc0-\xcf\xd9-\xfe])")
_JPEG_END, _JPEG_SCAN = 0xD9, 0xDA
# How libjpeg begins to say that data, not a remark of the header, is wrong.
_JPEG_DAMAGE = re.compile("Corrupt JPEG data: (?!bad ICC)|Premature end|Inconsistent progression")


class UnusableImageError(ValueError):
    """The file cannot be used as an image; the message is the reason for the quarantine table."""


class DecodedImage(NamedTuple):
    """`pixels`: uint8 (height, width, 3), RGB, 0-255; `mode`: Pillow's name of the file's mode;
    `note`: a remark for the manifest, "" where there is none."""

    pixels: UInt8Array
    mode: str
    note: str = ""


def decode_image(content: bytes, max_pixels: int = MAX_PIXELS) -> DecodedImage:
    """Decode a PNG, JPEG, BMP or TIFF file of any mode into upright 8-bit RGB.

    Transparency is laid over black, an EXIF rotation is undone. Grey of 16 bits is scaled by the
    depth its brightest pixel needs (8, 10, 12, 14 or 16 bits), floating-point grey of at most 1
    by 255. Other formats are refused, whatever the file is called.

    Args:
        content: of the file.
        max_pixels: height times width of the largest image that is decoded, as its header says.

    Raises UnusableImageError with the reason where that is not possible.
    """
    try:
        return _decode(content, max_pixels)
    except UnusableImageError:
        raise
    except Exception as error:  # decoders raise whatever comes to them of damaged bytes
        raise UnusableImageError(f"unreadable or truncated: {describe_error(error)}") from None


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Raise UnusableImageError where a picture of so many pixels is not to be decoded."""
    if width < 1 or height < 1:
        raise UnusableImageError(f"no pixels: {width} x {height}")
    if width * height > max_pixels:
        raise UnusableImageError(
            f"too large: {width} x {height} pixels; at most {max_pixels:,} in all are decoded "
            "(ingestion.max_pixels)"
        )
    if max(width, height) > _LONGEST_SIDE:
        raise UnusableImageError(
            f"too long: {width} x {height} pixels; a side may have {_LONGEST_SIDE:,}"
        )


def describe_error(error: Exception) -> str:
    """Return what a decoder says, in one line of some length."""
    if isinstance(error, MemoryError):
        return "it needs more memory than there is"
    return " ".join(str(error).split())[:200] or type(error).__name__


def list_jpeg_segments(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (marker, payload) of the segments of a JPEG stream, up to its end."""
    position = 2
    while found := _JPEG_MARKER.search(content, position):
        marker, start = found[1][0], found.end()
        if marker == _JPEG_END:
            return
        length = int.from_bytes(content[start : start + 2], "big")
        yield marker, content[start + 2 : start + length]
        position = start + max(2, length)


def check_jpeg(content: bytes) -> None:
    """Raise UnusableImageError where a decoder would be busy for long: with segments, or scans."""
    scans = pixels = 0
    for number, (marker, payload) in enumerate(list_jpeg_segments(content)):
        if number == _MOST_SEGMENTS:
            raise UnusableImageError(f"more than {_MOST_SEGMENTS} segments in one JPEG")
        scans += marker == _JPEG_SCAN
        if marker in JPEG_FRAME_HEADERS:
            height, width = payload[1:3], payload[3:5]
            pixels = max(pixels, int.from_bytes(height, "big") * int.from_bytes(width, "big"))
    if scans * pixels > _SCANNED_PIXELS:
        raise UnusableImageError(f"{scans} scans over {pixels:,} pixels in one JPEG")


def find_jpeg_damage(content: bytes) -> str:
    """Return DAMAGED_JPEG where libjpeg meets data that cannot be right, else "".

    JPEG has no checksums: damage of few bits can look like another picture.
    """
    try:  # not scaled down, which would be faster: of lossless JPEG that writes beyond the array
        simplejpeg.decode_jpeg(content, "GRAY")
    except ValueError as error:
        return DAMAGED_JPEG if _JPEG_DAMAGE.match(str(error)) else ""
    return ""


def _decode(content: bytes, max_pixels: int) -> DecodedImage:
    opener = next((o for start, o in _OPENERS.items() if content.startswith(start)), None)
    if opener is None:
        raise UnusableImageError(_describe_kind(content))
    if opener is jpeg_factory:
        check_jpeg(content)
    with opener(io.BytesIO(content)) as image:
        check_size(*image.size, max_pixels)
        if getattr(image, "is_animated", False):
            raise UnusableImageError("several frames in one file: export one image a file")
        mode = image.mode
        note = find_jpeg_damage(content) if opener is jpeg_factory else ""
        ImageOps.exif_transpose(image, in_place=True)
        return DecodedImage(_to_rgb(image), mode, note)


def _describe_kind(content: bytes) -> str:
    if not content:
        return "zero bytes"
    for start, kind in _OTHER_KINDS.items():
        if re.match(start, content[:256], re.DOTALL):
            return f"this is {kind}; {_ALLOWED}"
    return f"unreadable: no image format was recognised; {_ALLOWED}"


def _to_rgb(image: Image.Image) -> UInt8Array:
    if image.mode.startswith("I") or image.mode == "F":
        return np.repeat(_scale_to_8_bit(np.asarray(image))[..., None], 3, axis=2)
    pixels = np.empty((image.height, image.width, 3), dtype=np.uint8)
    rows = max(1, _STRIP // image.width)
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        pixels[top : top + rows] = np.asarray(_lay_over_black(strip).convert("RGB"))
    return pixels


def _lay_over_black(image: Image.Image) -> Image.Image:
    if image.mode not in ("RGBA", "LA", "PA") and "transparency" not in image.info:
        return image
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)


def _scale_to_8_bit(values: np.ndarray) -> UInt8Array:
    """Map grey of unknown depth to uint8: a 12-bit image in a 16-bit file must not come out black.

    Raises UnusableImageError for negative or endless values, which no ultrasound export has.
    """
    lowest, highest = float(values.min()), float(values.max())
    if not (np.isfinite(lowest) and np.isfinite(highest)) or lowest < 0 or highest >= 2**16:
        raise UnusableImageError(
            f"grey values from {lowest:g} to {highest:g}: at most 16 bits are expected"
        )
    if values.dtype.kind == "f" and highest <= 1:
        scale = 255.0
    else:
        depth = next(bits for bits in (8, 10, 12, 14, 16) if highest < 2**bits)
        scale = 255 / (2**depth - 1)
    scaled = np.empty(values.shape, dtype=np.uint8)
    rows = max(1, _STRIP // values.shape[1])
    for top in range(0, len(values), rows):
        strip = values[top : top + rows].astype(np.float64)
        scaled[top : top + rows] = np.round(strip * scale).astype(np.uint8)
    return scaled


def hash_pixels(pixels: UInt8Array) -> str:
    """Return the SHA-256 of the pixels and shape of uint8 (h, w, 3), as manifests name it."""
    return hashlib.sha256(f"{pixels.shape}".encode() + pixels.tobytes()).hexdigest()


def has_colour(pixels: UInt8Array) -> bool:
    """Return whether uint8 (h, w, 3) RGB carries colour: a marker, a Doppler box."""
    return measure_colour(pixels) > _COLOUR_SHARE


def measure_colour(pixels: UInt8Array) -> float:
    """Return the share of the pixels of uint8 (h, w, 3) RGB that are not grey."""
    red, green, blue = (pixels[..., channel] for channel in range(3))
    # Pairwise: a reduction over the last axis takes twenty times as long.
    spread = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    return float((spread > _COLOUR_SPREAD).mean())
