"""A local MLflow store: made whole or not at all, and where its artifacts lie after a move."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit
from urllib.request import url2pathname

from filelock import FileLock, Timeout

from busi_pipeline.caching.whole_files import replace_whole
from busi_pipeline.errors import BadInputError

ARTIFACTS = "mlartifacts"
_LOCK_SECONDS = 120.0
# Of MLflow's tables, what holds a location of artifacts.
_LOCATIONS = {
    "experiments": ("artifact_location",),
    "runs": ("artifact_uri",),
    "logged_models": ("artifact_location",),
    "model_versions": ("source", "storage_location"),
}


class Repair(NamedTuple):
    """`moved_from` are the folders whose artifacts the store looked for; `runs` how many it has of
    them. `is_missing`: there are runs, and no folder of artifacts beside the store."""

    moved_from: list[str]
    runs: int
    is_missing: bool


def find_local_store(tracking_uri: str) -> Path | None:
    """Return the file of an SQLite store; None for a server."""
    scheme, _, path = tracking_uri.partition(":///")
    return Path(path) if scheme == "sqlite" and path else None


def make_store(database: Path) -> None:
    """Make an empty store with its tables, if there is none yet; see hold_store."""
    with hold_store(database):
        pass


@contextmanager
def hold_store(database: Path) -> Iterator[None]:
    """Make an empty store with its tables, if there is none yet; let no other process in meanwhile.

    Making it takes seconds. So it is made beside its place and renamed into it: a start that is
    interrupted leaves no half of one.

    Args:
        database: SQLite file of the store; its artifacts are to lie in `mlartifacts` beside it.

    Raises BadInputError, one line, where the file is there and no whole store, or where its folder
    cannot be written.
    """
    database = database.resolve()
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{database}.lock", timeout=_LOCK_SECONDS)
        lock.acquire()
    except Timeout:
        raise BadInputError(
            f"another run has held {database} for {_LOCK_SECONDS:.0f} s as it starts: stop it."
        ) from None
    except OSError as error:
        raise BadInputError(
            f"the MLflow store {database} cannot be written ({error.strerror}): make its folder "
            "writable, or set MLFLOW_TRACKING_URI."
        ) from None
    try:
        if database.is_file() and database.stat().st_size:
            _refuse_half(database)
        else:
            _make_whole(database)
        yield
    finally:
        lock.release()


def _make_whole(database: Path) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    for left in database.parent.glob(f"{database.stem}.*.unfinished*"):
        left.unlink(missing_ok=True)
    with replace_whole(database) as unfinished:
        store = SqlAlchemyStore(f"sqlite:///{unfinished}", (database.parent / ARTIFACTS).as_uri())
        store.engine.dispose()


def _refuse_half(database: Path) -> None:
    """Raise BadInputError for a store whose making was interrupted, as MLflow itself leaves it.

    MLflow writes the first experiment when all tables are there. Without it, no run can be either.
    """
    try:
        with closing(sqlite3.connect(database, timeout=10)) as connection:
            found = connection.execute("select name from sqlite_master where type = 'table'")
            tables = {name for (name,) in found}
            if not tables:
                return
            is_whole = "experiments" in tables and connection.execute(
                "select exists(select 1 from experiments)"
            ).fetchone() == (1,)
    except sqlite3.Error as error:
        raise BadInputError(f"the MLflow store {database} cannot be used: {error}.") from None
    if not is_whole:
        raise BadInputError(
            f"the MLflow store {database} is half made, by a start that was interrupted, and holds "
            "no run: delete it, and the next run makes a new one."
        )


def repair_locations(database: Path, artifacts: Path) -> Repair:
    """Let a store find its artifacts where the project lies now.

    MLflow writes absolute locations. A copy of a project would write into the folder of the
    original, and a project that was moved would show no artifacts. Only locations
    in a folder `mlartifacts` are changed, all or none, and none where that folder is the same one
    under another path.

    Args:
        database: SQLite file of the store.
        artifacts: the folder `mlartifacts` of the project.

    Raises BadInputError, one line, where the file is no store or another process holds it.
    """
    if not database.is_file():
        return Repair([], 0, False)
    here = artifacts.resolve().as_uri()
    try:
        with closing(sqlite3.connect(database, timeout=10)) as connection, connection:
            tables = {
                name
                for (name,) in connection.execute("select name from sqlite_master")
                if name in _LOCATIONS
            }
            if "experiments" not in tables:
                return Repair([], 0, False)
            olds = {
                root
                for (location,) in connection.execute("select artifact_location from experiments")
                if (root := _find_root(location)) and root != here and not _is_same(root, artifacts)
            }
            runs = 0
            for old in sorted(olds):
                for table in sorted(tables):
                    for column in _LOCATIONS[table]:
                        changed = connection.execute(
                            f"update {table} set {column} = ? || substr({column}, ?) "  # noqa: S608 - own names
                            f"where {column} = ? or substr({column}, 1, ?) = ?",
                            (here, len(old) + 1, old, len(old) + 1, f"{old}/"),
                        ).rowcount
                        runs += changed if table == "runs" else 0
            (own,) = connection.execute(
                "select count(*) from runs where substr(artifact_uri, 1, ?) = ?",
                (len(here) + 1, f"{here}/"),
            ).fetchone()
    except sqlite3.Error as error:
        raise BadInputError(f"the MLflow store {database} cannot be used: {error}.") from None
    is_missing = own > 0 and not artifacts.is_dir()
    return Repair([str(find_folder(old)) for old in sorted(olds)], runs, is_missing)


def _find_root(location: str | None) -> str | None:
    """Return the part of a location that ends with the folder of artifacts."""
    if not location or not location.startswith("file:"):
        return None
    root, found, rest = location.partition(f"/{ARTIFACTS}")
    return f"{root}{found}" if found and (not rest or rest.startswith("/")) else None


def _is_same(location: str, artifacts: Path) -> bool:
    """Return whether a location is the folder of artifacts under another path, as by a mount."""
    try:
        return artifacts.samefile(find_folder(location))
    except OSError:
        return False


def find_folder(location: str) -> Path:
    """Return the folder that a store names by a `file:` address."""
    return Path(url2pathname(urlsplit(location).path))
