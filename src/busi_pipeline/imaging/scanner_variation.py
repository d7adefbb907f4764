"""Ultrasound images as other scanners might have made them.

A network that saw one hospital's scanner takes its gain, speckle and field of view for tissue. So
it is shown every image in many: field of view and aspect ratio, time gain, gamma, speckle of other
grain, blur along and across the beam, uneven gain. Ranges were set by eye against published images
of six scanners; none of them is fitted to a site.
"""

import cv2
import numpy as np

from busi_pipeline.imaging.affine import AS_SCANNED
from busi_pipeline.imaging.decoding import UInt8Array

_DEGREES = 10.0
_SHIFT = 0.12
# Black specks up to this size, in pixels, belong to the picture.
_GRAIN = 9
# Where the centre of a lesion may come to lie, as a share of the side.
_MIDDLE = 0.12, 0.88


def show_as_scanned_elsewhere(
    pixels: np.ndarray, mask: np.ndarray, size: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return uint8 (size, size) of an image as another scanner might show it, and its mask.

    Args:
        pixels: uint8 (h, w), grey.
        mask: uint8 (h, w), not 0 inside a lesion.
        size: of the square that both are brought to.
        rng: where the differences come from.
    """
    seen, lesion, inside = _move(pixels, mask, size, rng)
    return _vary_scanner(seen, inside, rng), lesion


def vary_scanner(pixels: UInt8Array, seed: int) -> UInt8Array:
    """Return a grey image as another scanner might show it, nothing moved: uint8 (h, w, 3).

    Args:
        pixels: uint8 (h, w, 3), the same in all channels. What is black throughout stays so.
        seed: decides about the scanner; AS_SCANNED leaves the image as it is.
    """
    if seed == AS_SCANNED:
        return pixels
    grey = np.ascontiguousarray(pixels[..., 0])
    inside = cv2.dilate((grey > 0).astype(np.uint8), np.ones((_GRAIN, _GRAIN), np.uint8)) > 0
    if not inside.any():
        return pixels
    return np.repeat(
        _vary_scanner(grey, inside, np.random.default_rng(seed))[..., None], pixels.shape[2], axis=2
    )


def _vary_scanner(pixels: UInt8Array, inside: np.ndarray, rng: np.random.Generator) -> UInt8Array:
    """Give uint8 (h, w) another speckle, blur, gamma and gain; black outside."""
    height, width = pixels.shape
    values = _add_speckle(pixels / 255, rng)
    if rng.random() < 0.5:
        values = cv2.GaussianBlur(
            values, (0, 0), sigmaX=rng.uniform(0.4, 2.2), sigmaY=rng.uniform(0.3, 1.2)
        )
    values = np.clip(values, 0, None) ** np.exp(rng.uniform(-0.6, 0.6))
    depth = np.linspace(-0.5, 0.5, height)[:, None]
    values = values * np.exp(rng.uniform(-1.2, 1.2) * depth)
    if rng.random() < 0.5:
        uneven = rng.normal(0, 0.25, (4, 4))
        enlarged = cv2.resize(uneven, (width, height), interpolation=cv2.INTER_CUBIC)
        values = values * np.exp(enlarged)
    return _set_range(values, inside, rng)


def _move(
    pixels: np.ndarray, mask: np.ndarray, size: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Flip, turn, enlarge and stretch; the lesion stays in the picture."""
    height, width = pixels.shape
    scale = size / max(height, width) * np.exp(rng.uniform(-0.3, 0.45))
    aspect = np.exp(rng.uniform(-0.3, 0.3))
    angle = np.deg2rad(rng.uniform(-_DEGREES, _DEGREES))
    flip = -1 if rng.random() < 0.5 else 1
    linear = scale * np.array(
        [
            [flip * aspect * np.cos(angle), -np.sin(angle)],
            [flip * np.sin(angle), np.cos(angle) / aspect],
        ]
    )
    centre = np.array([width, height]) / 2
    shift = size / 2 - linear @ centre + rng.uniform(-_SHIFT, _SHIFT, 2) * size
    rows, columns = np.nonzero(mask)
    lesion = np.array([columns.mean(), rows.mean()]) if len(rows) else centre
    placed = linear @ lesion + shift
    shift += np.clip(placed, _MIDDLE[0] * size, _MIDDLE[1] * size) - placed
    transform = np.column_stack([linear, shift])

    def apply(values: np.ndarray, interpolation: int) -> np.ndarray:
        return cv2.warpAffine(values, transform, (size, size), flags=interpolation)

    smooth = cv2.GaussianBlur(pixels, (0, 0), max(0.3, 0.4 / scale)) if scale < 1 else pixels
    inside = apply(np.full_like(pixels, 255), cv2.INTER_NEAREST) > 0
    return apply(smooth, cv2.INTER_LINEAR), apply(mask, cv2.INTER_NEAREST), inside


def _add_speckle(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if rng.random() >= 0.8:
        return values
    grain = rng.uniform(0.3, 1.3)
    noise = cv2.GaussianBlur(
        rng.gamma(3, 1 / 3, values.shape),
        (0, 0),
        sigmaX=grain * rng.uniform(1.0, 2.2),
        sigmaY=grain * rng.uniform(0.5, 1.0),
    )
    noise = (noise - noise.mean()) / noise.std()
    return values * np.clip(1 + rng.uniform(0.05, 0.45) * noise, 0, 3)


def _set_range(values: np.ndarray, inside: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Clip to a range of grey values as an operator might set it; black outside."""
    low, high = np.percentile(values[inside], [rng.uniform(0, 3), rng.uniform(96, 100)])
    values = np.clip((values - low) / max(1e-3, high - low), 0, 1) * rng.uniform(0.75, 1)
    if rng.random() < 0.4:
        values = values + rng.uniform(0, 0.15)
    return (np.clip(values, 0, 1) * inside * 255).astype(np.uint8)
