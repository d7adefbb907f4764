"""Kedro's datasets write local files whole or not at all.

They write through fsspec, which opens the file itself: a process that is killed, or a disk that is
full, would leave half of one.
"""

import io
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from busi_pipeline.caching.places import trust_no_listing
from busi_pipeline.caching.whole_files import name_unfinished


class _WholeFile(io.FileIO):
    """A file that takes its name when it is closed, unless an exception closes it."""

    def __init__(self, path: Path):
        self._path, self._unfinished = path, name_unfinished(path)
        self._before, self._has_failed = sys.exc_info()[1], False
        super().__init__(self._unfinished, "w")

    def write(self, data: Any, /) -> int:
        """Write; what fails here may be raised by whoever closes the file later."""
        try:
            return super().write(data)
        except BaseException as error:
            self._has_failed = True
            if isinstance(error, OSError) and error.filename is None:
                error.filename = str(self._path)
            raise

    def close(self) -> None:
        """Close; what is there then is whole, or what was there before."""
        if self.closed:
            return
        try:
            super().close()
            if sys.exc_info()[1] is self._before and not self._has_failed:
                os.replace(self._unfinished, self._path)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(self._unfinished)


class WholeFileSystem(LocalFileSystem):
    """fsspec's local files; those that are opened for writing replace what was there at the end."""

    def _open(self, path: str, mode: str = "rb", block_size: Any = None, **kwargs: Any) -> Any:
        if mode != "wb" or not kwargs.get("autocommit", True):
            return super()._open(path, mode, block_size, **kwargs)
        place = Path(self._strip_protocol(path))
        if self.auto_mkdir:
            place.parent.mkdir(parents=True, exist_ok=True)
        return io.BufferedWriter(_WholeFile(place))


def write_files_whole() -> None:
    """Let every dataset of this process write so, and ask object storage anew each time."""
    trust_no_listing()
    for protocol in ("file", "local"):
        fsspec.register_implementation(protocol, WholeFileSystem, clobber=True)
