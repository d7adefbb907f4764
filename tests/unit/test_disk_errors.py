"""What a disk has to do with an error is said in one line."""

import errno
import os
import sqlite3
from pathlib import Path

import pytest

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
    "Python": PermissionError(errno.EACCES, os.strerror(errno.EACCES)),
    "read-only": OSError(errno.EROFS, os.strerror(errno.EROFS)),
    "SQLite": sqlite3.OperationalError("attempt to write a readonly database"),
}
OTHER = {
    "absent": FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)),
    "a value": ValueError("28 images"),
    "ours": BadInputError("the archive says: No space left on device"),
}


@pytest.mark.parametrize("kind", FULL)
def test_a_full_disk_is_named(kind: str) -> None:
    explained = explain_disk_error(FULL[kind])
    assert explained is not None
    assert str(explained).startswith("there is no room left on the disk")
    assert "\n" not in str(explained)


@pytest.mark.parametrize("kind", LOCKED)
def test_a_place_that_cannot_be_written_is_named(kind: str) -> None:
    assert "let this user read and write there" in str(explain_disk_error(LOCKED[kind]))


@pytest.mark.parametrize("kind", OTHER)
def test_other_errors_stay_what_they_are(kind: str) -> None:
    assert explain_disk_error(OTHER[kind]) is None
    assert explain_disk_error(None) is None


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
