"""Decoding: every format and mode becomes the same upright RGB, or a reason."""

import numpy as np
import pytest
from PIL import Image

from busi_pipeline.imaging.decoding import UnusableImageError, decode_image, has_colour
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
        (b"not an image at all", "no image format"),
        (encode_image(Image.new("L", (64, 64), 9))[:60], "truncated"),
    ],
)
def test_unusable_files_say_why(content: bytes, reason: str) -> None:
    with pytest.raises(UnusableImageError, match=reason):
        decode_image(content)


def test_an_image_of_too_many_pixels_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    content = encode_image(Image.new("L", (64, 64), 9))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(UnusableImageError, match="more pixels than Pillow opens"):
        decode_image(content)


def test_several_frames_are_refused(grey: np.ndarray) -> None:
    frame = Image.fromarray(grey)
    content = encode_image(frame, "TIFF", save_all=True, append_images=[frame])
    with pytest.raises(UnusableImageError, match="2 frames"):
        decode_image(content)


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
