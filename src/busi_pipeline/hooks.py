"""What only the session knows about a run: its provenance, its times, its errors in one line."""

import atexit
import logging
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import mlflow
from kedro.framework.hooks import hook_impl
from kedro.io import DataCatalog
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node

from busi_pipeline.datasets.experiment_settings import ExperimentSettingsDataset
from busi_pipeline.datasets.record import flatten, prefix_of
from busi_pipeline.errors import BadInputError, find_bad_input

logger = logging.getLogger(__name__)


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


class ClearErrors:
    """Stops a run that cannot work before it starts, and says what a bad input is in one line."""

    @hook_impl(tryfirst=True)
    def before_pipeline_run(self, pipeline: Pipeline, catalog: DataCatalog) -> None:
        """Raise BadInputError where a stage is run alone before the stage that feeds it."""
        from kedro.framework.project import pipelines

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

    Kedro tells its hooks of exceptions, not of Ctrl-C or a stopped job, and MLflow itself would end
    such a run as FINISHED.
    """
    while mlflow.active_run() is not None:
        mlflow.end_run(status="KILLED")


def _watch_for_interruption() -> None:
    atexit.unregister(end_interrupted_run)
    atexit.register(end_interrupted_run)  # after MLflow's own, so it runs before
    in_main_thread = threading.current_thread() is threading.main_thread()
    if in_main_thread and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))


class RunProvenance:
    """Writes onto the run kedro-mlflow has opened which code, environment and settings it is of."""

    @hook_impl(trylast=True)
    def before_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline) -> None:
        """Set the tags `git_commit`, `environment`, `experiments`; log each one's settings."""
        if mlflow.active_run() is None:
            return
        _watch_for_interruption()
        experiments = sorted({n.namespace.split(".")[0] for n in pipeline.nodes if n.namespace})
        mlflow.set_tags(
            {
                "git_commit": describe_git_commit(Path(run_params["project_path"])),
                "environment": run_params.get("env") or "local",
                "experiments": ",".join(experiments),
            }
        )
        for name in experiments:
            settings = ExperimentSettingsDataset(name).load()
            mlflow.log_params(dict(flatten(settings, prefix_of(name))))


class StageTimes:
    """Logs how many seconds each stage took, loading and saving included, as `seconds.<stage>`.

    Nodes run one after the other, so all time since the last thing that ended belongs to the node
    at hand. A node's stage is its only tag.
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
        """Book the saving, in which streamed arrays are computed."""
        self._book(node)

    @hook_impl(tryfirst=True)
    def after_pipeline_run(self) -> None:
        """Log the times, in the order in which the stages ran."""
        if mlflow.active_run() is not None:
            mlflow.log_metrics({f"seconds.{name}": s for name, s in self._seconds.items()})
        told = ", ".join(f"{name} {seconds:.1f}" for name, seconds in self._seconds.items())
        logger.info("seconds: %s", told)

    def _book(self, node: Node) -> None:
        now = time.perf_counter()
        self._seconds["+".join(sorted(node.tags)) or node.name] += now - self._last
        self._last = now
