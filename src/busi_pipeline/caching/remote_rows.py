"""Rows of an array in object storage."""

import tempfile
import threading
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np

from busi_pipeline.errors import BadInputError

if TYPE_CHECKING:
    from upath import UPath

# A header of NumPy's format is no longer, of an array of rows.
_HEADER_BYTES = 1024
# Ranges asked for at once.
_RANGES = 64


class RemoteRows:
    """Rows of a `.npy` file, fetched by ranges when they are asked for, each once a process.

    They are kept in a file of this machine that takes the space of those rows alone.

    Args:
        place: of the file.
        sums: {row: CRC-32 of its bytes}, of those that will be asked for.

    Attributes:
        shape: of the array; `dtype` of its values.

    Raises BadInputError, here or where rows are read, where the file is gone or damaged.
    """

    def __init__(self, place: "UPath", sums: Mapping[int, int]):
        self._place, self._sums = place, sums
        try:
            header = BytesIO(place.fs.cat_file(place.path, start=0, end=_HEADER_BYTES))
            np.lib.format.read_magic(header)
            shape, _, self.dtype = np.lib.format.read_array_header_1_0(header)
        except (OSError, ValueError) as error:
            raise self._explain(error) from None
        self.shape: tuple[int, ...] = shape
        self._start = header.tell()
        self._bytes = int(np.prod(shape[1:])) * self.dtype.itemsize
        with tempfile.TemporaryFile() as file:
            self._rows = np.memmap(file, self.dtype, "w+", shape=shape)
        self._is_here = np.zeros(shape[0], dtype=bool)
        self._lock = threading.Lock()

    def __getitem__(self, row: int | np.integer) -> np.ndarray:
        """Return a row."""
        self.fetch([int(row)])
        return np.asarray(self._rows[row])

    def fetch(self, rows: Sequence[int]) -> None:
        """Fetch the rows that are not here, neighbours in one range."""
        with self._lock:
            missing = np.unique([row for row in rows if not self._is_here[row]])
            if not len(missing):
                return
            runs = np.split(missing, np.flatnonzero(np.diff(missing) != 1) + 1)
            for first in range(0, len(runs), _RANGES):
                self._fetch_runs(runs[first : first + _RANGES])

    def _fetch_runs(self, runs: Sequence[np.ndarray]) -> None:
        starts = [self._start + int(run[0]) * self._bytes for run in runs]
        ends = [self._start + (int(run[-1]) + 1) * self._bytes for run in runs]
        try:
            contents = self._place.fs.cat_ranges(
                [self._place.path] * len(runs), starts, ends, on_error="raise"
            )
        except OSError as error:
            raise self._explain(error) from None
        for run, content in zip(runs, contents, strict=True):
            for position, row in enumerate(run):
                own = content[position * self._bytes : (position + 1) * self._bytes]
                if len(own) != self._bytes or crc32(own) != self._sums[row]:
                    raise self._explain("they are not what was written")
                self._rows[row] = np.frombuffer(own, self.dtype).reshape(self.shape[1:])
                self._is_here[row] = True

    def _explain(self, why: object) -> BadInputError:
        return BadInputError(
            f"the rows in {self._place} of the cache are gone or damaged ({why}): delete this file "
            "and the one with its keys, and run the pipeline again without --from-nodes, which "
            "computes them."
        )
