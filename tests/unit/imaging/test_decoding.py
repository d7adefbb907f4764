"""Decoding: every format and mode becomes the same upright RGB, or a reason."""

import io
import struct
import warnings
import zlib

import imagecodecs
import numpy as np
import pytest
from PIL import EpsImagePlugin, Image, ImageFile, ImageOps

from busi_pipeline.imaging import decoding
from busi_pipeline.imaging.decoding import (
    DAMAGED_JPEG,
    UnusableImageError,
    decode_image,
    has_colour,
)
from busi_pipeline.imaging.resizing import resize_image
from tests.factories import encode_image


@pytest.fixture
def grey() -> np.ndarray:
    return np.tile(np.arange(0, 240, 4, dtype=np.uint8), (40, 1))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
@pytest.mark.parametrize("mode", ["L", "RGB", "P"])
def test_lossless_formats_and_modes_give_the_same_pixels(
    grey: np.ndarray, kind: str, mode: str
) -> None:
    decoded = decode_image(encode_image(Image.fromarray(grey).convert(mode), kind))
    assert decoded.pixels.dtype == np.uint8
    np.testing.assert_array_equal(decoded.pixels, np.repeat(grey[..., None], 3, axis=2))


def test_jpeg_is_close(grey: np.ndarray) -> None:
    pixels = decode_image(encode_image(Image.fromarray(grey), "JPEG", quality=95)).pixels
    assert np.abs(pixels[..., 0].astype(int) - grey).max() < 12


def test_channels_are_in_rgb_order() -> None:
    red = Image.new("RGB", (40, 40), (200, 10, 30))
    assert tuple(decode_image(encode_image(red)).pixels[0, 0]) == (200, 10, 30)


def test_transparency_is_laid_over_black() -> None:
    image = Image.new("RGBA", (40, 40), (255, 255, 255, 0))
    assert decode_image(encode_image(image)).pixels.max() == 0


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_deep_grey_is_scaled_by_its_depth(bits: int) -> None:
    values = np.linspace(0, 2**bits - 1, 1600).astype(np.uint16).reshape(40, 40)
    pixels = decode_image(encode_image(Image.fromarray(values), "TIFF")).pixels
    assert pixels[0, 0, 0] == 0
    assert pixels[-1, -1, 0] == 255, f"{bits} bits came out at {pixels.max()}"
    assert pixels[20, 0, 0] == pytest.approx(values[20, 0] / values.max() * 255, abs=0.5)


@pytest.mark.parametrize("highest", [1.0, 0.4])
def test_float_grey_up_to_one_is_scaled_by_255(highest: float) -> None:
    values = np.linspace(0, highest, 1600, dtype=np.float32).reshape(40, 40)
    pixels = decode_image(encode_image(Image.fromarray(values), "TIFF")).pixels
    np.testing.assert_array_equal(pixels[..., 0], np.round(values.astype(float) * 255))


def test_float_grey_above_one_is_scaled_by_its_depth() -> None:
    values = np.linspace(0, 255, 1600, dtype=np.float32).reshape(40, 40)
    pixels = decode_image(encode_image(Image.fromarray(values), "TIFF")).pixels
    np.testing.assert_array_equal(pixels[..., 0], np.round(values))


@pytest.mark.parametrize("value", [-1.0, 70000.0, np.nan])
def test_grey_that_no_scanner_exports_is_refused(value: float) -> None:
    image = Image.fromarray(np.full((40, 40), value, dtype=np.float32))
    with pytest.raises(UnusableImageError, match="at most 16 bits"):
        decode_image(encode_image(image, "TIFF"))


