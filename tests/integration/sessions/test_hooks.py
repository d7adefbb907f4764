"""What the session adds to a run, and what it makes of errors."""

import json
import logging
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest
from kedro.framework.project import pipelines
from kedro.framework.session import KedroSession
from kedro.io import DatasetError
from kedro.pipeline import Node, Pipeline
from kedro.runner import SequentialRunner, ThreadRunner

from busi_pipeline.config.checking import check_parameters
from busi_pipeline.config.loader import load_active_parameters
from busi_pipeline.errors import BadInputError
from busi_pipeline.hooks import (
    ClearErrors,
    StageTimes,
    describe_git_commit,
    flatten_parameters,
)
from busi_pipeline.run_datasets import list_experiments

Make = Callable[..., Path]


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def read_epochs(project: Path) -> int:
    return json.loads((project / "data/metrics.json").read_text())["epochs"]


def find_runs(project: Path) -> list[Any]:
    mlflow.set_tracking_uri(f"sqlite:///{project}/mlflow.db")
    return mlflow.search_runs(search_all_experiments=True, output_format="list")


def test_commit_is_named_and_changes_are_marked(tmp_path: Path) -> None:
    assert describe_git_commit(tmp_path) == "unknown"
    git(tmp_path, "init")
    (tmp_path / "a").write_text("1")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-m", "a")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert describe_git_commit(tmp_path) == commit
    (tmp_path / "a").write_text("2")
    assert describe_git_commit(tmp_path) == f"{commit}-dirty"


def test_bad_input_comes_out_of_its_wrapping() -> None:
    def wrapped(cause: Exception) -> DatasetError:
        error = DatasetError("Failed while loading")
        error.__cause__ = cause
        return error

    with pytest.raises(BadInputError, match=r"^the line$"):
        ClearErrors().on_pipeline_error(wrapped(BadInputError("the line")))
    ClearErrors().on_pipeline_error(wrapped(OSError("a real fault keeps its traceback")))


def test_time_is_booked_on_the_stage_that_spent_it(caplog: pytest.LogCaptureFixture) -> None:
    cut = Node(len, "a", "b", tags="splitting")
    fit = Node(len, "b", "c", tags="training")
    times = StageTimes()
    with caplog.at_level(logging.INFO, logger="busi_pipeline"):
        times.before_pipeline_run(Pipeline([cut, fit]))
        times.before_node_run(cut)
        times.after_node_run(cut)
        times.before_node_run(fit)
        times.after_node_run(fit)
        time.sleep(1.1)
        times.after_dataset_saved(fit)
        times.after_pipeline_run()
    assert caplog.messages == [
        "training: 1.1 s; 2 of 2 steps done",  # a stage of no time has no line
        "done in 1.1 s: splitting 0.0, training 1.1",
    ]


def test_settings_are_logged_key_by_key(parameters: dict[str, Any]) -> None:
    checked = check_parameters(parameters)
    inputs = {
        "manifest": "no parameter",
        "params:split": checked["split"],
        "params:classes": checked["classes"],
        "params:dataset": checked["dataset"],
        "params:cross_validation.folds": 5,
        "params:experiments.vgg16": checked["experiments"]["vgg16"],
        "params:experiments": checked["experiments"],
        "params:training": checked["training"],
        "params:augmentation.seed": 42,
    }
    assert dict(flatten_parameters(inputs)) == {
        "split.method": "grouped",
        "split.seed": "42",
        "split.validation": "0.15",
        "split.test": "0.15",
        "split.mixed_labels": "exclude",
        "classes": "benign,malignant,normal",
        "positive_classes": "malignant",
        "lesion_free_classes": "normal",
        "dataset.name": "BUSI",
        "dataset.synthetic": "False",
        "dataset.images.benign": "437",
        "dataset.images.malignant": "210",
        "dataset.images.normal": "133",
        "cross_validation.folds": "5",
    }


def test_nested_namespaces_count_as_experiments() -> None:
    def under(namespace: str) -> Pipeline:
        return Pipeline([Node(len, "a", "b", name="n")], namespace=namespace)

    nodes = under("resnet50.cross_validation.repeat_1_fold_1") + under("ensemble.cross_validation")
    nodes += under("vgg16") + Pipeline([Node(len, "c", "d", name="plain")])
    assert list_experiments(nodes, {"vgg16": 0, "resnet50": 0, "other": 0}) == ["resnet50", "vgg16"]


