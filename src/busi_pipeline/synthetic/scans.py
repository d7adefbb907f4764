"""Simulate B-mode images: layered tissue, speckle, a lesion.

Speckle is the envelope of complex Gaussian scatterers blurred by the point-spread function, whose
amplitude is Rayleigh-distributed where tissue is uniform (Burckhardt 1978, "Speckle in ultrasound
B-mode scans", IEEE Trans. Sonics Ultrason. 25:1), shown log-compressed.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter

Range = tuple[float, float]


class Scan(NamedTuple):
    """`image`: uint8 (height, width) grey; `mask`: bool (height, width), the lesion."""

    image: np.ndarray
    mask: np.ndarray


class Scanner(NamedTuple):
    """How a scanner shows tissue; pairs are the ends of what is drawn for an image.

    Attributes:
        height, width: of the picture, in pixels.
        gain: added to every echo, in dB.
        dynamic_range: shown between black and white, in dB.
        spot: standard deviations of the point-spread function along and across the beam, in pixels.
        attenuation: lost from the top to the bottom, in dB, beside what tissue loses.
        border: black, left and right of the picture, in pixels.
    """

    height: Range
    width: Range
    gain: Range
    dynamic_range: Range
    spot: tuple[float, float]
    attenuation: float = 0.0
    border: int = 0


# The point-spread function is wider across the beam than along it.
_PLAIN = Scanner((0, 0), (0, 0), (0, 0), (55, 55), (0.8, 1.6))


class _Outline(NamedTuple):
    """An ellipse with a wavy edge, in pixels; `waves`: how many, height as a share, phase."""

    centre_x: float
    centre_y: float
    radius_x: float
    radius_y: float
    waves: Sequence[tuple[int, float, float]] = ()


def simulate_scan(label: str, height: int, width: int, rng: np.random.Generator) -> Scan:
    """Simulate one image in which each class looks as it is said to.

    benign: a smooth dark ellipse, wider than tall, brighter below; malignant: a dark, irregular,
    spiky shape, taller than wide, with a shadow below; normal: layered tissue alone.
    """
    echo = _simulate_layers(height, width, rng)
    mask = np.zeros((height, width), dtype=bool)
    if label != "normal":
        benign = label == "benign"
        size = rng.uniform(0.13, 0.19) * min(height, width)
        flat = rng.uniform(1.35, 1.8)
        radius_x, radius_y = (size * flat, size) if benign else (size, size * flat)
        centre_x = width * rng.uniform(0.35, 0.65)
        centre_y = height * rng.uniform(0.42, 0.52)
        waves = []
        for count in (2, 3) if benign else (3, 5, 7, 11):
            high = rng.uniform(0.0, 0.04) if benign else rng.uniform(0.08, 0.16)
            waves.append((count, high, rng.uniform(0, 2 * np.pi)))
        outline = _Outline(centre_x, centre_y, radius_x, radius_y, waves)
        mask, below = _fill(outline, height, width)
        echo = np.where(mask, rng.uniform(-34, -28), echo)
        echo = echo + below * (5 if benign else -20)
    return Scan(_show(echo, 0.0, _PLAIN.dynamic_range[0], _PLAIN.spot, rng), mask)


def simulate_case(suspicion: float | None, scanner: Scanner, rng: np.random.Generator) -> Scan:
    """Simulate one image of a lesion that looks more or less malignant.

    Args:
        suspicion: 0 looks benign, 1 malignant, and what lies between is ambiguous. Width against
            height, edge, echo and shadow follow it, each with a scatter of its own. None: no
            lesion.
        scanner: how it is shown.
        rng: draws everything else: size, place, contrast, fat lobules and shadows of ribs, which
            are no lesions.
    """
    height, width = (round(rng.uniform(*ends)) for ends in (scanner.height, scanner.width))
    echo = _simulate_layers(height, width, rng)
    for _ in range(rng.integers(0, 4)):
        echo = _add_lobule(echo, rng)
    if rng.random() < 0.35:
        echo = _add_rib_shadow(echo, rng)
    mask = np.zeros((height, width), dtype=bool)
    if suspicion is not None:
        look = np.clip(suspicion + rng.normal(0, 0.15, size=4), 0, 1)
        size = rng.uniform(0.09, 0.2) * min(height, width)
        flat = np.exp(_blend(look[0], np.log(1.35), np.log(0.75)))
        waves = [
            (count, _blend(look[1], 0.02, 0.12) * rng.uniform(0.5, 1.5), rng.uniform(0, 2 * np.pi))
            for count in (2, 3, 5, 7, 11)
        ]
        outline = _Outline(
            width * rng.uniform(0.3, 0.7),
            height * rng.uniform(0.38, 0.55),
            size * flat,
            size / flat,
            waves,
        )
        mask, below = _fill(outline, height, width)
        inside = _blend(look[2], -27, -33) + rng.uniform(-3, 3)
        # The edge of a lesion is never quite sharp.
        share = gaussian_filter(mask.astype(float), rng.uniform(0.5, 2.0))
        echo = echo * (1 - share) + inside * share + below * _blend(look[3], 6, -16)
    echo = echo - scanner.attenuation * np.linspace(0, 1, height)[:, None]
    gain, dynamic_range = rng.uniform(*scanner.gain), rng.uniform(*scanner.dynamic_range)
    image = _show(echo, gain, dynamic_range, scanner.spot, rng)
    border = ((0, 0), (scanner.border, scanner.border))
    return Scan(np.pad(image, border), np.pad(mask, border))


def _blend(share: float, benign: float, malignant: float) -> float:
    return benign + share * (malignant - benign)


def _simulate_layers(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Return mean echo in dB below full scale: skin, fat, gland, muscle, each boundary wavy."""
    depth = np.linspace(0, 1, height)[:, None]
    across = np.linspace(0, 2 * np.pi, width)[None, :]
    echo = np.zeros((height, width))
    borders = [0.0, 0.05, rng.uniform(0.2, 0.3), rng.uniform(0.62, 0.75)]
    for top, level in zip(borders, (-8, -22, -13, -20), strict=True):
        wave = 0.02 * np.sin(across * rng.uniform(0.5, 1.5) + rng.uniform(0, 2 * np.pi))
        echo = np.where(depth >= (top + wave if top else 0), level + rng.normal(0, 1.5), echo)
    texture = gaussian_filter(rng.normal(size=(height, width)), sigma=(3, 9))
    return gaussian_filter(echo, 1) + 3 * texture / texture.std() - 6 * depth


