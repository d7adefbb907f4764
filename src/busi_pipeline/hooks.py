"""What only the session knows about a run: its settings, its provenance, its times, its errors."""

import atexit
import logging
import os
import signal
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import mlflow
from kedro.config import MissingConfigException
from kedro.framework import project
from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.io import DataCatalog, DatasetError
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node
from kedro_mlflow.framework.hooks.mlflow_hook import MlflowHook
from mlflow.entities import Param, RunTag
from mlflow.tracking import MlflowClient
from mlflow.utils.validation import MAX_PARAM_VAL_LENGTH, MAX_PARAMS_TAGS_PER_BATCH
from pydantic import BaseModel

from busi_pipeline.config.environment import KERAS_STAGES, check_keras
from busi_pipeline.config.experiments import SHARED_GROUPS
from busi_pipeline.config.loader import activate, active_loader
from busi_pipeline.config.schemas import ModelSettings
from busi_pipeline.datasets.record import flatten, name_keys, prefix_of
from busi_pipeline.datasets.run_provenance import describe_git_commit
from busi_pipeline.errors import BadInputError, find_bad_input
from busi_pipeline.request import check_images, check_inputs, check_weights
from busi_pipeline.run_datasets import RESULTS, RunDatasets, list_experiments
from busi_pipeline.run_page import describe_command, name_run
from busi_pipeline.stats.classes import Classes
from busi_pipeline.tracking import liveness
from busi_pipeline.tracking.local_store import (
    ARTIFACTS,
    find_local_store,
    hold_store,
    repair_locations,
)
from busi_pipeline.tracking.server import (
    find_database_problem,
    find_problem,
    is_server,
    name_store,
    refuse_credentials,
)

logger = logging.getLogger(__name__)

# Seconds of a stage, from which on it has a line in the log.
_WORTH_A_LINE = 1.0
_MLFLOW_VARIABLES = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")


class ActiveSettings:
    """Ends what the context of a session begins: its parameters are those of the pipelines."""

    @hook_impl(trylast=True)
    def after_pipeline_run(self) -> None:
        """Forget the session: it has one run."""
        activate(None)

    @hook_impl(tryfirst=True)
    def on_pipeline_error(self) -> None:
        """Forget the session."""
        activate(None)


class ClearErrors:
    """Stops a run that cannot work before it starts, and says what a bad input is in one line."""

    @hook_impl(tryfirst=True)
    def before_pipeline_run(
        self, run_params: Mapping[str, Any], pipeline: Pipeline, catalog: DataCatalog
    ) -> None:
        """Raise BadInputError where what the run takes is not there.

        Where the pipeline computes with Keras, Keras gets the project's settings here.
        """
        try:
            for name in pipeline.datasets():
                catalog.get(name)
        except DatasetError as error:
            raise find_bad_input(error) or active_loader().describe_entry(error) from error
        if not run_params.get("only_missing_outputs"):  # nodes left out want nothing
            check_inputs(pipeline, catalog, project.pipelines, run_params.get("env"))
            check_images(pipeline, catalog)
            check_weights(pipeline, catalog)
        if any(KERAS_STAGES & node.tags for node in pipeline.nodes):
            check_keras()

    @hook_impl(trylast=True)
    def on_pipeline_error(self, error: Exception) -> None:
        """Raise what is wrong with the input in place of Kedro's wrapping around it."""
        bad_input = find_bad_input(error)
        if bad_input is not None and bad_input is not error:
            raise bad_input


def end_interrupted_run() -> None:
    """End a run that is still open when the process ends as KILLED.

    Kedro calls its hooks for exceptions, not for Ctrl-C or a stopped job, and MLflow itself would
    end such a run as FINISHED.
    """
    while mlflow.active_run() is not None:
        mlflow.end_run(status="KILLED")


def _watch_for_interruption() -> None:
    atexit.unregister(end_interrupted_run)
    atexit.register(end_interrupted_run)  # after MLflow's own, so it runs before
    in_main_thread = threading.current_thread() is threading.main_thread()
    if in_main_thread and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))


