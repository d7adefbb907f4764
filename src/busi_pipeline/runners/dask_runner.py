"""Kedro's nodes as tasks of Dask, each in a process of its own, on one machine or many."""

import contextlib
import heapq
import logging
import time
import uuid
from collections.abc import Generator, Iterable, Iterator, Mapping
from concurrent.futures import Executor
from itertools import count
from typing import Any

import mlflow
from distributed import Client, Future, KilledWorker, wait
from kedro.framework import project
from kedro.framework.hooks.manager import _NullPluginManager
from kedro.io import CatalogProtocol, MemoryDataset
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node
from kedro.runner import AbstractRunner
from pluggy import PluginManager
from tqdm.contrib.logging import logging_redirect_tqdm

from busi_pipeline.config.loader import active_loader
from busi_pipeline.config.schemas import DaskSettings
from busi_pipeline.errors import BadInputError
from busi_pipeline.progress import track
from busi_pipeline.run_datasets import list_experiments

from .clusters import Workers, open_workers
from .remote_nodes import (
    LOGGERS,
    Ran,
    RunOfNodes,
    RunPlugin,
    describe_versions,
    list_environment,
    run_node,
)

logger = logging.getLogger(__name__)

_SECONDS_TO_LOOK = 2.0  # at the workers, while nothing is done


class DaskRunner(AbstractRunner):
    """Runs each node on a worker of Dask as soon as its inputs are there.

    Data goes through the catalog: a worker loads a node's inputs and saves its outputs, and Dask
    carries the node alone. Where a worker is lost, Dask gives its node to another one. Parameters,
    progress and times are logged by the process that began the run; datasets log what they save to
    its MLflow run from where they are.

    Hooks of nodes are called here, when a node is done. They are given mappings that load a dataset
    when it is asked for. Hooks of datasets are called on the worker, those of this project alone.
    """

    has_workers = True

    @property
    def _logger(self) -> logging.Logger:
        return logging.getLogger("kedro.runner")  # Kedro's own lines, which are not wanted here

    def _get_executor(self, max_workers: int) -> Executor | None:
        return None

    def _run(
        self,
        pipeline: Pipeline,
        catalog: CatalogProtocol,
        hook_manager: PluginManager | None = None,
        run_id: str | None = None,
    ) -> None:
        """Run the nodes; raises BadInputError, one line, where they cannot be run so."""
        parameters: Any = catalog.load("parameters")
        settings: DaskSettings = parameters["dask"]
        refuse_memory_datasets(pipeline, catalog)
        run = self._describe(settings, pipeline, parameters["experiments"], run_id)
        done: set[Node] = set()
        with open_workers(settings) as workers:
            _announce(workers, settings)
            ran: list[Ran] = []
            try:
                with (
                    _bring(workers.client, run) as plugin,
                    logging_redirect_tqdm(),
                    contextlib.closing(_finish(workers, pipeline, plugin)) as finished,
                ):
                    total = len(pipeline.nodes)
                    for node, how in track(finished, "the pipeline", "step", total):
                        ran.append(how)
                        done.add(node)
                        _call_hooks(hook_manager or _NullPluginManager(), node, catalog, run_id)
            except Exception:
                self._suggest_resume_scenario(pipeline, done, catalog)
                raise
            _summarise(ran, workers.size)

    def _describe(
        self,
        settings: DaskSettings,
        pipeline: Pipeline,
        experiments: Mapping[str, Any],
        session: str | None,
    ) -> RunOfNodes:
        active = mlflow.active_run()
        return RunOfNodes(
            snapshot=active_loader().take_snapshot(),
            package=str(project.PACKAGE_NAME),
            session=session,
            tracking=mlflow.get_tracking_uri(),
            registry=mlflow.get_registry_uri(),
            run_id=active.info.run_id if active else None,
            experiments=tuple(list_experiments(pipeline, experiments)),
            is_async=self._is_async,
            threads=settings.threads,
            levels={name: logging.getLogger(name).getEffectiveLevel() for name in LOGGERS},
            environment=list_environment(),
            versions=describe_versions(),
        )


def refuse_memory_datasets(pipeline: Pipeline, catalog: CatalogProtocol) -> None:
    """Raise BadInputError for what one node hands another without a catalog entry."""
    handed = {name for node in pipeline.nodes for name in node.inputs} & pipeline.all_outputs()
    for name in sorted(handed):
        if isinstance(catalog.get(name), MemoryDataset):
            raise BadInputError(
                f"{name} is kept in memory, which nodes in other processes do not share: give it "
                "an entry in the catalog, or run with --runner=SequentialRunner."
            )


