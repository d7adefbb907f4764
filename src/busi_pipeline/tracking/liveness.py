"""Which runs are of a process that is still there.

A process that is killed leaves its run as RUNNING for ever. So each run has a file that its process
locks; the system frees the lock when the process ends, however it ends.
"""

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

LOCK_TAG = "lock"
FOLDER = "mlflow_running"
# MLflow gives what stands here to each run as it is created.
_CONTEXT = "MLFLOW_RUN_CONTEXT"


class RunLock:
    """The lock of one run; `name` goes into its tag `lock`."""

    def __init__(self, folder: Path):
        """Take the folder of the locks, which is made if need be, and lock a new file there."""
        folder.mkdir(parents=True, exist_ok=True)
        self.name = uuid.uuid4().hex
        self._lock = FileLock(folder / self.name)
        self._lock.acquire()

    def release(self) -> None:
        """Let go, and remove the file."""
        self._lock.release()
        with suppress(OSError):
            os.unlink(self._lock.lock_file)

    @contextmanager
    def mark_runs(self) -> Iterator[None]:
        """Give the tag to runs that are created meanwhile."""
        before = os.environ.get(_CONTEXT)
        own = json.loads(before) if before else {}
        os.environ[_CONTEXT] = json.dumps(own | {LOCK_TAG: self.name})
        try:
            yield
        finally:
            if before is None:
                del os.environ[_CONTEXT]
            else:
                os.environ[_CONTEXT] = before


def close_dead_runs(client: MlflowClient, experiment_id: str, folder: Path) -> list[str]:
    """End as KILLED what is RUNNING and has no process any more; return the ids of these runs.

    Children are closed with their parent. A run without a lock is somebody else's, and left alone.
    """
    running = client.search_runs([experiment_id], "attributes.status = 'RUNNING'")
    tags = {run.info.run_id: run.data.tags for run in running}
    dead = [own for own, its in tags.items() if LOCK_TAG in its and _is_free(folder, its[LOCK_TAG])]
    dead += [own for own, its in tags.items() if its.get(MLFLOW_PARENT_RUN_ID) in dead]
    for run_id in dead:
        client.set_terminated(run_id, "KILLED")
    return dead


def _is_free(folder: Path, name: str) -> bool:
    """Return whether no process holds a lock; its file is removed then."""
    path = folder / Path(name).name
    if not path.is_file():
        return True
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    lock.release()
    path.unlink(missing_ok=True)
    return True
