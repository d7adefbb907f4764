"""One run, copied from a local store to an MLflow server, exactly once.

MLflow's own tool for this (mlflow-export-import) gives a run that is sent again a second copy.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from mlflow.entities import LoggedModelOutput, Metric, Param, Run, RunTag
from mlflow.models import Model
from mlflow.models.model import MLMODEL_FILE_NAME
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from mlflow.utils.validation import MAX_METRICS_PER_BATCH, MAX_PARAMS_TAGS_PER_BATCH

from busi_pipeline.tracking.children import adopt_child
from busi_pipeline.tracking.liveness import LOCK_TAG

# The id that a run had where it was computed.
SOURCE_TAG = "computed_as"
_DELIVERED_TAG = "delivered"


def deliver_runs(source: MlflowClient, target: MlflowClient) -> dict[str, str]:
    """Copy all runs of a store to a server, each once; return {id here: id there}.

    What is there already is left as it is; what was sent in part is removed there and sent anew.

    Raises MlflowException or OSError where the server or a file fails. Calling it again goes on.
    """
    delivered: dict[str, str] = {}
    for experiment in source.search_experiments():
        runs = source.search_runs([experiment.experiment_id], max_results=50_000)
        if not runs:
            continue
        there = target.get_experiment_by_name(experiment.name)
        place = (
            there.experiment_id
            if there is not None
            else target.create_experiment(experiment.name, tags=experiment.tags)
        )
        for run in sorted(runs, key=lambda run: MLFLOW_PARENT_RUN_ID in run.data.tags):
            delivered[run.info.run_id] = _deliver(source, target, run, place, delivered)
    return delivered


def _deliver(
    source: MlflowClient,
    target: MlflowClient,
    run: Run,
    experiment_id: str,
    delivered: Mapping[str, str],
) -> str:
    tags = {k: v for k, v in run.data.tags.items() if k != LOCK_TAG}
    if MLFLOW_PARENT_RUN_ID in tags:
        tags[MLFLOW_PARENT_RUN_ID] = delivered[tags[MLFLOW_PARENT_RUN_ID]]
    for there in target.search_runs([experiment_id], f"tags.{SOURCE_TAG} = '{run.info.run_id}'"):
        if _DELIVERED_TAG in there.data.tags:
            return str(there.info.run_id)
        _remove(target, there.info.run_id, experiment_id)
    if MLFLOW_PARENT_RUN_ID in tags:
        known = adopt_child(target, experiment_id, tags, tags[MLFLOW_PARENT_RUN_ID])
        if known is not None:
            return known
    new_id = target.create_run(
        experiment_id,
        start_time=run.info.start_time,
        run_name=run.info.run_name,
        tags={SOURCE_TAG: run.info.run_id},
    ).info.run_id
    for some in _batch([Param(*item) for item in run.data.params.items()]):
        target.log_batch(new_id, params=some)
    for some in _batch([RunTag(*item) for item in tags.items()]):
        target.log_batch(new_id, tags=some)
    points = [
        p for key in run.data.metrics for p in source.get_metric_history(run.info.run_id, key)
    ]
    own = [Metric(p.key, p.value, p.timestamp, p.step) for p in points]
    for some in _batch(own, MAX_METRICS_PER_BATCH):
        target.log_batch(new_id, metrics=some)
    if run.inputs and run.inputs.dataset_inputs:
        target.log_inputs(new_id, datasets=run.inputs.dataset_inputs)
    artifacts = _find_folder(run.info.artifact_uri)
    if artifacts.is_dir() and any(artifacts.iterdir()):
        target.log_artifacts(new_id, str(artifacts))
    for output in run.outputs.model_outputs if run.outputs else []:
        _deliver_model(source, target, output, new_id, experiment_id)
    target.set_terminated(new_id, run.info.status, run.info.end_time)
    target.set_tag(new_id, _DELIVERED_TAG, "whole")  # last: without it, all is sent anew
    return str(new_id)


def _remove(target: MlflowClient, run_id: str, experiment_id: str) -> None:
    """Remove what arrived of a run that was sent in part, its models first."""
    condition = f"source_run_id = '{run_id}'"
    for model in target.search_logged_models([experiment_id], filter_string=condition):
        target.delete_logged_model(model.model_id)
    target.delete_run(run_id)


def _deliver_model(
    source: MlflowClient,
    target: MlflowClient,
    output: LoggedModelOutput,
    run_id: str,
    experiment_id: str,
) -> None:
    """Copy a logged model; what its file says of model and run becomes true there."""
    model = source.get_logged_model(output.model_id)
    new = target.create_logged_model(
        experiment_id,
        name=model.name,
        source_run_id=run_id,
        tags=_leave_reserved(model.tags),
        params=model.params,
        model_type=model.model_type,
    )
    folder = _find_folder(model.artifact_location)
    described = Model.load(str(folder))
    described.model_id, described.run_id = new.model_id, run_id
    described.save(str(folder / MLMODEL_FILE_NAME))
    target.log_model_artifacts(new.model_id, str(folder))
    target.finalize_logged_model(new.model_id, "READY")
    target.log_outputs(run_id, [LoggedModelOutput(new.model_id, output.step)])
    points = [
        Metric(p.key, p.value, p.timestamp, p.step, model_id=new.model_id, run_id=run_id)
        for p in model.metrics or []
    ]
    for metrics in _batch(points, MAX_METRICS_PER_BATCH):
        target.log_batch(run_id, metrics=metrics)


def _leave_reserved(tags: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in tags.items() if not key.startswith("mlflow.source")}


def _batch(values: Sequence[Any], size: int = MAX_PARAMS_TAGS_PER_BATCH) -> Iterator[Any]:
    for start in range(0, len(values), size):
        yield values[start : start + size]


def _find_folder(location: str) -> Path:
    return Path(url2pathname(urlsplit(location).path))
