"""Files that are there whole or not at all, and what interrupted processes leave of others."""

import os
import re
import shutil
import socket
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from busi_pipeline.caching.places import Place

# `<host>-<process>-<random>.unfinished` somewhere in the name.
_UNFINISHED = re.compile(r"\.(?P<host>[\w-]*)-(?P<process>\d+)-[0-9a-f]{32}\.unfinished")


def name_unfinished(path: Path) -> Path:
    """Return where a file or folder is written before it takes its name; the ending stays."""
    mark = f"{_name_host()}-{os.getpid()}-{uuid.uuid4().hex}.unfinished"
    return path.with_name(f"{path.stem}.{mark}{path.suffix}")


@contextmanager
def replace_whole(path: Place) -> Iterator[Path]:
    """Give a path to write a file to, which takes its name at the end, replacing another.

    A reader sees the file before or the file after, never half of one. Where the writing fails, the
    file before stays. What is for object storage is written on this machine first.
    """
    if not isinstance(path, Path):
        with tempfile.TemporaryDirectory(prefix="busi_pipeline-") as folder:
            yield Path(folder) / path.name
            path.fs.put_file(str(Path(folder) / path.name), path.path)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = name_unfinished(path)
    try:
        yield unfinished
        os.replace(unfinished, path)
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(path)
        raise
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def write_whole(path: Place) -> Iterator[BinaryIO]:
    """Open a file for writing that takes its name when it is complete; see replace_whole."""
    with replace_whole(path) as unfinished, unfinished.open("wb") as file:
        yield file


def remove_abandoned(folder: Path) -> int:
    """Remove what processes of this machine that are gone were writing; return how much it was.

    Args:
        folder: with all that lies below it.
    """
    host = _name_host()
    removed = 0
    found_here = (
        Path(root, name) for root, folders, files in os.walk(folder) for name in (*folders, *files)
    )
    for path in [own for own in found_here if ".unfinished" in own.name]:
        found = _UNFINISHED.search(path.name)
        if found is None or found["host"] != host or _is_alive(int(found["process"])):
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink()
        removed += 1
    return removed


def _name_host() -> str:
    return re.sub(r"[^\w-]", "_", socket.gethostname())


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
