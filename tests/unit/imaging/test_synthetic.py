"""The demo's images: BUSI's layout, Rayleigh speckle, shapes as they are said to be."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from busi_pipeline.synthetic import simulate_scan, write_synthetic_set


def test_the_same_seed_gives_the_same_files(tmp_path: Path) -> None:
    counts = {"benign": 2, "malignant": 1, "normal": 1}
    for folder, seed in (("a", 7), ("b", 7), ("c", 8)):
        write_synthetic_set(tmp_path / folder, counts, seed)
    names = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*.png"))
    assert Path("benign/benign (2).png") in names
    assert Path("benign/benign (2)_mask.png") in names
    assert len(names) == 8
    content = {f: [(tmp_path / f / n).read_bytes() for n in names] for f in "abc"}
    assert content["a"] == content["b"] != content["c"]
    with Image.open(tmp_path / "a/normal/normal (1)_mask.png") as mask:
        assert not np.asarray(mask).any()


@pytest.mark.parametrize(("label", "wider"), [("benign", True), ("malignant", False)])
def test_lesions_are_wide_or_tall_and_dark(label: str, wider: bool) -> None:
    for seed in range(5):
        scan = simulate_scan(label, 170, 220, np.random.default_rng(seed))
        rows, columns = (np.ptp(axis) for axis in np.nonzero(scan.mask))
        assert (columns > rows) == wider
        ring = ndimage.binary_dilation(scan.mask, iterations=8) & ~scan.mask
        above = ring & (np.arange(170)[:, None] < np.nonzero(scan.mask)[0].mean())
        assert scan.image[scan.mask].mean() < scan.image[above].mean() - 15


def test_malignant_outlines_are_more_irregular() -> None:
    def measure_roughness(label: str) -> float:
        ratios = []
        for seed in range(5):
            mask = simulate_scan(label, 170, 220, np.random.default_rng(seed)).mask
            border = mask & ~ndimage.binary_erosion(mask)
            ratios.append(border.sum() ** 2 / mask.sum())
        return float(np.mean(ratios))

    assert measure_roughness("malignant") > 1.5 * measure_roughness("benign")


def test_speckle_is_rayleigh() -> None:
    """The envelope of uniform tissue has Rayleigh's ratio of mean to deviation, 1.91."""
    rng = np.random.default_rng(0)
    parts = [ndimage.gaussian_filter(p, (0.8, 1.6)) for p in rng.normal(size=(2, 400, 400))]
    expected = np.hypot(*parts)
    assert expected.mean() / expected.std() == pytest.approx(1.913, abs=0.03)
    scan = simulate_scan("normal", 400, 400, np.random.default_rng(3)).image.astype(float)
    # Log-compressed Rayleigh speckle deviates by 5.57 dB, of which 255 grey values cover 55.
    fine = scan - ndimage.gaussian_filter(scan, 6)
    inside = (scan > 5) & (scan < 250)
    assert fine[inside].std() * 55 / 255 == pytest.approx(5.57, abs=1.0)
