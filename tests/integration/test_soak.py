"""Interrupted runs are as those that were not; `make soak` tries it for an hour."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest

from tests.integration.projects import create_store, hide_machine, run_driver
from tests.soak import NotAsExpectedError, check_project, read_results


def test_runs_that_are_killed_and_damaged_are_as_others() -> None:
    """A training and a cross-validation, the latter twice at once in the end."""
    printed = run_driver(sys.executable, "-m", "tests.soak", "--minutes", "0")
    assert "projects: 2" in printed
    assert "two at once: 1" in printed


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Results of a run, and an MLflow store."""
    create_store(tmp_path)
    metrics = tmp_path / "data/08_reporting/vgg16/metrics.json"
    metrics.parent.mkdir(parents=True)
    metrics.write_text(json.dumps({"test": {"accuracy": 0.5}, "seconds": 3}))
    table = tmp_path / "data/07_model_output/vgg16/predictions.csv"
    table.parent.mkdir(parents=True)
    table.write_text("image_id,p_benign\na,0.5\n")
    return tmp_path


def change_metrics(project: Path) -> None:
    path = project / "data/08_reporting/vgg16/metrics.json"
    path.write_text(json.dumps({"test": {"accuracy": 0.51}}))


def change_predictions(project: Path) -> None:
    path = project / "data/07_model_output/vgg16/predictions.csv"
    path.write_text("image_id,p_benign\na,0.5000001\n")


def lose_predictions(project: Path) -> None:
    (project / "data/07_model_output/vgg16/predictions.csv").unlink()


def leave_file(project: Path) -> None:
    (project / "data/a.unfinished.npy").touch()


def leave_run(project: Path) -> None:
    client = mlflow.MlflowClient(f"sqlite:///{project}/mlflow.db")
    client.create_run("0")


def leave_parcel(project: Path) -> None:
    (project / "mlflow_outbox/a").mkdir(parents=True)
    (project / "mlflow_outbox/a/address.json").touch()


FAULTS: dict[Callable[[Path], None], str] = {
    change_metrics: "different",
    change_predictions: "different",
    lose_predictions: "different",
    leave_file: "left behind",
    leave_run: "still running",
    leave_parcel: "wait in the outbox",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_the_driver_sees_what_is_not_as_it_was(
    project: Path, fault: Callable[[Path], None]
) -> None:
    with hide_machine():
        expected = read_results(project)
        check_project(project, expected)
        fault(project)
        with pytest.raises(NotAsExpectedError, match=FAULTS[fault]):
            check_project(project, expected)
