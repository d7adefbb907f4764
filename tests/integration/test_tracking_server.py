"""The demo against an MLflow server, which refuses what the local store takes."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from mlflow.entities import Run

from tests.factories import CLASSES
from tests.integration.mlflow_servers import Server
from tests.integration.projects import (
    RAW,
    create_project,
    find_runs,
    hide_machine,
    run_pipeline,
)

QUICK = {"training": {"fine_tuning": {"epochs": 1}}, "evaluation": {"n_resamples": 60}}
DEMO = "busi_pipeline_demo"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An MLflow server of the test's own; its address."""
    made = Server(tmp_path_factory.mktemp("server") / "store")
    made.start()
    yield made.address
    made.kill()


@pytest.fixture(scope="module")
def demo(server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Run]]:
    """A project whose demo ran with the server in the environment, and the run."""
    project = tmp_path_factory.mktemp("demo") / "project"
    with hide_machine(), pytest.MonkeyPatch.context() as patch:
        create_project(project, dict.fromkeys(CLASSES, 10))
        shutil.move(project / RAW, project / "data/demo/01_raw")
        patch.setenv("MLFLOW_TRACKING_URI", server)
        run_pipeline(project, "train_inceptionv3", QUICK, env="demo")
        mlflow.set_tracking_uri(server)
        (run,) = mlflow.search_runs(experiment_names=[DEMO], output_format="list")
        yield project, run


def test_server_has_the_whole_run(demo: tuple[Path, Run], server: str) -> None:
    project, run = demo
    named = "train_inceptionv3 on synthetic ultrasound"
    assert (run.info.run_name, run.info.status) == (named, "FINISHED")
    assert run.data.tags["environment"] == "demo"
    assert run.data.metrics["test.flag.sensitivity"] >= 0
    assert run.data.params["image_size"] == "96"
    found = mlflow.MlflowClient(server).list_artifacts(run.info.run_id, "results")
    assert "results/roc_pr_curves.png" in {artifact.path for artifact in found}
    assert not find_runs(project), "nothing is logged beside it"


def test_server_has_the_model(demo: tuple[Path, Run], server: str) -> None:
    mlflow.set_tracking_uri(server)
    (logged,) = mlflow.search_logged_models(
        experiment_ids=[demo[1].info.experiment_id], output_format="list"
    )
    described = mlflow.models.get_model_info(logged.model_uri).metadata
    assert described["positive_classes"] == ["malignant"]


def test_purpose_of_the_demo_is_one_tag(demo: tuple[Path, Run], server: str) -> None:
    """TRAP: unquoted in YAML, a comma makes two keys of it, and a server refuses the second."""
    experiment = mlflow.MlflowClient(server).get_experiment(demo[1].info.experiment_id)
    assert "no result" in experiment.tags["purpose"]
    assert None not in experiment.tags.values()


def test_pages_of_the_demo_carry_the_banner(demo: tuple[Path, Run]) -> None:
    card = (demo[0] / "data/demo/06_models/inceptionv3/model_card.md").read_text()
    assert "synthetic" in card.lower()
    assert "Cairo" not in card
    assert not (demo[0] / "data/06_models").exists(), (
        "outputs of the demo have a place of their own"
    )