def test_exif_rotation_is_undone(grey: np.ndarray) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to look upright
    content = encode_image(Image.fromarray(grey), "JPEG", exif=exif)
    assert decode_image(content).pixels.shape == (60, 40, 3)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "zero bytes"),
        (b"not an image at all", "no image format.*PNG, JPEG, BMP and TIFF are read"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", r"PostScript file \(EPS\); PNG"),
        (encode_image(Image.new("L", (9, 9)), "GIF"), "a GIF image"),
        (encode_image(Image.new("L", (9, 9)), "WEBP"), "a WebP image"),
        (encode_image(Image.new("L", (9, 9)), "JPEG2000"), "a JPEG 2000 image"),
        (encode_image(Image.new("L", (99, 99)), "AVIF"), "an AVIF image"),
        (bytes(128) + b"DICM" + bytes(99), r"a DICOM file.*\.dcm"),
        (bytes(999), "begins with zero bytes"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"<!DOCTYPE html><html>Log in</html>", "an HTML"),
        (encode_image(Image.new("L", (64, 64), 9))[:60], "truncated"),
    ],
)
def test_unusable_files_say_why(content: bytes, reason: str) -> None:
    with pytest.raises(UnusableImageError, match=reason):
        decode_image(content)


def test_a_postscript_file_starts_no_ghostscript(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_: pytest.fail("it was started"))
    with pytest.raises(UnusableImageError):
        decode_image(encode_image(Image.new("L", (9, 9)), "EPS"))