def flatten_parameters(inputs: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (key, value) of the parameters among a node's inputs, as MLflow is to show them.

    Settings give one key for each of their leaves, such as `split.method`; a list is separated by
    commas; of `classes` also `positive_classes` and `lesion_free_classes` are given. Left out are
    the settings of experiments and the shared values behind them, which RunProvenance logs
    complete, and sentences about the data set.
    """
    for name in inputs:
        prefix, colon, path = name.partition(":")
        group = path.partition(".")[0]
        if prefix != "params" or not colon or group in ("experiments", *SHARED_GROUPS):
            continue
        value = inputs[name]
        if isinstance(value, Classes):
            yield path, _format(value.names)
            yield "positive_classes", _format(value.positive)
            yield "lesion_free_classes", _format(value.lesion_free)
        elif isinstance(value, BaseModel):
            left_out = {"citation", "facts", "limitations"} if group == "dataset" else set()
            leaves = flatten(value.model_dump(exclude=left_out, exclude_none=True), path)
            yield from ((key, _format(leaf)) for key, leaf in leaves)
        elif isinstance(value, Mapping):
            yield from ((key, _format(leaf)) for key, leaf in flatten(value, path))
        else:
            yield path, _format(value)


def _format(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def find_artifacts(settings: Mapping[str, Any]) -> None:
    """Let the local store find its artifacts after the project was copied or moved; say so.

    Args:
        settings: of mlflow.yml. A server knows its own locations, so nothing is done.
    """
    database = find_local_store(_dig(settings, "server", "mlflow_tracking_uri") or "")
    path = ("tracking", "experiment", "create_experiment_kwargs", "artifact_location")
    location = _dig(settings, *path)
    if database is None or location != (database.parent / ARTIFACTS).resolve().as_uri():
        return
    folder = database.parent / ARTIFACTS
    repair = repair_locations(database, folder)
    if repair.moved_from:
        logger.info(
            "MLflow looks for the artifacts of %d runs in %s, no longer in %s",
            *(repair.runs, folder, ", ".join(repair.moved_from)),
        )
    if repair.is_missing:
        logger.warning(
            "%s has runs, but their artifacts are not there: copy the folder %s beside it",
            *(database, ARTIFACTS),
        )


@contextmanager
def _prepare_store(settings: Mapping[str, Any]) -> Iterator[None]:
    """See that runs can be logged: the local store is made if need be, or the server answers.

    Raises BadInputError, one line, where they cannot.
    """
    uri = _dig(settings, "server", "mlflow_tracking_uri") or ""
    for address in (uri, _dig(settings, "server", "mlflow_registry_uri") or ""):
        refuse_credentials(address)
    database = find_local_store(uri)
    if is_server(uri) and (problem := find_problem(uri)):
        raise BadInputError(
            f"the MLflow server {uri} cannot be reached ({problem}): start it, or set "
            "MLFLOW_TRACKING_URI to another one."
        )
    if database is None:
        if uri and not is_server(uri) and (problem := find_database_problem(uri)):
            raise BadInputError(
                f"the database {name_store(uri)} for MLflow cannot be used ({problem}): start it, "
                "or set MLFLOW_TRACKING_URI to another one."
            )
        yield
        return
    with hold_store(database):
        find_artifacts(settings)
        yield


def _dig(settings: Any, *keys: str) -> Any:
    """Return a nested value; None where a part of the way is missing or null."""
    for key in keys:
        settings = settings.get(key) if isinstance(settings, Mapping) else None
    return settings


class FlatMlflowHook(MlflowHook):
    """kedro-mlflow's hook; logs settings objects key by key, and from every thread to one run.

    See run_datasets for the threads.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._logged: set[str] = set()
        self._datasets: RunDatasets | None = None
        self._run_lock: liveness.RunLock | None = None

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Point MLflow to the session's store, and leave the environment as it was.

        MLflow writes the store into MLFLOW_TRACKING_URI, from which the next session in this
        process would take it for the user's own.
        """
        before = {name: os.environ.get(name) for name in _MLFLOW_VARIABLES}
        settings: Mapping[str, Any] = {}  # kedro-mlflow has defaults
        with suppress(MissingConfigException):
            settings = context.config_loader["mlflow"]
        with _prepare_store(settings):
            super().after_context_created(context)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    @hook_impl
    def before_pipeline_run(
        self, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog
    ) -> None:
        """Open the run, named after pipeline and data, and tell it to the pipeline's datasets."""
        self.run_id = None
        self._logged.clear()
        parameters: Any = catalog.get("parameters")
        settings = parameters.load() if parameters is not None else None
        if settings is not None and self.mlflow_config.tracking.run.name is None:
            self.mlflow_config.tracking.run.name = name_run(run_params, settings)
        # Where things lie on this machine, and how an object is written, are no facts of the run.
        left_out = ("project_path", "runner", "runtime_params", "extra_params", "conf_source")
        known = {key: value for key, value in run_params.items() if key not in left_out}
        with self._lock_run():
            super().before_pipeline_run(known, pipeline, catalog)
        if self.run_id is None:
            self._datasets = None
            return
        mlflow.set_tag("kedro_command", describe_command(run_params))
        info = mlflow.active_run().info
        logger.info("MLflow run %s, %s", info.run_name, info.run_id)
        experiments = list_experiments(pipeline, settings["experiments"] if settings else [])
        self._datasets = RunDatasets(catalog, self.run_id, experiments)
        self._datasets.bind(pipeline.datasets())

    @contextmanager
    def _lock_run(self) -> Iterator[None]:
        """Let a run that is opened meanwhile be known as one of this process; end those of none."""
        database = find_local_store(self.mlflow_config.server.mlflow_tracking_uri)
        if database is None or self._already_active_mlflow:
            yield
            return
        folder = database.resolve().parent / liveness.FOLDER
        dead = liveness.close_dead_runs(
            self.mlflow_config.server._mlflow_client,
            self.mlflow_config.tracking.experiment._experiment.experiment_id,
            folder,
        )
        if dead:
            logger.warning(
                "%d MLflow runs were left RUNNING by a process that is gone; they are KILLED now",
                len(dead),
            )
        self._run_lock = liveness.RunLock(folder)
        with self._run_lock.mark_runs():
            yield

    def _release_run(self) -> None:
        if self._run_lock is not None:
            self._run_lock.release()
            self._run_lock = None

    @hook_impl
    def after_pipeline_run(
        self, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog
    ) -> None:
        """End the run."""
        super().after_pipeline_run(run_params, pipeline, catalog)
        self._release_run()

    @hook_impl
    def on_pipeline_error(
        self,
        error: Exception,
        run_params: dict[str, Any],
        pipeline: Pipeline,
        catalog: DataCatalog,
    ) -> None:
        """End the run as failed."""
        super().on_pipeline_error(error, run_params, pipeline, catalog)
        self._release_run()

    @hook_impl
    def before_node_run(
        self, node: Node, catalog: DataCatalog, inputs: dict[str, Any], is_async: bool
    ) -> None:
        """Log the node's parameters that were not logged yet."""
        if self.run_id is None:
            return
        with self._lock:
            new = {k: v for k, v in flatten_parameters(inputs) if k not in self._logged}
            self._logged |= new.keys()
        log_parameters(self.run_id, new)

    @hook_impl
    def before_dataset_saved(self, dataset_name: str) -> None:
        """Let an artifact be logged."""
        if self._datasets is not None:
            self._datasets.before_dataset_saved(dataset_name)

    @hook_impl
    def after_dataset_saved(self, dataset_name: str) -> None:
        """Let the artifact be loaded from its file."""
        if self._datasets is not None:
            self._datasets.after_dataset_saved(dataset_name)


def log_parameters(run_id: str, values: Mapping[str, str]) -> None:
    """Log parameters to a run; what is too long for a parameter becomes a tag."""
    named = name_keys(values.items()).items()
    short = [Param(k, v) for k, v in named if len(v) <= MAX_PARAM_VAL_LENGTH]
    long = [RunTag(k, v) for k, v in named if len(v) > MAX_PARAM_VAL_LENGTH]
    client = MlflowClient()
    for start in range(0, len(short), MAX_PARAMS_TAGS_PER_BATCH):
        client.log_batch(run_id, params=short[start : start + MAX_PARAMS_TAGS_PER_BATCH])
    if long:
        client.log_batch(run_id, tags=long)


class RunProvenance:
    """Writes onto the MLflow run which code, environment and settings it is of."""

    @hook_impl(trylast=True)
    def before_pipeline_run(
        self, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog
    ) -> None:
        """Set the tags `git_commit`, `environment`, `experiments`; log each one's settings."""
        run = mlflow.active_run()
        if run is None:
            return
        _watch_for_interruption()
        settings = self._load_experiments(catalog)
        experiments = list_experiments(pipeline, settings)
        mlflow.set_tags(
            {
                "git_commit": describe_git_commit(Path(run_params["project_path"])),
                "environment": run_params.get("env") or "local",
                "experiments": ",".join(experiments),
            }
        )
        for name in experiments:
            leaves = flatten(
                settings[name].model_dump(exclude_none=True), prefix_of(name, run.info.run_id)
            )
            log_parameters(run.info.run_id, {key: _format(value) for key, value in leaves})

    def _load_experiments(self, catalog: DataCatalog) -> dict[str, ModelSettings]:
        dataset = catalog.get("parameters")
        return dataset.load()["experiments"] if dataset is not None else {}


class StageTimes:
    """Says how many seconds each stage takes, loading and saving included, and logs them.

    Nodes run one after the other, so all time since the last thing that ended belongs to the node
    at hand. A node's stage is its only tag. Where nodes run at once (ThreadRunner), the times are
    shares of the whole, by which node ended next. A line of the log is a stage, not a node: of
    Kedro's four lines a node, no one reads the fourth hundred.
    """

    def __init__(self) -> None:
        self._seconds: dict[str, float] = defaultdict(float)
        self._last = self._spent = 0.0
        self._stage, self._done, self._all = "", 0, 0

    @hook_impl(trylast=True)
    def before_pipeline_run(self, pipeline: Pipeline) -> None:
        """Start the clock."""
        self._seconds.clear()
        self._stage, self._spent, self._done, self._all = "", 0.0, 0, len(pipeline.nodes)
        self._last = time.perf_counter()

    @hook_impl
    def before_node_run(self, node: Node) -> None:
        """Say what the stage before took, where another one begins."""
        if _name_stage(node) != self._stage:
            self._say()
            self._stage = _name_stage(node)

    @hook_impl
    def after_node_run(self, node: Node) -> None:
        """Book the node's inputs and its work."""
        self._book(node)
        self._done += 1

    @hook_impl
    def after_dataset_saved(self, node: Node) -> None:
        """Book the saving."""
        self._book(node)

    @hook_impl(tryfirst=True)
    def after_pipeline_run(self) -> None:
        """Log the times, in the order in which the stages ran."""
        self._say()
        run, total = mlflow.active_run(), sum(self._seconds.values())
        if run is not None:
            mlflow.log_metric("run_seconds", total)
            mlflow.log_dict(dict(self._seconds), f"{RESULTS}/seconds.json")
        times = ", ".join(f"{name} {seconds:.1f}" for name, seconds in self._seconds.items())
        logger.info("done in %.1f s: %s", total, times)

    def _book(self, node: Node) -> None:
        now = time.perf_counter()
        self._seconds[_name_stage(node)] += now - self._last
        self._spent += now - self._last
        self._last = now

    def _say(self) -> None:
        if self._done and self._spent >= _WORTH_A_LINE:
            logger.info(
                "%s: %.1f s; %d of %d steps done",
                *(self._stage, self._spent, self._done, self._all),
            )
        self._spent = 0.0


def _name_stage(node: Node) -> str:
    return "+".join(sorted(node.tags)) or node.name


class ReportPlace:
    """Says at the end of a run where the page is that it wrote."""

    @hook_impl(trylast=True)
    def after_pipeline_run(self, pipeline: Pipeline, catalog: DataCatalog) -> None:
        """Log the path of the report, absolute, for a browser."""
        if "report" in pipeline.all_outputs():
            report: Any = catalog.get("report")
            logger.info("report: %s", Path(report._describe()["filepath"]).resolve())


class FoldProgress:
    """Says after each fold of a cross-validation how many are left, and how long they may take."""

    def __init__(self) -> None:
        self._left = 0
        self._spent: list[float] = []

    @hook_impl
    def before_pipeline_run(self, pipeline: Pipeline) -> None:
        """Count the folds."""
        self._left, self._spent = sum(map(_trains_fold, pipeline.nodes)), []

    @hook_impl
    def after_node_run(self, node: Node, outputs: dict[str, Any]) -> None:
        """Log what is left; a fold from the cache says nothing of the others' time."""
        if not _trains_fold(node):
            return
        self._left -= 1
        record = next(outputs[name] for name in outputs if name.endswith(".fold_record"))
        if record["tags"]["training_cached"] == "no":
            self._spent.append(record["metrics"]["seconds"]["fitting"])
        if self._left:
            mean = sum(self._spent) / len(self._spent) if self._spent else 0.0
            left = f", about {mean * self._left / 60:.0f} min" if self._spent else ""
            logger.info("%s done; %d folds left%s", node.namespace, self._left, left)


def _trains_fold(node: Node) -> bool:
    return node.name.endswith(".train_fold")
