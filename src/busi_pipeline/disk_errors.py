"""What a disk that is full, or cannot be written to, makes of a run: one line."""

import errno
import re

from busi_pipeline.errors import BadInputError

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_LOCKED = (errno.EROFS, errno.EACCES, errno.EPERM)
# SQLite, HDF5, Arrow and NumPy say it in words alone.
_NO_ROOM_WORDS = re.compile(
    r"no space left on device|disk is full|disk quota exceeded|errno = (?:28|122)\b"
    r"|\d requested and \d+ written",
    re.I,
)
_LOCKED_WORDS = re.compile(
    r"readonly database|read-only file system|unable to open database file|permission denied"
    r"|errno = (?:30|13)\b",
    re.I,
)


def explain_disk_error(error: BaseException | None) -> BadInputError | None:
    """Return an error of one line where a disk is behind this error; None where none is.

    Args:
        error: with the errors that led to it.
    """
    seen = []
    while error is not None and error not in seen:
        seen.append(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    for one in reversed(seen):  # the first cause knows the file
        place = _name_file(one)
        if _is(one, _NO_ROOM, _NO_ROOM_WORDS):
            return BadInputError(
                f"there is no room left on the disk{f' of {place}' if place else ''}: make some, "
                "and give the command again. What was done before is kept."
            )
        if _is(one, _LOCKED, _LOCKED_WORDS):
            reason = one.strerror if isinstance(one, OSError) and one.strerror else None
            return BadInputError(
                f"{place or 'a file'} cannot be used ({reason or _first_line(one)}): let this user "
                "read and write there, and give the command again. What was done before is kept."
            )
    return None


def _is(error: BaseException, numbers: tuple[int, ...], words: re.Pattern[str]) -> bool:
    if isinstance(error, BadInputError):
        return False
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in numbers
    return words.search(str(error)) is not None


def _name_file(error: BaseException) -> str:
    """Return the file of an error, by the name that it was to have."""
    names = [getattr(error, "filename", None), getattr(error, "filename2", None)]
    known = [str(name) for name in names if isinstance(name, str | bytes)]
    return re.sub(r"\.[\w-]*-\d+-[0-9a-f]{32}\.unfinished", "", known[-1]) if known else ""


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
