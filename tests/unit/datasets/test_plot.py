"""Plots: a PNG with the banner exactly where the images are synthetic."""

import io
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from busi_pipeline.datasets.plot import PlotDataset
from busi_pipeline.plotting.style import DEMO_BANNER, new_figure


def draw() -> Figure:
    figure = new_figure(5, 3, "A title")
    figure.subplots().plot([1, 2])
    return figure


def count_red(content: bytes) -> int:
    """Return how many pixels have the banner's red."""
    with Image.open(io.BytesIO(content)) as image:
        pixels = np.asarray(image.convert("RGB"))
    return int((pixels == (0xB0, 0x00, 0x20)).all(axis=-1).sum())


@pytest.mark.parametrize("synthetic", [True, False])
def test_the_banner_is_there_only_if_synthetic(tmp_path: Path, synthetic: bool) -> None:
    dataset = PlotDataset(filepath=str(tmp_path / "plot.png"), synthetic=synthetic)
    figure = draw()
    dataset.save(figure)
    content = dataset.load()
    assert content is not None
    assert content == (tmp_path / "plot.png").read_bytes()
    assert (count_red(content) > 1000) == synthetic
    texts = " ".join(text.get_text() for text in figure.texts).replace("\n", " ")
    assert (DEMO_BANNER in texts) == synthetic


def test_figures_carry_no_banner_by_default(tmp_path: Path) -> None:
    dataset = PlotDataset(filepath=str(tmp_path / "plot.png"))
    dataset.save(draw())
    assert count_red(dataset.load() or b"") == 0


def test_a_plot_that_was_not_made_is_none(tmp_path: Path) -> None:
    assert PlotDataset(filepath=str(tmp_path / "plot.png")).load() is None