def test_wrong_parameter_stops_before_any_work(make_small_project: Make) -> None:
    project = make_small_project(has_store=False)
    wrong = {"split": {"metod": "random"}}
    session = KedroSession.create(project_path=project, runtime_params=wrong)
    with pytest.raises(BadInputError, match=r"split\.metod is no setting"):
        session.run(pipeline_names=["train_vgg16"])
    assert not (project / "mlflow.db").exists()
    assert not (project / "data").exists()


def test_sessions_of_one_process_are_independent(make_small_project: Make) -> None:
    project = make_small_project()
    own = {"training": {"fine_tuning": {"epochs": 3}}}
    demo = KedroSession.create(project_path=project, env="demo")
    mine = KedroSession.create(project_path=project, runtime_params=own)
    for session in (demo, mine):
        session.load_context()
    for session, epochs, names in ((demo, 6, "demo"), (mine, 3, "")):
        session.run(pipeline_names=["train_resnet50"])
        assert read_epochs(project) == epochs
        (run, *_) = find_runs(project)
        assert run.data.params["training.fine_tuning.epochs"] == str(epochs)
        assert run.data.tags["environment"] == (names or "local")
    assert load_active_parameters()["training"].fine_tuning.epochs == 10, "no session is open"


def test_store_of_one_session_is_not_the_next_ones(
    make_small_project: Make, tmp_path: Path
) -> None:
    """TRAP: MLflow writes its store into MLFLOW_TRACKING_URI, where the next session finds it."""
    project = make_small_project()
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(project / "mlflow.db", other)
    for folder in (project, other):
        session = KedroSession.create(project_path=folder, conf_source=str(project / "conf"))
        session.run(pipeline_names=["train_vgg16"])
        assert "MLFLOW_TRACKING_URI" not in os.environ
    assert [len(find_runs(folder)) for folder in (project, other)] == [1, 1]


def test_pipelines_come_from_the_conf_source(make_small_project: Make, make_conf: Make) -> None:
    project = make_small_project()
    elsewhere = make_conf("elsewhere", "experiments: {mine: {backbone: vgg16}}\n")
    session = KedroSession.create(
        project_path=project,
        conf_source=str(elsewhere),
        runtime_params={"training": {"fine_tuning": {"epochs": 4}}},
    )
    session.run(pipeline_names=["train_mine"])
    assert read_epochs(project) == 4
    assert not (elsewhere.parent / "mlflow.db").exists()
    (run,) = find_runs(project)
    assert run.data.tags["experiments"] == "mine"


def test_each_session_registers_its_pipelines(make_small_project: Make, make_conf: Make) -> None:
    project = make_small_project()
    elsewhere = str(make_conf("elsewhere", "experiments: {mine: {backbone: vgg16}}\n"))
    for source, has_mine in ((None, False), (elsewhere, True), (None, False)):
        KedroSession.create(project_path=project, conf_source=source).load_context()
        assert ("train_mine" in pipelines) == has_mine


def test_request_for_one_pipeline_is_kept(make_small_project: Make) -> None:
    project = make_small_project()
    pipelines.set_requested(["train_vgg16"])
    KedroSession.create(project_path=project).load_context()
    assert pipelines._requested_pipelines == ["train_vgg16"]


@pytest.mark.parametrize(
    "runner", [SequentialRunner(), SequentialRunner(is_async=True), ThreadRunner(max_workers=2)]
)
def test_every_thread_logs_to_the_one_run(
    make_small_project: Make, runner: SequentialRunner
) -> None:
    project = make_small_project()
    KedroSession.create(project_path=project).run(
        pipeline_names=["train_vgg16", "train_resnet50"], runner=runner
    )
    (run,) = find_runs(project)
    assert run.info.status == "FINISHED"
    assert run.data.tags["experiments"] == "resnet50,vgg16"
    for name in ("resnet50", "vgg16"):
        assert run.data.metrics[f"{name}.epochs"] == 10
        assert run.data.tags[f"{name}.rows"] == "1"
        assert run.data.params[f"{name}.backbone"] == name
    assert run.data.params["evaluation.n_resamples"] == "1000"
    assert run.data.params["classes"] == "benign,malignant,normal"
    artifacts = mlflow.MlflowClient().list_artifacts(run.info.run_id)
    assert [artifact.path for artifact in artifacts] == ["results", "table.csv"]


def test_artifact_is_loaded_from_its_file(make_small_project: Make) -> None:
    """TRAP: a MlflowArtifactDataset with a run_id loads from that run, which may not have it."""
    project = make_small_project()
    KedroSession.create(project_path=project).run(pipeline_names=["train_vgg16"])
    KedroSession.create(project_path=project).run(
        pipeline_names=["train_vgg16"], from_inputs=["vgg16.table"]
    )
    assert len(find_runs(project)) == 2
