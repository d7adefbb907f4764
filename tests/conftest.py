"""Fixtures for all tests: an environment of their own, a random generator, a small project."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

import busi_pipeline  # noqa: F401  # sets the telemetry switches before MLflow is imported
from tests.factories import MACHINE_VARIABLES, close_mlflow

pytest_plugins = ["tests.small_project", "tests.tiny_models"]

if TYPE_CHECKING:
    import mlflow

os.environ.setdefault("MPLBACKEND", "Agg")


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the machine's data, weights or tracking server."""
    for name in MACHINE_VARIABLES:
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
