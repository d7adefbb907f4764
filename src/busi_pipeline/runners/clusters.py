"""Workers to run nodes on: on this machine, of a cluster's queue, of a scheduler that is there."""

import contextlib
import logging
import time
from collections.abc import Iterator
from typing import Any

import dask
from dask.system import CPU_COUNT
from distributed import Client, LocalCluster, Semaphore
from distributed.system import MEMORY_LIMIT

from busi_pipeline.config.schemas import DaskSettings, JobQueueSettings
from busi_pipeline.errors import BadInputError

logger = logging.getLogger(__name__)

_SYSTEMS = {
    "slurm": "SLURMCluster",
    "pbs": "PBSCluster",
    "sge": "SGECluster",
    "lsf": "LSFCluster",
    "oar": "OARCluster",
    "htcondor": "HTCondorCluster",
    "moab": "MoabCluster",
}
_SECONDS_TO_CONNECT = 20
# Longer than Dask keeps the claim of a run that was killed (distributed.scheduler.locks).
_SECONDS_TO_CLAIM = 45
_CLAIM = "a run of busi_pipeline"
# How long no worker may be there until that is said, and said again.
_SECONDS_ALONE, _SECONDS_UNTIL_REPEATED = 60.0, 600.0
_GIGABYTE = 10**9
# Data goes through the catalog, so a worker's memory is what its node computes with: nothing of it
# can be written to disk instead.
_DASK = {
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.profile.enabled": False,
    # A node may start processes of its own.
    "distributed.worker.daemon": False,
}


class Workers:
    """The workers of a run.

    Attributes:
        client: of their scheduler.
        size: how many there are to be.
    """

    def __init__(self, client: Client, size: int, missing: str):
        """Take what to say where none is there for a while."""
        self.client, self.size = client, size
        self._missing = missing
        self._alone_since: float | None = None
        self._silent = _SECONDS_ALONE

    def count(self) -> int:
        """Return how many workers there are now; warn where there was none for a while."""
        count = len(_ask_for_workers(self.client))
        now = time.monotonic()
        if count:
            self._alone_since, self._silent = None, _SECONDS_ALONE
        elif self._alone_since is None:
            self._alone_since = now
        elif now - self._alone_since > self._silent:
            logger.warning("there is no worker, and the run waits: %s", self._missing)
            self._silent = now - self._alone_since + _SECONDS_UNTIL_REPEATED
        return count


