"""Fixtures for all tests: an environment of their own, a random generator, a small project."""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

import busi_pipeline  # noqa: F401  # sets the telemetry switches before MLflow is imported
from busi_pipeline.synthetic import write_synthetic_set
from tests.factories import CLASSES, PROJECT, close_mlflow

pytest_plugins = ["tests.small_project"]

if TYPE_CHECKING:
    import mlflow

os.environ.setdefault("MPLBACKEND", "Agg")


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the machine's data, weights or tracking server."""
    for name in ("BUSI_RAW_DIR", "BUSI_WEIGHTS_DIR", "MLFLOW_TRACKING_URI", "KEDRO_ENV"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def mlflow_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database; to make one takes seconds, to copy it none."""
    import mlflow

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    mlflow.MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def make_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mlflow_database: Path
) -> Iterator[Callable[..., Path]]:
    """Make a copy of the project's configuration with tiny synthetic data, and stand in it."""

    def make(counts: Mapping[str, int] | None = None) -> Path:
        project = tmp_path / "project"
        project.mkdir()
        shutil.copytree(PROJECT / "conf", project / "conf", ignore=shutil.ignore_patterns("local"))
        (project / "conf" / "local").mkdir()
        shutil.copy(PROJECT / "pyproject.toml", project)
        shutil.copy(PROJECT / ".telemetry", project)
        shutil.copy(mlflow_database, project)
        (project / "src").mkdir()  # Kedro wants the folder; the package is the installed one
        write_synthetic_set(
            project / "data/01_raw/Dataset_BUSI_with_GT",
            dict(counts or dict.fromkeys(CLASSES, 12)),
            seed=1,
        )
        monkeypatch.chdir(project)
        return project

    yield make
    close_mlflow()


@pytest.fixture
def tracked(tmp_path: Path, mlflow_database: Path) -> "Iterator[mlflow.ActiveRun]":
    """An MLflow store of the test's own, with a run open."""
    import mlflow

    shutil.copy(mlflow_database, tmp_path)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    mlflow.create_experiment("test", artifact_location=(tmp_path / "artifacts").as_uri())
    mlflow.set_experiment("test")
    with mlflow.start_run() as run:
        yield run
    close_mlflow()
