"""Records: JSON on disk; metrics, curves and tags in the run that they belong to."""

import json
from pathlib import Path
from typing import Any

import mlflow
import pytest
from kedro.io import DatasetError
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME

from busi_pipeline.datasets.fold_record import FoldRecordDataset
from busi_pipeline.datasets.record import RunRecordDataset, flatten
from busi_pipeline.errors import BadInputError, find_bad_input

RECORD = {
    "head": {"loss": [3.0, 2.0]},
    "test": {"accuracy": 0.5, "images": 3},
    "flag": True,
    "device": "CPU",
}


def make_dataset(tmp_path: Path, log_as: Any = "metrics", **arguments: Any) -> RunRecordDataset:
    return RunRecordDataset(filepath=str(tmp_path / "record.json"), log_as=log_as, **arguments)


def read_run(run: mlflow.ActiveRun) -> Any:
    return mlflow.get_run(run.info.run_id).data


def test_nested_keys_are_joined_depth_first() -> None:
    assert dict(flatten({"a": {"b": 1, "c": {"d": [2]}}, "e": None})) == {
        "a.b": 1,
        "a.c.d": [2],
        "e": None,
    }


def test_metrics_and_curves_are_logged(tmp_path: Path, tracked: mlflow.ActiveRun) -> None:
    dataset = make_dataset(tmp_path, not_logged=["published"])
    record = RECORD | {"published": {"accuracy": 0.7}}
    dataset.save(record)
    assert dataset.load() == json.loads((tmp_path / "record.json").read_text()) == record
    assert read_run(tracked).metrics == {
        "head.loss": 2.0,
        "test.accuracy": 0.5,
        "test.images": 3.0,
    }
    curve = mlflow.MlflowClient().get_metric_history(tracked.info.run_id, "head.loss")
    assert [(point.step, point.value) for point in curve] == [(1, 3.0), (2, 2.0)]


def test_tags_are_logged_as_texts(tmp_path: Path, tracked: mlflow.ActiveRun) -> None:
    make_dataset(tmp_path, "tags").save({"weights": "none", "split": {"seed": 3}})
    tags = read_run(tracked).tags
    assert (tags["weights"], tags["split.seed"]) == ("none", "3")


def test_long_curves_and_many_tags_are_logged(tmp_path: Path, tracked: mlflow.ActiveRun) -> None:
    make_dataset(tmp_path).save({"loss": [float(n) for n in range(1201)]})
    curve = mlflow.MlflowClient().get_metric_history(tracked.info.run_id, "loss")
    assert [point.value for point in curve] == list(range(1201))
    make_dataset(tmp_path, "tags").save({f"tag{n}": n for n in range(250)})
    assert sum(name.startswith("tag") for name in read_run(tracked).tags) == 250


@pytest.mark.parametrize(("experiments", "key"), [("vgg16", "a"), ("resnet50,vgg16", "vgg16.a")])
def test_keys_carry_the_experiment_in_runs_over_several(
    tmp_path: Path, tracked: mlflow.ActiveRun, experiments: str, key: str
) -> None:
    mlflow.set_tag("experiments", experiments)
    make_dataset(tmp_path, experiment="vgg16").save({"a": 1.0})
    assert set(read_run(tracked).metrics) == {key}


def test_the_prefix_stands_after_the_experiment(tmp_path: Path, tracked: mlflow.ActiveRun) -> None:
    mlflow.set_tag("experiments", "vgg16")
    dataset = make_dataset(tmp_path, experiment="vgg16", prefix="cross_validation")
    dataset.save({"a": 1.0})
    mlflow.set_tag("experiments", "resnet50,vgg16")
    dataset.save({"b": 1.0})
    assert set(read_run(tracked).metrics) == {"cross_validation.a", "vgg16.cross_validation.b"}


def test_the_run_that_was_set_is_logged_to(tmp_path: Path, tracked: mlflow.ActiveRun) -> None:
    """The active run is one of a thread; a hook sets the run that the record belongs to."""
    client = mlflow.MlflowClient()
    other = client.create_run(tracked.info.experiment_id).info.run_id
    dataset = make_dataset(tmp_path)
    dataset.run_id = other
    dataset.save({"a": 1.0})
    assert client.get_run(other).data.metrics == {"a": 1.0}
    assert read_run(tracked).metrics == {}


def test_names_that_mlflow_refuses_are_replaced(tmp_path: Path, tracked: mlflow.ActiveRun) -> None:
    make_dataset(tmp_path).save({"Zyste (groß), 2": 1.0})
    assert set(read_run(tracked).metrics) == {"Zyste _groß__ 2"}


@pytest.mark.usefixtures("tracked")
def test_names_that_become_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError) as caught:
        make_dataset(tmp_path).save({"a?": 1.0, "a!": 2.0})
    assert isinstance(find_bad_input(caught.value), BadInputError)


def test_a_record_without_a_run_is_a_file_alone(tmp_path: Path) -> None:
    make_dataset(tmp_path).save(RECORD)
    assert make_dataset(tmp_path).load() == RECORD


