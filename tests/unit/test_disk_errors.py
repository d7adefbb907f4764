"""What a disk has to do with an error is said in one line."""

import errno
import os
import sqlite3
from pathlib import Path

import pytest
from mlflow.exceptions import RestException
from requests import ConnectionError

from busi_pipeline.caching.whole_files import name_unfinished, replace_whole
from busi_pipeline.disk_errors import explain_disk_error
from busi_pipeline.errors import BadInputError

FULL = {
    "Python": OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    "quota": OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)),
    "NumPy": OSError("1655808 requested and 470976 written"),
    "SQLite": sqlite3.OperationalError("database or disk is full"),
    "HDF5": OSError("Can't write data (file write failed: errno = 28, error message = 'No space')"),
}
LOCKED = {
    "Python": PermissionError(errno.EACCES, os.strerror(errno.EACCES), "data/a.png"),
    "read-only": OSError(errno.EROFS, os.strerror(errno.EROFS), "data/a.png"),
    "SQLite": sqlite3.OperationalError("attempt to write a readonly database"),
}
OTHER = {
    "absent": FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)),
    "a value": ValueError("28 images"),
    "ours": BadInputError("the archive says: No space left on device"),
    "a firewall": PermissionError(errno.EACCES, os.strerror(errno.EACCES)),
    "a refusal of a server": RestException({"error_code": "X", "message": "Permission denied"}),
    "the disk of a server": RestException({"error_code": "X", "message": "disk is full"}),
    "a connection": ConnectionError("[Errno 30] Read-only file system"),
}


@pytest.mark.parametrize("kind", FULL)
def test_a_full_disk_is_named(kind: str) -> None:
    explained = explain_disk_error(FULL[kind])
    assert explained is not None
    assert str(explained).startswith("there is no room left on the disk")
    assert "\n" not in str(explained)


@pytest.mark.parametrize("kind", LOCKED)
def test_a_place_that_cannot_be_written_is_named(kind: str) -> None:
    assert "give this user the right to read and write there" in str(
        explain_disk_error(LOCKED[kind])
    )


@pytest.mark.parametrize("kind", OTHER)
def test_other_errors_stay_what_they_are(kind: str) -> None:
    assert explain_disk_error(OTHER[kind]) is None
    assert explain_disk_error(None) is None


@pytest.mark.parametrize(
    "error",
    [
        sqlite3.OperationalError("disk I/O error"),
        OSError(errno.EFBIG, os.strerror(errno.EFBIG), "a.npy"),
    ],
)
def test_a_disk_that_fails_or_a_file_that_is_too_large_is_named(error: Exception) -> None:
    assert "over a quota or a limit on the size of files, or failing" in str(
        explain_disk_error(error)
    )


def test_a_line_that_is_there_already_stays() -> None:
    """Kedro wraps ours, repeats its words, and a hook raises ours again."""

    def fail() -> None:
        try:
            try:
                raise BadInputError("raw is unreadable: Permission denied. Correct sites.")
            except BadInputError as ours:
                wrapped = OSError("Failed while loading: Read-only file system")
                raise wrapped from ours
        except OSError:
            raise sqlite3.OperationalError("database or disk is full")  # noqa: B904

    with pytest.raises(sqlite3.OperationalError) as caught:
        fail()
    assert explain_disk_error(caught.value) is None


def test_the_first_cause_counts_and_its_file_is_named_as_it_was_to_be(tmp_path: Path) -> None:
    """MLflow fails to end the run after the disk was full, and says so last."""
    place = tmp_path / "network.keras"
    first = OSError(errno.ENOSPC, "No space left on device", str(name_unfinished(place)))
    try:
        try:
            raise first
        except OSError as cause:
            raise sqlite3.OperationalError("attempt to write a readonly database") from cause
    except sqlite3.OperationalError as last:
        explained = explain_disk_error(last)
    assert explained is not None
    assert str(explained).startswith(f"there is no room left on the disk of {place}:")


def test_a_context_that_was_left_out_does_not_count() -> None:
    def fail() -> None:
        try:
            raise OSError(errno.ENOSPC, "full")
        except OSError:
            raise ValueError("another matter") from None

    with pytest.raises(ValueError, match="another matter") as caught:
        fail()
    assert explain_disk_error(caught.value) is None


def test_a_file_that_has_no_room_is_named(tmp_path: Path) -> None:
    def fill() -> None:
        with replace_whole(tmp_path / "a.npy"):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match=r"a\.npy"):
        fill()