def count_workers(settings: DaskSettings) -> int:
    """Return how many workers this machine gets: as many as cores and memory allow by default."""
    if settings.workers is not None:
        return settings.workers
    by_memory = int(MEMORY_LIMIT // (settings.memory * _GIGABYTE))
    return max(1, min(CPU_COUNT // settings.threads, by_memory))


@contextlib.contextmanager
def open_workers(settings: DaskSettings) -> Iterator[Workers]:
    """Give the workers that the settings name, and let go of those that were started.

    Raises BadInputError, one line, where a scheduler does not answer, or a queue cannot be asked.
    """
    hush_dask()
    failures = {"distributed.scheduler.allowed-failures": settings.attempts - 1}
    with contextlib.ExitStack() as opened, dask.config.set(_DASK | failures):
        if settings.address is not None:
            client = opened.enter_context(_claim(settings.address))
            count = len(_ask_for_workers(client))
            missing = f"start {_start_at(settings.address)} on each machine."
        elif settings.jobqueue is not None:
            cluster = opened.enter_context(_start_jobs(settings, settings.jobqueue))
            client, count = opened.enter_context(Client(cluster)), settings.jobqueue.jobs
            missing = (
                f"its jobs wait in {settings.jobqueue.system}, or end at once. Look into the "
                "queue, and at what the jobs printed."
            )
        else:
            count = count_workers(settings)
            dashboard = settings.dashboard
            cluster = opened.enter_context(
                LocalCluster(
                    n_workers=count,
                    threads_per_worker=1,
                    memory_limit=int(settings.memory * _GIGABYTE),
                    dashboard_address=None if dashboard is None else f"127.0.0.1:{dashboard}",
                )
            )
            client = opened.enter_context(Client(cluster))
            missing = "those of this machine do not come up again; stop it and look at the memory."
        yield Workers(client, count, missing)


def hush_dask() -> None:
    """Let Dask log errors alone, unless Kedro's own lines are wanted, too (`--verbose`).

    What a node raises comes back to the run, so the worker need not log it, too.
    """
    if not logging.getLogger("kedro").isEnabledFor(logging.INFO):
        logging.getLogger("distributed").setLevel(logging.ERROR)
        logging.getLogger("distributed.worker").setLevel(logging.CRITICAL)


@contextlib.contextmanager
def _claim(address: str) -> Iterator[Client]:
    """Give a client of a scheduler that no other run uses, whose workers begin anew.

    They have the threads, the variables and the code of this run then, and no step of a run that
    was killed. A run that does not end well leaves them none of its own steps.
    """
    with _connect(address) as client:
        _check_workers(client, address)
        claim = Semaphore(name=_CLAIM, scheduler_rpc=client.scheduler, loop=client.loop)
        if not claim.acquire(timeout=_SECONDS_TO_CLAIM):
            raise BadInputError(
                f"dask.address: another run uses {address}: wait until it is done, or start "
                "another scheduler."
            )
        try:
            _restart_workers(client)
            yield client
        except BaseException:
            _restart_workers(client)
            raise
        finally:
            claim.release()


def _connect(address: str) -> Client:
    try:
        return Client(address, timeout=_SECONDS_TO_CONNECT)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise BadInputError(
            f"dask.address: no scheduler answers at {address} ({reason}): start `dask scheduler` "
            "there, or set it to null, which starts workers on this machine."
        ) from None


def _start_at(address: str) -> str:
    return f"`dask worker {address} --nthreads 1`"


def _ask_for_workers(client: Client) -> dict[str, Any]:
    workers: dict[str, Any] = client.scheduler_info(n_workers=-1)["workers"]
    return workers


def _restart_workers(client: Client) -> None:
    found = client.restart_workers(list(_ask_for_workers(client)), raise_for_error=False)
    for name, state in found.items():
        if state == "timed out":
            logger.warning("the worker %s did not begin anew in time", name)


def _check_workers(client: Client, address: str) -> None:
    """Raise BadInputError where the workers of a scheduler cannot run nodes."""
    workers, start = _ask_for_workers(client), _start_at(address)
    if not workers:
        raise BadInputError(
            f"dask.address: {address} has no worker: start {start} on each machine."
        )
    for name, worker in workers.items():
        check_threads(name, worker["nthreads"], start)
        if worker["nanny"] is None:
            raise BadInputError(
                f"dask.address: nobody would start the worker {name} again: start it by {start}, "
                "without --no-nanny."
            )


def check_threads(name: str, threads: int, start: str = "`dask worker --nthreads 1`") -> None:
    """Raise BadInputError for a worker that would run several nodes in one process."""
    if threads != 1:
        raise BadInputError(
            f"dask.address: the worker {name} has {threads} threads, so it would run as many nodes "
            f"in one process: start it by {start}. `dask.threads` says on how many cores a node "
            "computes."
        )


def _start_jobs(settings: DaskSettings, queue: JobQueueSettings) -> Any:
    """Return a cluster whose jobs are in the queue; in place of one that ends another is begun."""
    try:
        import dask_jobqueue
    except ImportError:
        raise BadInputError(
            "dask.jobqueue needs dask-jobqueue: `pip install 'busi_pipeline[dask]'`."
        ) from None
    dashboard = settings.dashboard
    own = dict(queue.options)
    options: dict[str, Any] = {
        "cores": settings.threads,
        "processes": 1,
        "memory": f"{settings.memory} GB",
        # The last one counts: a worker runs one node at a time, on as many cores as it asks for.
        "worker_extra_args": [*own.pop("worker_extra_args", ()), "--nthreads", "1"],
        "scheduler_options": {"dashboard_address": None if dashboard is None else f":{dashboard}"},
    }
    cluster = None
    try:
        cluster = getattr(dask_jobqueue, _SYSTEMS[queue.system])(**options | own)
        # Of what the queue says to the first job; of the others Dask would log a traceback.
        cluster.worker_spec.update(cluster.new_worker_spec())
        cluster.sync(cluster._correct_state)
    except (TypeError, ValueError, RuntimeError, OSError) as error:
        if cluster is not None:
            cluster._created.clear()  # Dask stumbles over a job that never was in the queue
            cluster.close()
        reason = " ".join(str(error).split())
        raise BadInputError(f"dask.jobqueue: {queue.system}: {reason}") from error
    cluster.adapt(minimum_jobs=queue.jobs, maximum_jobs=queue.jobs)
    return cluster