def test_a_record_may_be_optional(tmp_path: Path) -> None:
    assert make_dataset(tmp_path, optional=True).load() is None
    with pytest.raises(DatasetError):
        make_dataset(tmp_path).load()
    with pytest.raises(ValueError, match="'metrics' or 'tags'"):
        make_dataset(tmp_path, log_as="params")


FOLD = {
    "metrics": {"seconds": {"fitting": 2.5}, "test": {"accuracy": 0.75}},
    "tags": {"weights": "none", "fold": "repeat_1_fold_2"},
}


@pytest.mark.parametrize("in_this_thread", [True, False])
def test_a_fold_is_a_child_run(
    tmp_path: Path, tracked: mlflow.ActiveRun, in_this_thread: bool
) -> None:
    dataset = FoldRecordDataset(filepath=str(tmp_path / "fold.json"), name="vgg16, fold 2")
    if not in_this_thread:
        dataset.run_id = tracked.info.run_id
        mlflow.end_run()
    dataset.save(FOLD)
    assert dataset.load() == FOLD
    (child,) = mlflow.search_runs(
        filter_string=f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{tracked.info.run_id}'",
        output_format="list",
    )
    assert child.data.metrics == {"seconds.fitting": 2.5, "test.accuracy": 0.75}
    assert child.data.tags[MLFLOW_RUN_NAME] == "vgg16, fold 2"
    assert child.data.tags["fold"] == "repeat_1_fold_2"
    assert child.info.status == "FINISHED"
    assert read_run(tracked).metrics == {}, "the parent's metrics are those of the whole"


@pytest.mark.parametrize("status", ["RUNNING", "FINISHED"])
def test_a_fold_that_is_saved_again_has_one_child(
    tmp_path: Path, tracked: mlflow.ActiveRun, status: str
) -> None:
    """Its process may be lost at any moment, and another one begin again."""
    client = mlflow.MlflowClient()
    dataset = FoldRecordDataset(filepath=str(tmp_path / "fold.json"), name="vgg16, fold 2")
    if status == "RUNNING":
        tags = {MLFLOW_PARENT_RUN_ID: tracked.info.run_id, MLFLOW_RUN_NAME: "vgg16, fold 2"}
        tags |= {"fold": "repeat_1_fold_2"}
        client.create_run(tracked.info.experiment_id, tags=tags)
    else:
        dataset.save(FOLD)
    dataset.save(FOLD)
    (child,) = mlflow.search_runs(
        filter_string=f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{tracked.info.run_id}'",
        output_format="list",
    )
    assert child.info.status == "FINISHED"
    assert child.data.metrics == {"seconds.fitting": 2.5, "test.accuracy": 0.75}


KEPT = {"training_sha256": "a" * 64, "training_cached": "yes"}


@pytest.mark.parametrize(("ended", "moves"), [("KILLED", True), ("FAILED", True), ("FINISHED", False)])
def test_a_kept_fold_is_no_second_child(
    tmp_path: Path, tracked: mlflow.ActiveRun, ended: str, moves: bool
) -> None:
    client = mlflow.MlflowClient()
    experiment = tracked.info.experiment_id
    first = client.create_run(experiment).info.run_id
    dataset = FoldRecordDataset(filepath=str(tmp_path / "fold.json"), name="vgg16, fold 2")
    dataset.run_id = first
    computed = KEPT | {"training_cached": "no"}
    dataset.save({**FOLD, "tags": FOLD["tags"] | computed})
    client.set_terminated(first, ended)
    dataset.run_id = tracked.info.run_id
    kept = {**FOLD, "tags": FOLD["tags"] | KEPT}
    dataset.save(kept)
    dataset.save(kept)
    children = [
        run
        for run in client.search_runs([experiment])
        if run.data.tags.get(MLFLOW_RUN_NAME) == "vgg16, fold 2"
    ]
    assert len(children) == 1
    parent = tracked.info.run_id if moves else first
    assert children[0].data.tags[MLFLOW_PARENT_RUN_ID] == parent


def test_a_kept_fold_that_no_run_has_is_a_child(tmp_path: Path, tracked: mlflow.ActiveRun) -> None:
    dataset = FoldRecordDataset(filepath=str(tmp_path / "fold.json"), name="vgg16, fold 2")
    dataset.save({**FOLD, "tags": FOLD["tags"] | KEPT})
    other = KEPT | {"training_sha256": "b" * 64}
    dataset.save({**FOLD, "tags": FOLD["tags"] | other})
    named = mlflow.search_runs(filter_string=f"tags.`{MLFLOW_RUN_NAME}` = 'vgg16, fold 2'")
    assert len(named) == 2


def test_a_fold_without_a_run_is_a_file_alone(tmp_path: Path) -> None:
    dataset = FoldRecordDataset(filepath=str(tmp_path / "fold.json"), name="fold")
    dataset.save(FOLD)
    assert dataset.load() == FOLD
