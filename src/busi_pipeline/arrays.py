"""Arrays too large for memory: written in chunks, read as a memory map, rows named by a table."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class ArrayStream:
    """An array on its way to disk.

    Attributes:
        index: one row per row of the array, in order; at least a column `image_id`.
        shape: of one row, without the leading axis.
        dtype: of the array.
        chunks: arrays (n, *shape) which, one after the other, make up the whole.
        describe: asked once after the last chunk for what is to be kept beside the array.
    """

    index: pd.DataFrame
    shape: tuple[int, ...]
    dtype: str
    chunks: Iterable[np.ndarray]
    describe: Callable[[], dict[str, Any]] = field(default=dict)


@dataclass(frozen=True)
class StoredArray:
    """An array on disk.

    Attributes:
        index: one row per row of `values`, in order; at least a column `image_id`.
        values: (rows, ...), a read-only memory map.
        attributes: what was kept beside it.
    """

    index: pd.DataFrame
    values: np.ndarray
    attributes: dict[str, Any]

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
