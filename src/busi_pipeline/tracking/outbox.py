"""Runs for an MLflow server, kept on disk until the server has them.

    mlflow_outbox/<parcel>/mlflow.db, mlartifacts/    a store with one run and its children
    mlflow_outbox/<parcel>/address.json               where it is to go

A run is computed and logged into a parcel, whatever the server does. It is delivered when it ends,
or by the next run, or by `kedro run --pipeline=sync_mlflow`. A parcel is removed once the server
has all of it.
"""

import json
import logging
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.version import VERSION
from sqlalchemy.exc import SQLAlchemyError

from busi_pipeline.errors import BadInputError
from busi_pipeline.tracking.delivery import deliver_runs
from busi_pipeline.tracking.local_store import ARTIFACTS, make_store, repair_locations
from busi_pipeline.tracking.server import find_problem, limit_patience
from busi_pipeline.tracking.withholding import read_key

logger = logging.getLogger(__name__)

FOLDER = "mlflow_outbox"
_STORE, _ADDRESS, _IN_USE = "mlflow.db", "address.json", "in_use.lock"
_EMPTY, _KEY = "empty", "names.key"
_REMOVED = ".removed"


class Delivered(NamedTuple):
    """A run that a server has now: its `name`, and its `run_id` there."""

    name: str
    run_id: str
    address: str


class Parcel:
    """A store for one run, held by this process until `release`."""

    def __init__(self, folder: Path, lock: FileLock):
        self.folder, self._lock = folder, lock

    @property
    def tracking_uri(self) -> str:
        """Where MLflow logs to."""
        return f"sqlite:///{(self.folder / _STORE).as_posix()}"

    @property
    def artifact_location(self) -> str:
        """Where the artifacts lie."""
        return (self.folder / ARTIFACTS).as_uri()

    @property
    def server(self) -> str:
        """Where it is to go."""
        return str(self._read_address()["server"])

    @property
    def key(self) -> bytes | None:
        """Of the pseudonyms, where names and pictures stay here."""
        withholds = self._read_address()["withholds"]
        return read_key(self.folder.parent / _KEY) if withholds else None

    def _read_address(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / _ADDRESS).read_text()))

    def is_empty(self) -> bool:
        """Return whether no run was begun."""
        client = MlflowClient(self.tracking_uri)
        ids = [own.experiment_id for own in client.search_experiments()]
        return not client.search_runs(ids, max_results=1)

    def release(self) -> None:
        """Let go of it: others may deliver it now."""
        self._lock.release()

    def remove(self) -> None:
        """Remove it: at once for those who look for it, then its files."""
        gone = self.folder.with_name(self.folder.name + _REMOVED)
        self.folder.rename(gone)
        self.release()
        shutil.rmtree(gone, ignore_errors=True)


class Outbox:
    """The parcels of a project."""

    def __init__(self, folder: Path):
        """Take the folder; it is made with the first parcel."""
        self._folder = folder

    def open(self, server: str, withholds: bool = False) -> Parcel:
        """Return a new parcel for a server.

        Args:
            server: its tracking URI.
            withholds: whether names and pictures of patients stay here; see tracking.withholding.
        """
        empty = self._folder / f"{_EMPTY}-{VERSION}" / _STORE
        make_store(empty)
        with self._hold():
            return self._fill(empty, server, withholds)

    def _hold(self) -> FileLock:
        """Return what one process at a time holds while it makes or removes folders here."""
        return FileLock(self._folder / "outbox.lock")

    def _fill(self, empty: Path, server: str, withholds: bool) -> Parcel:
        name = uuid.uuid4().hex
        unfinished = self._folder / f"{name}.unfinished"
        unfinished.mkdir()
        shutil.copyfile(empty, unfinished / _STORE)
        address = {"server": server, "withholds": withholds}
        (unfinished / _ADDRESS).write_text(json.dumps(address))
        lock = FileLock(unfinished / _IN_USE)
        lock.acquire()
        folder = self._folder / name
        os.replace(unfinished, folder)
        return Parcel(folder, lock)

    def list_waiting(self) -> Iterator[Parcel]:
        """Yield every parcel that no process fills or delivers, the oldest first; each is held."""
        found = [path.parent for path in self._folder.glob(f"*/{_ADDRESS}")]
        folders = [folder for folder in found if not folder.suffix]
        for folder in sorted(folders, key=_find_age):
            if not folder.is_dir():
                continue
            lock = FileLock(folder / _IN_USE)
            try:
                lock.acquire(timeout=0)
            except (Timeout, OSError):
                continue
            if (folder / _ADDRESS).is_file():  # not delivered meanwhile
                yield Parcel(folder, lock)
            else:
                lock.release()
                shutil.rmtree(folder, ignore_errors=True)  # the lock has made it anew

    def deliver(self, server: str) -> list[Delivered]:
        """Send what waits for a server; return the runs that it has now.

        Raises BadInputError, one line, where the server fails; what it has not got stays.
        """
        limit_patience()
        delivered: list[Delivered] = []
        problem = ""
        waiting = 0
        elsewhere: set[str] = set()
        for parcel in self.list_waiting():
            try:
                if parcel.server.rstrip("/") != server.rstrip("/"):
                    elsewhere.add(parcel.server)
                    parcel.release()
                    continue
                problem = problem or find_problem(server)
                if not problem:
                    delivered += _deliver(parcel)
                    continue
            except (MlflowException, SQLAlchemyError, OSError, ValueError, KeyError) as error:
                # Where the server answers, it is this parcel, and the others may go.
                problem = find_problem(server)
                if not problem:
                    logger.warning(
                        "the run in %s could not be delivered: %s",
                        *(parcel.folder, (str(error) or type(error).__name__).splitlines()[0]),
                    )
            waiting += 1
            parcel.release()
        for other in sorted(elsewhere):
            logger.warning("runs wait in %s for %s, another server", self._folder, other)
        if problem:
            raise BadInputError(
                f"the MLflow server {server} cannot be reached ({problem}): {waiting} runs wait in "
                f"{self._folder}. The next run delivers them, or `kedro run "
                "--pipeline=sync_mlflow`."
            )
        return delivered

    def clean(self) -> None:
        """Remove what an interrupted process left: parcels half made or half removed."""
        if not self._folder.is_dir():
            return
        with self._hold():
            for left in (*self._folder.glob("*.unfinished"), *self._folder.glob(f"*{_REMOVED}")):
                shutil.rmtree(left, ignore_errors=True)


def _find_age(folder: Path) -> float:
    try:
        return (folder / _ADDRESS).stat().st_mtime
    except FileNotFoundError:  # delivered meanwhile
        return 0.0


def _deliver(parcel: Parcel) -> list[Delivered]:
    repair_locations(parcel.folder / _STORE, parcel.folder / ARTIFACTS)  # the project may be moved
    source, target = MlflowClient(parcel.tracking_uri), MlflowClient(parcel.server)
    _close_dead(source)
    sent = deliver_runs(source, target, parcel.key)
    named = []
    for run_id in sent.values():
        info = target.get_run(run_id).info
        address = f"{parcel.server.rstrip('/')}/#/experiments/{info.experiment_id}/runs/{run_id}"
        named.append(Delivered(info.run_name, run_id, address))
    parcel.remove()
    return named


def _close_dead(source: MlflowClient) -> None:
    """End as KILLED what still runs in a parcel: whoever held it is gone."""
    for experiment in source.search_experiments():
        for run in source.search_runs([experiment.experiment_id], "attributes.status = 'RUNNING'"):
            source.set_terminated(run.info.run_id, "KILLED")
