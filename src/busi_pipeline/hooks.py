"""What only the session knows about a run: its settings, its provenance, its times, its errors."""

import atexit
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import mlflow
from kedro.framework import project
from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.io import DataCatalog
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node
from kedro_mlflow.framework.hooks.mlflow_hook import MlflowHook
from kedro_mlflow.io.artifacts import MlflowArtifactDataset
from mlflow.entities import Param, RunTag
from mlflow.tracking import MlflowClient
from mlflow.utils.validation import MAX_PARAM_VAL_LENGTH, MAX_PARAMS_TAGS_PER_BATCH
from pydantic import BaseModel

from busi_pipeline.config.environment import KERAS_STAGES, check_keras
from busi_pipeline.config.experiments import SHARED_GROUPS
from busi_pipeline.config.loader import activate
from busi_pipeline.config.schemas import ModelSettings
from busi_pipeline.datasets.record import flatten, name_keys, prefix_of
from busi_pipeline.errors import BadInputError, find_bad_input
from busi_pipeline.stats.classes import Classes

logger = logging.getLogger(__name__)

_MLFLOW_VARIABLES = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")


def describe_git_commit(project_path: Path) -> str:
    """Return the commit hash of the project, with `-dirty` where tracked files were changed.

    "unknown" where there is no git or no repository: an archive can be run as well.
    """
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=project_path,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip() or "unknown"


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
    def before_pipeline_run(self, pipeline: Pipeline, catalog: DataCatalog) -> None:
        """Raise BadInputError where a stage is run alone before the stage that feeds it.

        Where the pipeline computes with Keras, Keras gets the project's settings here.
        """
        self._check_inputs(pipeline, catalog)
        if any(KERAS_STAGES & node.tags for node in pipeline.nodes):
            check_keras()

    def _check_inputs(self, pipeline: Pipeline, catalog: DataCatalog) -> None:
        pipelines = project.pipelines
        for name in sorted(pipeline.inputs()):
            makers = [key for key, other in pipelines.items() if name in other.all_outputs()]
            needed = not getattr(catalog.get(name), "optional", False)
            if makers and needed and not catalog.exists(name):
                maker = min(makers, key=lambda key: len(pipelines[key].nodes))
                raise BadInputError(
                    f"{name} is not there yet: run `kedro run --pipeline={maker}` first."
                )

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
    for name, value in inputs.items():
        prefix, colon, path = name.partition(":")
        group = path.partition(".")[0]
        if prefix != "params" or not colon or group in ("experiments", *SHARED_GROUPS):
            continue
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


class FlatMlflowHook(MlflowHook):
    """kedro-mlflow's hook; logs settings objects key by key, and from every thread to one run.

    MLflow's active run is one of a thread: where Kedro loads and saves in others (`--async`,
    ThreadRunner), a dataset that asks for it finds none, or opens another. So each dataset that
    has a `run_id` is told the run.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._logged: set[str] = set()
        self._catalog: DataCatalog | None = None

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Point MLflow to the session's store, and leave the environment as it was.

        MLflow writes the store into MLFLOW_TRACKING_URI, from which the next session in this
        process would take it for the user's own.
        """
        before = {name: os.environ.get(name) for name in _MLFLOW_VARIABLES}
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
        """Open the run and tell it to the datasets of the pipeline."""
        self.run_id = None
        self._logged.clear()
        super().before_pipeline_run(run_params, pipeline, catalog)
        self._catalog = catalog
        for name in pipeline.datasets():
            dataset: Any = catalog.get(name)
            if hasattr(dataset, "run_id") and not _is_artifact(dataset):
                dataset.run_id = self.run_id

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
        """Tell an artifact its run; not before, since it would then be loaded from that run."""
        self._set_artifact_run(dataset_name, self.run_id)

    @hook_impl
    def after_dataset_saved(self, dataset_name: str) -> None:
        """Let the artifact be loaded from its file."""
        self._set_artifact_run(dataset_name, None)

    def _set_artifact_run(self, dataset_name: str, run_id: str | None) -> None:
        if self.run_id is None or self._catalog is None:
            return
        dataset: Any = self._catalog.get(dataset_name)
        if _is_artifact(dataset):
            dataset.run_id = run_id


def _is_artifact(dataset: Any) -> bool:
    return type(dataset).__module__ == MlflowArtifactDataset.__module__


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


def list_experiments(pipeline: Pipeline, settings: Iterable[str]) -> list[str]:
    """Return the experiments that have a node in the pipeline: the first part of a namespace."""
    first = {node.namespace.split(".")[0] for node in pipeline.nodes if node.namespace}
    return sorted(first & set(settings))


class StageTimes:
    """Logs how many seconds each stage took, loading and saving included, as `seconds.<stage>`.

    Nodes run one after the other, so all time since the last thing that ended belongs to the node
    at hand. A node's stage is its only tag. Where nodes run at once (ThreadRunner), the times are
    shares of the whole, by which node ended next.
    """

    def __init__(self) -> None:
        self._seconds: dict[str, float] = defaultdict(float)
        self._last = 0.0

    @hook_impl(trylast=True)
    def before_pipeline_run(self) -> None:
        """Start the clock."""
        self._seconds.clear()
        self._last = time.perf_counter()

    @hook_impl
    def after_node_run(self, node: Node) -> None:
        """Book the node's inputs and its work."""
        self._book(node)

    @hook_impl
    def after_dataset_saved(self, node: Node) -> None:
        """Book the saving."""
        self._book(node)

    @hook_impl(tryfirst=True)
    def after_pipeline_run(self) -> None:
        """Log the times, in the order in which the stages ran."""
        if mlflow.active_run() is not None:
            mlflow.log_metrics({f"seconds.{name}": s for name, s in self._seconds.items()})
        times = ", ".join(f"{name} {seconds:.1f}" for name, seconds in self._seconds.items())
        logger.info("seconds: %s", times)

    def _book(self, node: Node) -> None:
        now = time.perf_counter()
        self._seconds["+".join(sorted(node.tags)) or node.name] += now - self._last
        self._last = now


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
        record = next(v for name, v in outputs.items() if name.endswith(".fold_record"))
        if record["tags"]["training_cached"] == "no":
            self._spent.append(record["metrics"]["seconds"]["fitting"])
        if self._left:
            mean = sum(self._spent) / len(self._spent) if self._spent else 0.0
            left = f", about {mean * self._left / 60:.0f} min" if self._spent else ""
            logger.info("%s done; %d folds left%s", node.namespace, self._left, left)


def _trains_fold(node: Node) -> bool:
    return node.name.endswith(".train_fold")
