"""Workers to run nodes on: on this machine, of a cluster's queue, of a scheduler that is there."""

import contextlib
import logging
from collections.abc import Iterator
from typing import Any, NamedTuple

import dask
from dask.system import CPU_COUNT
from distributed import Client, LocalCluster
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


class Workers(NamedTuple):
    """`client` of the scheduler; `size`: how many there are."""

    client: Client
    size: int


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
            client = opened.enter_context(_connect(settings.address))
            count = len(_list_workers(client, settings.address))
        elif settings.jobqueue is not None:
            cluster = opened.enter_context(_start_jobs(settings, settings.jobqueue))
            client, count = opened.enter_context(Client(cluster)), settings.jobqueue.jobs
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
        yield Workers(client, count)


def hush_dask() -> None:
    """Let Dask log errors alone, unless Kedro's own lines are wanted, too (`--verbose`).

    What a node raises comes back to the run, so the worker need not log it, too.
    """
    if not logging.getLogger("kedro").isEnabledFor(logging.INFO):
        logging.getLogger("distributed").setLevel(logging.ERROR)
        logging.getLogger("distributed.worker").setLevel(logging.CRITICAL)


def _connect(address: str) -> Client:
    try:
        return Client(address, timeout=_SECONDS_TO_CONNECT, set_as_default=False)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise BadInputError(
            f"dask.address: no scheduler answers at {address} ({reason}): start `dask scheduler` "
            "there, or set it to null, which starts workers on this machine."
        ) from None


def _list_workers(client: Client, address: str) -> dict[str, Any]:
    """Return the workers of a scheduler; raises BadInputError where they cannot run nodes."""
    workers: dict[str, Any] = client.scheduler_info(n_workers=-1)["workers"]
    start = f"`dask worker {address} --nthreads 1`"
    if not workers:
        raise BadInputError(
            f"dask.address: {address} has no worker: start {start} on each machine."
        )
    for name, worker in workers.items():
        if worker["nthreads"] != 1:
            raise BadInputError(
                f"dask.address: the worker {name} has {worker['nthreads']} threads, so it "
                f"would run as many nodes in one process: start it by {start}. `dask.threads` says "
                "on how many cores a node computes."
            )
    return workers


def _start_jobs(settings: DaskSettings, queue: JobQueueSettings) -> Any:
    try:
        import dask_jobqueue
    except ImportError:
        raise BadInputError(
            "dask.jobqueue needs dask-jobqueue: `pip install 'busi_pipeline[dask]'`."
        ) from None
    dashboard = settings.dashboard
    options: dict[str, Any] = {
        "cores": 1,
        "processes": 1,
        "memory": f"{settings.memory} GB",
        "scheduler_options": {"dashboard_address": None if dashboard is None else f":{dashboard}"},
    }
    if queue.system == "slurm":
        options["job_cpu"] = settings.threads
    try:
        cluster = getattr(dask_jobqueue, _SYSTEMS[queue.system])(**options | queue.options)
    except (TypeError, ValueError, RuntimeError, OSError) as error:
        raise BadInputError(f"dask.jobqueue: {queue.system}: {error}") from error
    cluster.adapt(minimum_jobs=queue.jobs, maximum_jobs=queue.jobs)  # what ends is begun again
    return cluster