def _announce(workers: Workers, settings: DaskSettings) -> None:
    link = workers.client.dashboard_link
    if settings.address is not None:
        where = f" of {settings.address}"
    else:
        where = f", each with {settings.memory:g} GB and {_count(settings.threads, 'core')}"
    logger.info(
        "Dask: %s%s%s",
        *(_count(workers.size, "worker"), where),
        f"; dashboard {link}" if link and settings.dashboard is not None else "",
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


@contextlib.contextmanager
def _bring(client: Client, run: RunOfNodes) -> Iterator[str]:
    """Bring a run to the workers, and what they log to this process; take it away at the end."""
    name = f"run-{uuid.uuid4().hex}"
    client.register_plugin(RunPlugin(run), name)
    for own in LOGGERS:
        client.forward_logging(own)
    try:
        yield name
    finally:
        for own in LOGGERS:
            client.unforward_logging(own)
        client.unregister_worker_plugin(name)


def _warn_of_lost_worker(what: Any, nodes: Mapping[str, Node]) -> None:
    """Say which nodes a lost worker had; `what` is an event of Dask's scheduler, of any kind."""
    if not isinstance(what, dict) or what.get("action") != "remove-worker" or what["expected"]:
        return
    lost = [nodes[key].name for key in what["processing-tasks"] if key in nodes]
    if lost:
        logger.warning(
            "the worker %s is lost, and another one gets what it had: %s",
            *(what["worker"], ", ".join(lost)),
        )


def _finish(
    workers: Workers, pipeline: Pipeline, plugin: str
) -> Generator[tuple[Node, Ran], None, None]:
    """Submit each node when those before it are done; yield it when it is done itself.

    Dask chooses the worker. What has most steps after it comes first. No more nodes are submitted
    than there are workers: where a worker is lost, what only waited for it would count as begun.
    """
    client = workers.client
    before = {node: set(own) for node, own in pipeline.node_dependencies.items()}
    depths, order = measure_depths(pipeline), count()
    ready: list[tuple[int, int, Node]] = []
    running: dict[Future, Node] = {}
    nodes: dict[str, Node] = {}

    def make_ready() -> None:
        for node in [node for node, own in before.items() if not own]:
            del before[node]
            heapq.heappush(ready, (-depths[node], next(order), node))

    client.subscribe_topic("all", lambda event: _warn_of_lost_worker(event[1], nodes))
    make_ready()
    try:
        while ready or running:
            for _ in range(min(len(ready), workers.count() - len(running))):
                node = heapq.heappop(ready)[-1]
                # The first part of a key names the bar in the dashboard.
                key = f"{node.short_name}-{uuid.uuid4().hex}"
                nodes[key] = node
                running[client.submit(run_node, plugin, node, key=key, pure=False)] = node
            for future in _wait_for_one(running):
                node = running.pop(future)
                how = _get_result(future, node)
                future.release()
                for own in before.values():
                    own.discard(node)
                make_ready()
                yield node, how
    finally:
        client.unsubscribe_topic("all")
        client.cancel(list(running), force=True)


def _wait_for_one(running: Iterable[Future]) -> Iterable[Future]:
    """Return those that are done as soon as there are any; none after a while."""
    futures = list(running)
    if not futures:
        time.sleep(_SECONDS_TO_LOOK)
        return []
    try:
        done: set[Future] = wait(futures, _SECONDS_TO_LOOK, return_when="FIRST_COMPLETED").done
        return done
    except TimeoutError:
        return []


def _get_result(future: Future, node: Node) -> Ran:
    try:
        result: Ran = future.result()
        return result
    except KilledWorker as error:
        raise BadInputError(
            f"{node.name} lost its worker {error.allowed_failures + 1} times, last on "
            f"{error.last_worker.address}: most often its memory ran out. Give a worker more "
            "(`dask.memory`; of one that is there, `dask worker --memory-limit`), or start fewer; "
            "`dask.attempts` says how often a step is begun."
        ) from error


def measure_depths(pipeline: Pipeline) -> dict[Node, int]:
    """Return {node: how many steps follow it at most}."""
    depths = dict.fromkeys(pipeline.nodes, 0)
    for node in reversed(pipeline.nodes):
        for own in pipeline.node_dependencies[node]:
            depths[own] = max(depths[own], depths[node] + 1)
    return depths


def _call_hooks(
    hooks: PluginManager | _NullPluginManager,
    node: Node,
    catalog: CatalogProtocol,
    run_id: str | None,
) -> None:
    inputs, outputs = _Saved(catalog, node.inputs), _Saved(catalog, node.outputs)
    known = {"node": node, "catalog": catalog, "inputs": inputs, "is_async": False}
    hooks.hook.before_node_run(**known, run_id=run_id)
    hooks.hook.after_node_run(**known, outputs=outputs, run_id=run_id)


class _Saved(Mapping[str, Any]):
    """Datasets by name, loaded when they are asked for."""

    def __init__(self, catalog: CatalogProtocol, names: list[str]):
        self._catalog, self._names = catalog, names

    def __getitem__(self, name: str) -> Any:
        if name not in self._names:
            raise KeyError(name)
        return self._catalog.load(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _summarise(ran: list[Ran], workers: int) -> None:
    """Say how much of the workers' time was spent on nodes."""
    if not ran:
        return
    wall = max(own.ended for own in ran) - min(own.begun for own in ran)
    spent = sum(own.ended - own.begun for own in ran)
    logger.info(
        "Dask: %s in %.1f s on %s, which had a step %.0f %% of the time",
        *(_count(len(ran), "step"), wall, _count(workers, "worker")),
        100 * spent / (wall * workers) if wall else 100.0,
    )
