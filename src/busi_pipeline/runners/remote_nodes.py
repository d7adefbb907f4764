"""What a worker does: it opens the project's catalog once, and runs nodes on it."""

import hashlib
import logging
import os
import platform
import socket
import threading
import time
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import mlflow
from distributed import get_worker
from distributed.diagnostics.plugin import WorkerPlugin
from kedro.framework import project
from kedro.framework.context import KedroContext
from kedro.framework.hooks.manager import _create_hook_manager, _NullPluginManager
from kedro.io import CatalogProtocol
from kedro.pipeline.node import Node
from kedro.runner.task import Task
from threadpoolctl import threadpool_limits

from busi_pipeline.config.context import ProjectContext
from busi_pipeline.config.loader import ProjectConfigLoader, Snapshot
from busi_pipeline.datasets.whole_file_system import write_files_whole
from busi_pipeline.errors import BadInputError
from busi_pipeline.run_datasets import RunDatasets

from .clusters import check_threads, hush_dask

# Whose records a worker sends to the run, and shows nowhere else.
LOGGERS = ("busi_pipeline", "kedro", "py.warnings")
# What must be the same where a run begins and where its nodes run.
_PACKAGES = ("kedro", "tensorflow", "keras", "numpy", "pandas", "scikit-learn")
_THREAD_VARIABLES = ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")

_at_work = threading.local()


class Ran(NamedTuple):
    """When a node ran: seconds since 1970."""

    begun: float
    ended: float


class RunOfNodes(NamedTuple):
    """All that a worker needs to know of a run.

    Attributes:
        snapshot: of its configuration.
        package: of the project.
        session: Kedro's id of it.
        tracking: address of the MLflow store; `registry` of the models.
        run_id: of the MLflow run; None where nothing is logged.
        experiments: of the run.
        is_async: whether a node's inputs are loaded at once.
        threads: on which a node computes.
        levels: {logger: level}.
        environment: variables that settle what is computed, and how.
        versions: of what computes; see describe_versions.
    """

    snapshot: Snapshot
    package: str
    session: str | None
    tracking: str
    registry: str
    run_id: str | None
    experiments: tuple[str, ...]
    is_async: bool
    threads: int
    levels: dict[str, int]
    environment: dict[str, str]
    versions: dict[str, str]


@cache
def describe_versions() -> dict[str, str]:
    """Return {what: version} of Python, of what computes, and a hash of the project's own code."""
    code = hashlib.sha256()
    root = Path(__file__).parents[1]
    for path in sorted(root.rglob("*.py")):
        code.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return {
        "Python": platform.python_version(),
        **{package: version(package) for package in _PACKAGES},
        "the project's code": code.hexdigest()[:12],
    }


class RunPlugin(WorkerPlugin):
    """Brings a run to a worker, to one that comes late or is started anew as well."""

    def __init__(self, run: RunOfNodes):
        self._run = run
        self._opened: _OpenRun | None = None

    def setup(self, worker: Any) -> None:
        """Set what must stand before TensorFlow is imported; log to the run alone."""
        project.configure_project(self._run.package)  # sets up logging, too, so it comes first
        os.environ |= self._run.environment
        os.environ |= dict.fromkeys(_THREAD_VARIABLES, str(self._run.threads))
        for name in LOGGERS:
            logging.getLogger(name).propagate = False
            logging.getLogger(name).setLevel(self._run.levels[name])
        logging.captureWarnings(True)
        logging.setLogRecordFactory(_make_record)
        hush_dask()
        # Data goes through the catalog, so nothing of the memory can be written to disk instead.
        memory = worker.memory_manager
        memory.memory_target_fraction = memory.memory_spill_fraction = False
        memory.memory_pause_fraction = False

    def run_node(self, node: Node) -> Ran:
        """Run a node; opens the project first, once a worker."""
        if self._opened is None:
            self._opened = _OpenRun(self._run)
        return self._opened.run_node(node)


def run_node(plugin: str, node: Node) -> Ran:
    """Run a node on the worker that this process is; the plugin of that name has the run."""
    worker = get_worker()
    check_threads(worker.address, worker.state.nthreads)
    own = worker.plugins[plugin]
    assert isinstance(own, RunPlugin)
    return own.run_node(node)


class _OpenRun:
    """The catalog of a run in this process, which must be like the one where the run began.

    Raises BadInputError, one line, where it is not.
    """

    def __init__(self, run: RunOfNodes):
        self._run = run
        _compare(run)
        write_files_whole()
        context = _make_context(run)
        self._catalog: CatalogProtocol = context.catalog
        self._datasets = RunDatasets(self._catalog, run.run_id, run.experiments)
        self._hooks = _create_hook_manager()
        self._hooks.register(self._datasets)

    def run_node(self, node: Node) -> Ran:
        mlflow.set_tracking_uri(self._run.tracking)  # another run may have been here
        mlflow.set_registry_uri(self._run.registry)
        self._datasets.bind([*node.inputs, *node.outputs])
        cv2.setNumThreads(self._run.threads)
        threadpool_limits(self._run.threads)  # of the libraries that are loaded by now
        _at_work.node = node.namespace or node.name
        begun = time.time()
        Task(
            node,
            self._catalog,
            is_async=self._run.is_async,
            hook_manager=self._hooks,
            run_id=self._run.session,
        ).execute()
        _at_work.node = None
        return Ran(begun, time.time())


def _make_record(name: str, *args: Any, **kwargs: Any) -> logging.LogRecord:
    """Make a record that says which node it is of: others log at the same time."""
    record = logging.LogRecord(name, *args, **kwargs)
    node = getattr(_at_work, "node", None)
    if node is not None and name.startswith(LOGGERS[0]):
        record.msg = f"{node}: {record.msg}"
    return record


def _compare(run: RunOfNodes) -> None:
    here = f"the worker on {socket.gethostname()}"
    for what, theirs in run.versions.items():
        own = describe_versions()[what]
        if own != theirs:
            raise BadInputError(
                f"{here} has another version of {what} than the run: {own}, not {theirs}. Install "
                "there what is installed here, and start the worker again."
            )
    if not run.snapshot.project_root.is_dir():
        raise BadInputError(
            f"{here} does not see the project's folder {run.snapshot.project_root}: share it with "
            "that machine, under the same path."
        )


def _make_context(run: RunOfNodes) -> KedroContext:
    return ProjectContext(
        project_path=run.snapshot.project_root,
        config_loader=ProjectConfigLoader.from_snapshot(run.snapshot),
        env=run.snapshot.env,
        package_name=run.package,
        hook_manager=_NullPluginManager(),
    )


def list_environment() -> dict[str, str]:
    """Return the variables that settle what is computed, and how."""
    names = ("KERAS_BACKEND", "TF_USE_LEGACY_KERAS", "BUSI_ALLOW_BACKEND", "MPLBACKEND")
    found = {name: os.environ[name] for name in names if name in os.environ}
    return found | {name: v for name, v in os.environ.items() if name.startswith("TF_")}
