"""A small synthetic breast-ultrasound set in BUSI's layout, for the demo and the tests.

    python -m busi_pipeline.synthetic data/01_raw/demo --seed 7

The pictures have the statistics of ultrasound, not its content: nothing learned from them says
anything about patients.
"""

import argparse
import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

logger = logging.getLogger(__name__)

DEMO_COUNTS = {"benign": 120, "malignant": 75, "normal": 60}
_DYNAMIC_RANGE_DB = 55.0


class Scan(NamedTuple):
    """`image`: uint8 (height, width) grey; `mask`: bool (height, width), the lesion."""

    image: np.ndarray
    mask: np.ndarray


def simulate_scan(label: str, height: int, width: int, rng: np.random.Generator) -> Scan:
    """Simulate one B-mode image.

    benign: a smooth dark ellipse, wider than tall, brighter below; malignant: a dark, irregular,
    spiky shape, taller than wide, with a shadow below; normal: layered tissue alone.

    Speckle is the envelope of complex Gaussian scatterers blurred by the point-spread function,
    whose amplitude is Rayleigh-distributed where tissue is uniform (Burckhardt 1978, "Speckle in
    ultrasound B-mode scans", IEEE Trans. Sonics Ultrason. 25:1), shown log-compressed.
    """
    echo_db = _simulate_layers(height, width, rng)
    mask = np.zeros((height, width), dtype=bool)
    if label != "normal":
        mask, shadow = _simulate_lesion(label, height, width, rng)
        echo_db = np.where(mask, rng.uniform(-34, -28), echo_db)
        echo_db = echo_db + shadow * (5 if label == "benign" else -20)
    scatterers = rng.normal(size=(2, height, width))
    # The point-spread function is wider across the beam than along it.
    blurred = [gaussian_filter(part, sigma=(0.8, 1.6)) for part in scatterers]
    envelope = np.hypot(*blurred)
    envelope /= np.sqrt((envelope**2).mean())
    decibels = 20 * np.log10(envelope + 1e-4) + echo_db
    grey = np.clip((decibels + _DYNAMIC_RANGE_DB) / _DYNAMIC_RANGE_DB, 0, 1) * 255
    return Scan(grey.astype(np.uint8), mask)


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


def _simulate_lesion(
    label: str, height: int, width: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return the lesion's mask and, in 0-1, the region below it that it brightens or shades."""
    benign = label == "benign"
    size = rng.uniform(0.13, 0.19) * min(height, width)
    flat = rng.uniform(1.35, 1.8)
    radius_x, radius_y = (size * flat, size) if benign else (size, size * flat)
    centre_x = width * rng.uniform(0.35, 0.65)
    centre_y = height * rng.uniform(0.42, 0.52)
    y, x = np.mgrid[:height, :width]
    angle = np.arctan2((y - centre_y) / radius_y, (x - centre_x) / radius_x)
    distance = np.hypot((x - centre_x) / radius_x, (y - centre_y) / radius_y)
    edge = np.ones_like(angle)
    for waves in (2, 3) if benign else (3, 5, 7, 11):
        height_of_wave = rng.uniform(0.0, 0.04) if benign else rng.uniform(0.08, 0.16)
        edge += height_of_wave * np.sin(waves * angle + rng.uniform(0, 2 * np.pi))
    mask = distance < edge
    below = (y > centre_y) & (np.abs(x - centre_x) < radius_x * 0.9) & ~mask
    return mask, gaussian_filter(below.astype(float), 3)


def write_synthetic_set(folder: Path, counts: dict[str, int], seed: int) -> None:
    """Write `<class>/<class> (n).png` with `<class> (n)_mask.png` beside it, as BUSI has it.

    The same counts and seed give the same files. Masks of `normal` are empty.
    """
    for number, (label, count) in enumerate(counts.items()):
        (folder / label).mkdir(parents=True, exist_ok=True)
        for n in range(1, count + 1):
            rng = np.random.default_rng([seed, number, n])
            height, width = int(rng.integers(150, 190)), int(rng.integers(190, 260))
            scan = simulate_scan(label, height, width, rng)
            Image.fromarray(scan.image).save(folder / label / f"{label} ({n}).png")
            Image.fromarray(scan.mask).save(folder / label / f"{label} ({n})_mask.png")


def main() -> None:
    """Write the demo's images; `--help` lists the arguments."""
    parser = argparse.ArgumentParser(description="Write synthetic ultrasound in BUSI's layout.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    write_synthetic_set(arguments.folder, DEMO_COUNTS, arguments.seed)
    total = sum(DEMO_COUNTS.values())
    print(f"{total} synthetic images (not patients) in {arguments.folder}")


if __name__ == "__main__":
    main()
