"""Small data and a whole small project, for all tests."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import busi_pipeline  # noqa: F401  # sets the telemetry switches before MLflow is imported
from busi_pipeline.synthetic import write_synthetic_set

PROJECT = Path(__file__).resolve().parents[1]
CLASSES = ["benign", "malignant", "normal"]


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the machine's data, weights or tracking server."""
    for name in ("BUSI_RAW_DIR", "BUSI_WEIGHTS_DIR", "MLFLOW_TRACKING_URI", "KEDRO_ENV"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def ingestion_settings() -> dict[str, int]:
    return {"min_side": 32, "min_images_per_class": 1}


@pytest.fixture
def as_raw_images() -> Callable[[dict[str, bytes]], dict[str, Callable[[], bytes]]]:
    """Turn {path: bytes} into what the raw-image dataset loads."""

    def wrap(files: dict[str, bytes]) -> dict[str, Callable[[], bytes]]:
        return {path: (lambda content=content: content) for path, content in files.items()}

    return wrap


@pytest.fixture
def manifest() -> pd.DataFrame:
    """A manifest of BUSI's counts, with nothing in it but what the split reads."""
    counts = {"benign": 437, "malignant": 210, "normal": 133}
    ids = [f"{label}/{label} ({n})" for label, k in counts.items() for n in range(1, k + 1)]
    return pd.DataFrame(
        {
            "image_id": ids,
            "path": [f"{i}.png" for i in ids],
            "label": [i.split("/")[0] for i in ids],
        }
    )


@pytest.fixture
def make_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Path]]:
    """Make a copy of the project's configuration with tiny synthetic data, and stand in it."""

    def make(counts: dict[str, int] | None = None) -> Path:
        project = tmp_path / "project"
        project.mkdir()
        shutil.copytree(PROJECT / "conf", project / "conf", ignore=shutil.ignore_patterns("local"))
        (project / "conf" / "local").mkdir()
        shutil.copy(PROJECT / "pyproject.toml", project)
        shutil.copy(PROJECT / ".telemetry", project)
        (project / "src").mkdir()  # Kedro wants the folder; the package is the installed one
        counts = counts or dict.fromkeys(CLASSES, 12)
        write_synthetic_set(project / "data/01_raw/Dataset_BUSI_with_GT", counts, seed=1)
        monkeypatch.chdir(project)
        return project

    yield make
    _close_mlflow()


def _close_mlflow() -> None:
    import mlflow

    while mlflow.active_run() is not None:
        mlflow.end_run()
    mlflow.set_tracking_uri(None)
    mlflow.set_registry_uri(None)


TINY = """
augmentation: {views: 2}
evaluation: {n_resamples: 30}
copies: {longest_side: 128, keypoints: 60}
cross_validation: {folds: 2, repeats: 1, validation: 0.2}
training:
  weights: none
  precision: float32
  fine_tuning: {epochs: 2}
"""

TINY_ROW = """
experiments:
  inceptionv3: {image_size: 75, freeze_until: mixed0, truncate_at: mixed1}
  inceptionv3_adamw: {image_size: 75, freeze_until: mixed0, truncate_at: mixed1}
  resnet50: {image_size: 32, freeze_until: conv2_block1_out, truncate_at: conv2_block2_out}
  vgg16: {image_size: 32, freeze_until: block1_pool, truncate_at: block2_pool}
"""


def write_tiny_environment(project: Path, extra: str = "") -> None:
    """Write `conf/local`: seconds instead of minutes, no weights."""
    (project / "conf/local/parameters_tiny.yml").write_text(TINY)
    (project / "conf/local/parameters_tiny_rows.yml").write_text(TINY_ROW + extra)


def run_project(project: Path, pipeline: str, **parameters: object) -> None:
    """Run `kedro run --pipeline=<pipeline>` in this process."""
    from kedro.framework.session import KedroSession
    from kedro.framework.startup import bootstrap_project

    bootstrap_project(project)
    with KedroSession.create(project_path=project, runtime_params=parameters or None) as session:
        session.run(pipeline_names=[pipeline])


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


os.environ.setdefault("MPLBACKEND", "Agg")
