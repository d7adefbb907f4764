"""Files that were there and can no longer be read."""

import json
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

_MAY_BE_EMPTY = (".txt", ".md")


def find_damage(path: Path) -> str:
    """Return what is wrong with a file, by its ending; "" for nothing, or where there is none.

    JSON is parsed, archives are read from end to end by their checksums, and of Parquet and PNG the
    end is looked at. Of other files only an empty one is known to be damaged.
    """
    if not path.is_file():
        return ""
    try:
        if path.stat().st_size == 0:
            return "" if path.suffix in _MAY_BE_EMPTY else "it is empty"
        return _CHECKS.get(path.suffix, lambda _: "")(path)
    except OSError:  # it may be read another time, or by another user
        return ""
    except (ValueError, RuntimeError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        return (str(error) or type(error).__name__).splitlines()[0]


def _check_json(path: Path) -> str:
    with path.open("rb") as file:
        json.load(file)
    return ""


def _check_archive(path: Path) -> str:
    with zipfile.ZipFile(path) as archive:
        broken = archive.testzip()
    return f"{broken} in it is broken" if broken else ""


def _check_end(path: Path, end: bytes) -> str:
    return "" if _read_end(path, len(end)) == end else "it is cut"


def _read_end(path: Path, count: int) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - count))
        return file.read()


_CHECKS: dict[str, Callable[[Path], str]] = {
    ".json": _check_json,
    ".keras": _check_archive,
    ".parquet": partial(_check_end, end=b"PAR1"),
    ".png": partial(_check_end, end=b"IEND\xaeB`\x82"),
}
