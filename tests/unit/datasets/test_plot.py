"""Plots: a PNG with the banner exactly where the images are synthetic."""

import io
from pathlib import Path

import mlflow
import numpy as np
import pytest
from kedro_mlflow.io.artifacts import MlflowArtifactDataset
from matplotlib.figure import Figure
from PIL import Image

from busi_pipeline.datasets.plot import PlotDataset
from busi_pipeline.plotting.style import DEMO_BANNER, NothingToShow, new_figure


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
    assert isinstance(content, bytes)
    assert content == (tmp_path / "plot.png").read_bytes()
    assert (count_red(content) > 1000) == synthetic
    texts = " ".join(text.get_text() for text in figure.texts).replace("\n", " ")
    assert (DEMO_BANNER in texts) == synthetic


def test_figures_carry_no_banner_by_default(tmp_path: Path) -> None:
    dataset = PlotDataset(filepath=str(tmp_path / "plot.png"))
    dataset.save(draw())
    content = dataset.load()
    assert isinstance(content, bytes)
    assert count_red(content) == 0


def test_a_plot_that_was_not_made_is_none(tmp_path: Path) -> None:
    assert PlotDataset(filepath=str(tmp_path / "plot.png")).load() is None


def test_nothing_to_show_takes_the_place_of_a_picture(tmp_path: Path) -> None:
    dataset = PlotDataset(filepath=str(tmp_path / "new" / "plot.png"))
    picture, reason = (tmp_path / "new" / f"plot.{kind}" for kind in ("png", "txt"))
    dataset.save(NothingToShow("No image is misclassified."))
    assert dataset.exists()
    assert reason.read_text() == dataset.load() == "No image is misclassified."
    assert isinstance(dataset.load(), NothingToShow)
    assert not picture.exists()
    dataset.save(draw())
    assert picture.exists()
    assert not reason.exists()
    dataset.save(NothingToShow("No image is misclassified."))
    assert not picture.exists(), "an earlier run's"


@pytest.mark.parametrize("shown", [True, False])
def test_mlflow_gets_the_picture_that_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shown: bool
) -> None:
    logged: list[str] = []
    monkeypatch.setattr(mlflow, "log_artifact", lambda path, _: logged.append(path))
    inner = {"type": PlotDataset, "filepath": str(tmp_path / "plot.png")}
    dataset = MlflowArtifactDataset(dataset=inner)
    dataset.save(draw() if shown else NothingToShow("No image is misclassified."))
    assert logged == [str(tmp_path / "plot.png")] * shown
