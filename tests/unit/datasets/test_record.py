"""Records of a run: what of a JSON file becomes a metric, and that the file goes with the run."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest

from busi_pipeline.datasets.record import RunRecordDataset
from tests.factories import close_mlflow
from tests.integration.projects import create_store

SCORES = {
    "test": {
        "accuracy": 0.8,
        "accuracy_ci_low": 0.7,
        "accuracy_ci_high": 0.9,
        "flag": {"sensitivity": 0.95, "missed": 2, "chosen_on": "validation"},
    },
    "seconds": 12.0,
}


@pytest.fixture
def client(tmp_path: Path) -> Iterator[mlflow.MlflowClient]:
    mlflow.set_tracking_uri(f"sqlite:///{create_store(tmp_path / 'store')}")
    yield mlflow.MlflowClient()
    close_mlflow()


def save(client: mlflow.MlflowClient, tmp_path: Path, **arguments: Any) -> Any:
    """Save the scores into a run, and return the run."""
    folder = (tmp_path / "artifacts").as_uri()
    experiment = client.create_experiment("e", artifact_location=folder)
    run = client.create_run(experiment)
    file = tmp_path / "scores.json"
    dataset = RunRecordDataset(filepath=str(file), log_as="metrics", **arguments)
    dataset.run_id = run.info.run_id
    dataset.save(SCORES)
    assert dataset.load() == SCORES, "the file holds all of it"
    return client.get_run(run.info.run_id)


def test_ends_of_intervals_are_no_metrics(client: mlflow.MlflowClient, tmp_path: Path) -> None:
    run = save(client, tmp_path)
    assert run.data.metrics == {
        "test.accuracy": 0.8,
        "test.flag.sensitivity": 0.95,
        "test.flag.missed": 2,
        "seconds": 12,
    }
    assert not client.list_artifacts(run.info.run_id)


def test_patterns_choose_the_metrics(client: mlflow.MlflowClient, tmp_path: Path) -> None:
    run = save(client, tmp_path, logged=["*.sensitivity", "seconds"], prefix="folds")
    assert run.data.metrics == {"folds.test.flag.sensitivity": 0.95, "folds.seconds": 12}


def test_file_is_an_artifact_of_the_run(client: mlflow.MlflowClient, tmp_path: Path) -> None:
    run = save(client, tmp_path, artifact_path="results")
    (found,) = client.list_artifacts(run.info.run_id, "results")
    assert found.path == "results/scores.json"
