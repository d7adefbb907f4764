"""What no model was made for is refused before any network sees it."""

import numpy as np
import pytest

from busi_pipeline.imaging.decoding import UnusableImageError
from busi_pipeline.imaging.quality import check_pixels, measure_quality
from tests.package_factories import draw_scan

SCAN = draw_scan()
HOLES = SCAN.astype(np.float32)
HOLES[3, 3] = np.nan
TWO_VALUED = np.where(np.arange(60)[:, None] < 30, 0, 255) * np.ones((60, 80))

REFUSED = {
    "floats from 0 to 1": (SCAN / 255, "from 0 to 1: multiply by 255"),
    "floats": (SCAN.astype(np.float64), "got float64"),
    "half floats": ((SCAN / 255).astype(np.float16), "float16 from 0 to 1"),
    "not a number": (HOLES, "not finite"),
    "endless": (np.full((60, 80), np.inf), "not finite"),
    "sixteen bits": (SCAN.astype(np.uint16) * 16, "got uint16"),
    "signed": (SCAN.astype(np.int64), "got int64"),
    "bool": (SCAN > 90, "got bool"),
    "objects": (SCAN.astype(object), "got object"),
    "complex": (SCAN.astype(complex), "got complex128"),
    "a list": (SCAN.tolist(), "got list"),
    "nothing": (None, "got NoneType"),
    "text": ("scan.png", "got str"),
    "transparency": (np.concatenate([SCAN, SCAN[..., :1]], axis=2), r"got \(60, 80, 4\)"),
    "two channels": (SCAN[..., :2], r"got \(60, 80, 2\)"),
    "channels first": (SCAN.transpose(2, 0, 1), r"got \(3, 60, 80\)"),
    "a batch": (SCAN[None], r"got \(1, 60, 80, 3\)"),
    "one row": (SCAN[0, :, 0], r"got \(80,\)"),
    "no pixels": (SCAN[:0], "too small: 80 x 0"),
    "one pixel": (SCAN[:1, :1], "too small: 1 x 1"),
    "a strip": (SCAN[:31], "too small: 80 x 31"),
    "black": (np.zeros((60, 80, 3), np.uint8), "no picture"),
    "white": (np.full((60, 80), 255, np.uint8), "no picture"),
    "nearly flat": (np.uint8(100) + (SCAN[..., 0] > 90).astype(np.uint8) * 5, "within 5 of 255"),
    "a mask": (TWO_VALUED.astype(np.uint8), "two grey values"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_model_was_made_for_is_refused(name: str) -> None:
    pixels, reason = REFUSED[name]
    with pytest.raises(UnusableImageError, match=reason) as caught:
        check_pixels(pixels)
    assert "\n" not in str(caught.value)


def test_grey_and_colour_arrays_are_the_same_image() -> None:
    expected = check_pixels(SCAN)
    assert expected.pixels.shape == (60, 80, 3)
    for grey in (SCAN[..., 0], SCAN[..., :1], SCAN[::-1][::-1]):
        checked = check_pixels(grey)
        np.testing.assert_array_equal(checked.pixels, SCAN)
        assert checked.quality == expected.quality
        assert checked.pixels.flags["C_CONTIGUOUS"]


def test_quality_tells_blur_noise_and_colour_apart() -> None:
    plain = measure_quality(SCAN)
    assert plain.shorter_side == 60
    assert plain.colour == 0
    blurred = np.repeat(np.repeat(SCAN[::8, ::8], 8, axis=0), 8, axis=1)[:60]
    noise = np.random.default_rng(0).integers(0, 256, SCAN.shape[:2], dtype=np.uint8)
    noisy = measure_quality(np.repeat(noise[..., None], 3, axis=2))
    assert measure_quality(blurred).detail < plain.detail < noisy.detail
    doppler = SCAN.copy()
    doppler[:30, :40] = (200, 20, 20)
    assert measure_quality(doppler).colour == pytest.approx(0.25)
    assert measure_quality(SCAN // 2).contrast == pytest.approx(plain.contrast / 2, abs=1)
