"""What a disk that is full, or cannot be written to, makes of a run: one line."""

import errno
import re
import sqlite3

from busi_pipeline.errors import BadInputError

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_LOCKED = (errno.EROFS, errno.EACCES, errno.EPERM)
# SQLite, HDF5 and NumPy say it in words alone.
_NO_ROOM_WORDS = re.compile(
    r"no space left on device|disk is full|disk quota exceeded|errno = (?:28|122)\b"
    r"|\d requested and \d+ written",
    re.I,
)
_LOCKED_WORDS = re.compile(
    r"readonly database|unable to open database file|read-only file system|errno = (?:30|13)\b",
    re.I,
)
_FAILED_WORDS = re.compile(r"disk i/o error|file too large", re.I)
_AGAIN = "and run the command again. What was done before is kept."


def explain_disk_error(error: BaseException | None) -> BadInputError | None:
    """Return an error of one line where a disk of this machine is behind this error.

    Args:
        error: with the errors that led to it.

    Returns None where no disk is, and where another line is there already.
    """
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if any(isinstance(one, BadInputError) for one in seen):
        return None
    for one in reversed(seen):  # the first cause knows the file
        line = _explain(one)
        if line:
            return BadInputError(line)
    return None


def _explain(error: BaseException) -> str:
    """Return what to do; "" where a disk is not what this error is about."""
    place, said = _name_file(error), _say(error)
    number, reason = None, said
    if isinstance(error, OSError):
        number, reason = error.errno, error.strerror or said
    if number in _NO_ROOM or _NO_ROOM_WORDS.search(said):
        return (
            f"there is no room left on the disk{f' of {place}' if place else ''}: free some space, "
            f"{_AGAIN}"
        )
    # A connection that a firewall refuses has such a number, too, and no file.
    if (number in _LOCKED and place) or _LOCKED_WORDS.search(said):
        return (
            f"{place or 'a file'} cannot be used ({reason}): give this user the right to read and "
            f"write there, {_AGAIN}"
        )
    if number == errno.EFBIG or _FAILED_WORDS.search(said):
        return (
            f"{place or 'a file'} cannot be written ({reason}): the disk is full, over a quota or "
            f"a limit on the size of files, or failing. Mend that, {_AGAIN}"
        )
    return ""


def _say(error: BaseException) -> str:
    """Return the first line of what SQLite says, or a file that has no number for its error.

    What a server says of its own disk comes in other errors; `requests` has OSErrors for them.
    """
    is_of_a_file = isinstance(error, OSError) and error.errno is None
    if type(error).__module__.startswith(("requests", "urllib")):
        return ""
    if not is_of_a_file and not isinstance(error, sqlite3.Error):
        return ""
    return (str(error) or type(error).__name__).splitlines()[0]


def _name_file(error: BaseException) -> str:
    """Return the file of an error, by the name that it was to have."""
    names = [getattr(error, "filename", None), getattr(error, "filename2", None)]
    known = [str(name) for name in names if isinstance(name, str | bytes)]
    return re.sub(r"\.[\w-]*-\d+-[0-9a-f]{32}\.unfinished", "", known[-1]) if known else ""
