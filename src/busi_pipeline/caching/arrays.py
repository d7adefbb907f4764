"""Arrays too large for memory whose rows lie in the cache."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from busi_pipeline.caching.fingerprints import Fingerprint
from busi_pipeline.caching.places import Place
from busi_pipeline.caching.remote_rows import RemoteRows
from busi_pipeline.errors import BadInputError

# The column of an index that says which window of the image a row shows; there is none where each
# image has one.
WINDOW = "window"

_MAPPED_PARTS = 8


class StoredRows:
    """Rows that lie in several `.npy` files, read like one array.

    Only a few files are mapped at a time, so that memory does not grow with their number.

    Args:
        parts: files of arrays with rows of one shape and dtype; of those in object storage, the
            rows that are asked for are fetched, each once a process.
        places: int64 (rows, 2): for each row, which part and which row of it.
        sums: of parts in object storage, {row: CRC-32} of each part.

    Raises BadInputError, here or where rows are read, that names a file which is missing or cut.
    """

    def __init__(
        self,
        parts: Sequence[Place],
        places: np.ndarray,
        sums: Sequence[Mapping[int, int]] | None = None,
    ):
        self._parts, self._places, self._sums = list(parts), places, sums
        self._open()
        first = self._map(0)
        self.shape = (len(places), *first.shape[1:])
        self.dtype = first.dtype

    def _open(self) -> None:
        # What was fetched stays.
        kept = None if self._sums is not None else _MAPPED_PARTS
        self._map = lru_cache(kept)(self._open_part)

    def _open_part(self, part: int) -> np.ndarray | RemoteRows:
        place = self._parts[part]
        if isinstance(place, Path):
            return _map_part(place)
        assert self._sums is not None
        return RemoteRows(place, self._sums[part])

    def __getstate__(self) -> dict[str, Any]:
        """Leave the maps behind: another process opens its own."""
        return {name: value for name, value in vars(self).items() if name != "_map"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._open()

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, rows: int | np.integer | Sequence[int] | np.ndarray) -> np.ndarray:
        """Return one row as a view of its file, or the rows of a sequence as a new array."""
        if isinstance(rows, int | np.integer):
            part, row = self._places[rows]
            return self._map(int(part))[row]
        places = self._places[rows]
        if self._sums is not None:
            for part in np.unique(places[:, 0]):
                opened = self._map(int(part))
                assert isinstance(opened, RemoteRows)
                opened.fetch(places[places[:, 0] == part, 1].tolist())
        return np.stack([self._map(int(part))[row] for part, row in places])


def _map_part(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise BadInputError(
            f"the rows in {path} of the cache are gone or damaged ({error}): run the pipeline "
            "again without --from-nodes, which computes them."
        ) from None


@dataclass(frozen=True)
class StoredArray:
    """An array whose rows are in the cache.

    Attributes:
        index: one row per row of `values`, in order; at least a column `image_id`.
        values: (rows, ...), read from disk as they are asked for.
        keys: one per row, what this row is made of, as a hash.
        fingerprint: whatever else decides the values.
        metadata: what is kept beside the array, JSON-like; `seconds`, what all rows took when they
            were computed, `seconds_now`, what this run spent, and `computed`, how many rows it
            computed.
    """

    index: pd.DataFrame
    values: StoredRows | np.ndarray
    keys: Sequence[str]
    fingerprint: Fingerprint
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def windows(self) -> int:
        """How many rows each image has: one, or one a window (see imaging.network_input)."""
        return int(self.index[WINDOW].max()) + 1 if WINDOW in self.index else 1

    def find_rows(self, image_ids: Iterable[str], windows: ArrayLike = 0) -> np.ndarray:
        """Return int64 (n,) positions of images.

        Args:
            image_ids: of images that have one row each, or one a window.
            windows: which window of each, or of all.

        Raises BadInputError that names the first image that is not there.
        """
        ids = list(image_ids)
        own = self.index[WINDOW] if WINDOW in self.index else np.zeros(len(self.index), int)
        wanted = np.broadcast_to(np.asarray(windows, dtype=int), len(ids))
        positions = pd.MultiIndex.from_arrays([self.index["image_id"], own]).get_indexer(
            pd.MultiIndex.from_arrays([ids, wanted])
        )
        if (positions < 0).any():
            missing = ids[int(np.argmax(positions < 0))]
            raise BadInputError(
                f"image {missing!r} is not among the {len(self.index)} prepared images: the data "
                "changed since. Run the whole pipeline again, without --from-nodes."
            )
        return positions
