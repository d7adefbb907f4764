"""One run, copied from a local store to an MLflow server, exactly once.

MLflow's own tool for this (mlflow-export-import) gives a run that is sent again a second copy.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mlflow.entities import LoggedModel, LoggedModelOutput, Metric, Param, Run, RunTag
from mlflow.models import Model
from mlflow.models.model import MLMODEL_FILE_NAME
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from mlflow.utils.validation import (
    MAX_METRICS_PER_BATCH,
    MAX_PARAMS_TAGS_PER_BATCH,
    MAX_TAG_VAL_LENGTH,
)

from busi_pipeline.caching.whole_files import replace_whole
from busi_pipeline.tracking.children import adopt_child
from busi_pipeline.tracking.liveness import LOCK_TAG
from busi_pipeline.tracking.local_store import find_folder
from busi_pipeline.tracking.withholding import copy_artifacts, hide_places, hide_tags, may_leave

# The id that a run had where it was computed.
SOURCE_TAG = "computed_as"
_DELIVERED_TAG, _WITHHELD_TAG = "delivered", "withheld"


def deliver_runs(
    source: MlflowClient, target: MlflowClient, key: bytes | None = None
) -> dict[str, str]:
    """Copy all runs of a store to a server, each once; return {id here: id there}.

    What is there already is left as it is; what was sent in part is removed there and sent anew.

    Args:
        source: of the store.
        target: of the server.
        key: of the pseudonyms, where names and pictures stay here; see tracking.withholding.

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
            delivered[run.info.run_id] = _deliver(source, target, run, place, delivered, key)
    return delivered


def _deliver(
    source: MlflowClient,
    target: MlflowClient,
    run: Run,
    experiment_id: str,
    delivered: Mapping[str, str],
    key: bytes | None,
) -> str:
    tags = {k: v for k, v in run.data.tags.items() if k != LOCK_TAG}
    params = dict(run.data.params)
    if key is not None:
        tags, params = hide_tags(tags), hide_places(params)
    if MLFLOW_PARENT_RUN_ID in tags:
        tags[MLFLOW_PARENT_RUN_ID] = delivered[tags[MLFLOW_PARENT_RUN_ID]]
    for there in _find_copies(target, run, experiment_id):
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
    for some in _batch([Param(*item) for item in params.items()]):
        target.log_batch(new_id, params=some)
    for some in _batch([RunTag(*item) for item in tags.items()]):
        target.log_batch(new_id, tags=some)
    points = [
        p for name in run.data.metrics for p in source.get_metric_history(run.info.run_id, name)
    ]
    own = [Metric(p.key, p.value, p.timestamp, p.step) for p in points]
    for some in _batch(own, MAX_METRICS_PER_BATCH):
        target.log_batch(new_id, metrics=some)
    if run.inputs and run.inputs.dataset_inputs:
        target.log_inputs(new_id, datasets=run.inputs.dataset_inputs)
    withheld = _deliver_artifacts(target, find_folder(run.info.artifact_uri), new_id, key)
    withheld += _deliver_models(source, target, run, new_id, experiment_id, key)
    if withheld:
        target.set_tag(new_id, _WITHHELD_TAG, ", ".join(withheld)[:MAX_TAG_VAL_LENGTH])
    _remove_others(target, run, new_id, experiment_id)
    target.set_terminated(new_id, run.info.status, run.info.end_time)
    target.set_tag(new_id, _DELIVERED_TAG, "whole")  # last: without it, all is sent anew
    return str(new_id)


def _find_copies(target: MlflowClient, run: Run, experiment_id: str) -> list[Run]:
    return list(target.search_runs([experiment_id], f"tags.{SOURCE_TAG} = '{run.info.run_id}'"))


def _remove_others(target: MlflowClient, run: Run, new_id: str, experiment_id: str) -> None:
    """Remove other copies of a run: a request that MLflow tried twice may have made one."""
    for there in _find_copies(target, run, experiment_id):
        if there.info.run_id != new_id:
            _remove(target, there.info.run_id, experiment_id)


def _remove(target: MlflowClient, run_id: str, experiment_id: str) -> None:
    """Remove what arrived of a run that was sent in part, its models first."""
    condition = f"source_run_id = '{run_id}'"
    for model in target.search_logged_models([experiment_id], filter_string=condition):
        target.delete_logged_model(model.model_id)
    target.delete_run(run_id)


def _deliver_artifacts(
    target: MlflowClient, artifacts: Path, run_id: str, key: bytes | None
) -> list[str]:
    """Send a run's artifacts; return the names of those that stay here."""
    if not artifacts.is_dir() or not any(artifacts.iterdir()):
        return []
    if key is None:
        target.log_artifacts(run_id, str(artifacts))
        return []
    with TemporaryDirectory() as folder:
        withheld = copy_artifacts(artifacts, Path(folder), key)
        if any(Path(folder).iterdir()):
            target.log_artifacts(run_id, folder)
    return withheld


def _deliver_models(
    source: MlflowClient,
    target: MlflowClient,
    run: Run,
    new_id: str,
    experiment_id: str,
    key: bytes | None,
) -> list[str]:
    """Send a run's models; return the names of those that stay here."""
    withheld = []
    for output in run.outputs.model_outputs if run.outputs else []:
        model = source.get_logged_model(output.model_id)
        if key is None or may_leave(find_folder(model.artifact_location)):
            _deliver_model(target, model, output.step, new_id, experiment_id)
        else:
            withheld.append(f"the packed model {model.name}")
    return withheld


def _deliver_model(
    target: MlflowClient, model: LoggedModel, step: int, run_id: str, experiment_id: str
) -> None:
    """Copy a logged model; what its file says of model and run becomes true there."""
    new = target.create_logged_model(
        experiment_id,
        name=model.name,
        source_run_id=run_id,
        tags=_leave_reserved(model.tags),
        params=model.params,
        model_type=model.model_type,
    )
    folder = find_folder(model.artifact_location)
    described = Model.load(str(folder))
    described.model_id, described.run_id = new.model_id, run_id
    described.artifact_path = new.artifact_location
    with replace_whole(folder / MLMODEL_FILE_NAME) as unfinished:
        described.save(str(unfinished))
    target.log_model_artifacts(new.model_id, str(folder))
    target.finalize_logged_model(new.model_id, "READY")
    target.log_outputs(run_id, [LoggedModelOutput(new.model_id, step)])
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