def write_png_header(width: int, height: int) -> bytes:
    """Return a PNG of any size with next to no data."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(bytes(9))),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


@pytest.mark.parametrize(
    ("size", "reason"),
    [
        ((5001, 5000), r"5001 x 5000 pixels; at most 25,000,000 .*ingestion\.max_pixels"),
        ((20_000, 20_000), "20000 x 20000 pixels"),
        ((65_536, 2), "a side may have 65,535"),
    ],
)
def test_too_many_pixels_are_refused_before_decoding(
    size: tuple[int, int], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("it was decoded"))
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with pytest.raises(UnusableImageError, match=reason):
            decode_image(write_png_header(*size))
    assert not warned, "Pillow has a limit of its own, and warns of it"


def test_a_jpeg_that_lies_about_its_size_is_refused_before_decoding(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """60,000 x 60,000 pixels in a file of a few hundred bytes took 3 GB."""
    content = bytearray(encode_jpeg("L", (40, 30)))
    frame = content.index(b"\xff\xc0")
    assert struct.unpack(">HH", content[frame + 5 : frame + 9]) == (30, 40)
    content[frame + 5 : frame + 9] = struct.pack(">HH", 60_000, 60_000)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("it was decoded"))
    with pytest.raises(UnusableImageError, match="3,600,000,000 pixels"):
        decode_image(bytes(content))


def test_a_tiff_without_its_width_is_refused(grey: np.ndarray) -> None:
    """Pillow raises a TypeError."""
    content = bytearray(encode_image(Image.fromarray(grey), "TIFF"))
    directory = struct.unpack("<I", content[4:8])[0]
    assert struct.unpack("<H", content[directory + 2 : directory + 4]) == (256,), "ImageWidth"
    content[directory + 2 : directory + 4] = struct.pack("<H", 65_000)
    with pytest.raises(UnusableImageError, match="Missing dimensions"):
        decode_image(bytes(content))


def test_the_limit_of_pixels_can_be_set() -> None:
    content = encode_image(Image.new("L", (64, 64), 9))
    assert decode_image(content, max_pixels=4096).pixels.shape == (64, 64, 3)
    with pytest.raises(UnusableImageError, match="at most 4,095"):
        decode_image(content, max_pixels=4095)


@pytest.mark.parametrize(
    "error",
    [
        TypeError("x"),
        struct.error("unpack requires 4 bytes"),
        IndexError(),
        KeyError(7),
        OverflowError(),
        MemoryError(),
        zlib.error("incorrect header"),
        RecursionError(),
        ZeroDivisionError("\n  two\n  lines "),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_a_decoder_raises_becomes_a_reason(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(ImageOps, "exif_transpose", fail)
    with pytest.raises(UnusableImageError, match=r"unreadable or truncated: \S") as caught:
        decode_image(encode_image(Image.new("L", (64, 64), 9)))
    assert "\n" not in str(caught.value)


def test_several_frames_are_refused(grey: np.ndarray) -> None:
    frame = Image.fromarray(grey)
    content = encode_image(frame, "TIFF", save_all=True, append_images=[frame])
    with pytest.raises(UnusableImageError, match="several frames"):
        decode_image(content)


def test_pixels_do_not_depend_on_strips(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [
        Image.fromarray(rng.integers(0, 256, (50, 40, 4), dtype=np.uint8)),
        Image.fromarray(rng.integers(0, 4096, (50, 40)).astype(np.uint16)),
    ]
    contents = [encode_image(image) for image in images]
    whole = [decode_image(content).pixels for content in contents]
    monkeypatch.setattr(decoding, "_STRIP", 300)
    for content, pixels in zip(contents, whole, strict=True):
        np.testing.assert_array_equal(decode_image(content).pixels, pixels)


# JPEG


def encode_jpeg(mode: str = "RGB", size: tuple[int, int] = (133, 101), **options: object) -> bytes:
    ramp = np.add.outer(np.arange(size[1]) * 3, np.arange(size[0]) * 7) % 256
    image = Image.fromarray(ramp.astype(np.uint8)).convert(mode)
    return encode_image(image, "JPEG", **options)


@pytest.mark.parametrize(
    "content",
    [
        encode_jpeg(),
        encode_jpeg("L"),
        encode_jpeg("L", (1, 1)),
        encode_jpeg("CMYK"),
        encode_jpeg(progressive=True),
        encode_jpeg(subsampling=1),
        encode_jpeg(size=(17, 9), subsampling=2),
        encode_jpeg(restart_marker_blocks=3),
        encode_jpeg(keep_rgb=True),
        encode_jpeg(exif=b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0"),
        encode_jpeg(comment=b"\xff\xda" * 500),
        encode_jpeg() + b"what a phone appends",
        encode_jpeg()[:2] + b"\xff\xe2\0\x10ICC_PROFILE\0\5\1" + encode_jpeg()[2:],  # no profile
        imagecodecs.jpeg8_encode(np.zeros((64, 96), np.uint8), lossless=True),
    ],
)
def test_an_undamaged_jpeg_has_no_note(content: bytes) -> None:
    assert decode_image(content).note == ""


@pytest.mark.parametrize("progressive", [False, True])
def test_a_damaged_jpeg_is_decoded_with_a_note(rng: np.random.Generator, progressive: bool) -> None:
    noise = Image.fromarray(rng.integers(0, 256, (90, 120, 3), dtype=np.uint8))
    content = encode_image(noise, "JPEG", progressive=progressive)
    middle = len(content) // 2
    damaged = content[:middle] + rng.bytes(200) + content[middle + 200 :]
    decoded = decode_image(damaged)
    assert decoded.note == DAMAGED_JPEG
    expected = np.asarray(Image.open(io.BytesIO(damaged)).convert("RGB"))
    np.testing.assert_array_equal(decoded.pixels, expected)


def test_a_jpeg_that_ends_early_inside_has_a_note() -> None:
    content = encode_jpeg(quality=95)
    assert decode_image(content[: len(content) // 2] + b"\xff\xd9").note == DAMAGED_JPEG


def test_a_jpeg_of_endless_scans_is_refused() -> None:
    """Each goes over all pixels: a file of a megabyte would take minutes."""
    content = encode_jpeg("L", (2000, 2000), progressive=True)
    last = content.rindex(b"\xff\xc4")
    with pytest.raises(UnusableImageError, match="scans over 4,000,000 pixels"):
        decode_image(content[:last] + 300 * content[last:-2] + b"\xff\xd9")


def test_a_jpeg_of_endless_segments_is_refused() -> None:
    content = encode_jpeg()
    with pytest.raises(UnusableImageError, match="more than 10000 segments"):
        decode_image(content[:2] + b"\xff\xfe\0\2" * 10_000 + content[2:])


def test_colour_differs_from_grey(grey: np.ndarray) -> None:
    rgb = np.repeat(grey[..., None], 3, axis=2)
    assert not has_colour(rgb)
    rgb[5:9, 5:9] = (250, 200, 0)
    assert has_colour(rgb)


def test_resizing_keeps_what_is_where() -> None:
    pixels = np.zeros((60, 120, 3), dtype=np.uint8)
    pixels[:30, :60, 0] = 255  # upper left quarter, red
    small = resize_image(pixels, 32)
    assert small.shape == (32, 32, 3)
    assert small.dtype == np.uint8
    assert tuple(small[4, 4]) == (255, 0, 0)
    assert small[20:, :].max() == 0
    assert small[:, 20:].max() == 0