def _add_lobule(echo: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return `echo` with a flat, dark fat lobule."""
    height, width = echo.shape
    radius_y = height * rng.uniform(0.03, 0.09)
    outline = _Outline(
        width * rng.uniform(0.1, 0.9),
        height * rng.uniform(0.2, 0.8),
        radius_y * rng.uniform(1.5, 3.5),
        radius_y,
    )
    share = gaussian_filter(_fill(outline, height, width)[0].astype(float), 2)
    return echo - share * rng.uniform(4, 11)


def _add_rib_shadow(echo: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return `echo` with a dark band from somewhere deep down to the bottom."""
    height, width = echo.shape
    top, left = rng.uniform(0.3, 0.65) * height, rng.uniform(0.05, 0.85) * width
    y, x = np.mgrid[:height, :width]
    band = (y > top) & (x > left) & (x < left + rng.uniform(0.08, 0.2) * width)
    return echo - gaussian_filter(band.astype(float), 4) * rng.uniform(6, 14)


def _fill(outline: _Outline, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return what an outline holds, and in 0-1 what lies below it."""
    y, x = np.mgrid[:height, :width]
    right = (x - outline.centre_x) / outline.radius_x
    down = (y - outline.centre_y) / outline.radius_y
    angle, edge = np.arctan2(down, right), np.ones((height, width))
    for count, high, phase in outline.waves:
        edge += high * np.sin(count * angle + phase)
    mask = np.hypot(right, down) < edge
    below = (down > 0) & (np.abs(right) < 0.9) & ~mask
    return mask, gaussian_filter(below.astype(float), 3)


def _show(
    echo: np.ndarray,
    gain: float,
    dynamic_range: float,
    spot: tuple[float, float],
    rng: np.random.Generator,
) -> np.ndarray:
    """Return uint8 grey values of `echo` in dB, with speckle."""
    scatterers = rng.normal(size=(2, *echo.shape))
    envelope = np.hypot(*(gaussian_filter(part, sigma=spot) for part in scatterers))
    envelope /= np.sqrt((envelope**2).mean())
    decibels = 20 * np.log10(envelope + 1e-4) + echo + gain
    grey = np.clip((decibels + dynamic_range) / dynamic_range, 0, 1) * 255
    return grey.astype(np.uint8)
