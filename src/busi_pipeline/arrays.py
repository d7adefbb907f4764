"""Arrays too large for memory whose rows are computed once and named by what they hold."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

_MAPPED_PARTS = 8


@dataclass(frozen=True)
class ArrayStream:
    """An array on its way to disk, row by row, of which only what is missing will be computed.

    Attributes:
        index: one row per row of the array, in order; at least a column `image_id`.
        keys: one per row: hash of what this row is made of, apart from the recipe.
        recipe: whatever else decides the values (settings, code, weights), JSON-like. Rows with
            the same recipe and key hold the same values.
        dtype: of the array.
        compute: takes the positions (int64, ascending) of the rows that are missing; yields
            arrays (n, ...) that, one after the other, are those rows. Not called where none is.
        about: what is to be kept beside the array, JSON-like.
    """

    index: pd.DataFrame
    keys: Sequence[str]
    recipe: dict[str, Any]
    dtype: str
    compute: Callable[[np.ndarray], Iterable[np.ndarray]]
    about: dict[str, Any] = field(default_factory=dict)


class StoredRows:
    """Rows that lie in several `.npy` files, read like one array.

    Only a few files are mapped at a time, so that memory does not grow with their number.

    Args:
        parts: files of arrays with rows of one shape and dtype.
        where: int64 (rows, 2): for each row, which part and which row of it.
    """

    def __init__(self, parts: Sequence[Path], where: np.ndarray):
        self._where = where
        self._map = lru_cache(_MAPPED_PARTS)(lambda part: np.load(parts[part], mmap_mode="r"))
        first = self._map(0)
        self.shape = (len(where), *first.shape[1:])
        self.dtype = first.dtype

    def __len__(self) -> int:
        return len(self._where)

    def __getitem__(self, rows: int | Sequence[int] | np.ndarray) -> np.ndarray:
        """Return one row as a view of its map, or the rows of a sequence as an array of theirs."""
        if isinstance(rows, int | np.integer):
            part, row = self._where[rows]
            return self._map(int(part))[row]
        return np.stack([self._map(int(part))[row] for part, row in self._where[rows]])


@dataclass(frozen=True)
class StoredArray:
    """An array on disk.

    Attributes:
        index: one row per row of `values`, in order; at least a column `image_id`.
        values: (rows, ...), read from disk as they are asked for.
        keys: one per row, see ArrayStream.
        recipe: see ArrayStream.
        attributes: what was kept beside it, and what it cost (see ArrayStoreDataset).
    """

    index: pd.DataFrame
    values: StoredRows | np.ndarray
    keys: Sequence[str] = ()
    recipe: dict[str, Any] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)

    def find_rows(self, image_ids: Iterable[str]) -> np.ndarray:
        """Return int64 (n,) positions of images that have exactly one row each.

        Raises KeyError naming the first image that is not there.
        """
        ids = list(image_ids)
        positions = pd.Index(self.index["image_id"]).get_indexer(pd.Index(ids))
        if (positions < 0).any():
            missing = ids[int(np.argmax(positions < 0))]
            raise KeyError(
                f"image {missing!r} is in the split but not among the {len(self.index)} prepared "
                "images: rerun from `prepare_images` (the data changed since)."
            )
        return positions
