"""The cache, and arrays whose rows lie in it, as datasets of the catalog."""

import json
from collections.abc import Mapping
from typing import Any

import pandas as pd
from kedro.io import AbstractDataset, DatasetError

from busi_pipeline.caching.arrays import StoredArray
from busi_pipeline.caching.cache import Cache
from busi_pipeline.caching.fingerprints import Fingerprint
from busi_pipeline.caching.places import find_place
from busi_pipeline.caching.whole_files import write_whole
from busi_pipeline.errors import BadInputError


class CacheDataset(AbstractDataset[None, Cache]):
    """The cache of the project, for nodes that compute what is kept in it.

    Args:
        path: its folder; deleting it costs only the time to compute again.
        metadata: for Kedro-Viz.
    """

    def __init__(self, path: str, metadata: dict[str, Any] | None = None):
        self._path = find_place(path)
        self.metadata = metadata

    def load(self) -> Cache:
        """Return the cache; the folder need not be there yet."""
        return Cache(self._path)

    def save(self, data: None) -> None:
        """Refuse: nodes store values in the cache they are given."""
        raise DatasetError("the cache is not saved as a whole: nodes store values in it")

    def _exists(self) -> bool:
        return True

    def _describe(self) -> dict[str, Any]:
        return {"path": str(self._path)}


class CachedArrayDataset(AbstractDataset[StoredArray, StoredArray]):
    """An array in the cache: one JSON file with its index, the keys of its rows, its fingerprint.

    The file is replaced as a whole, so that a reader never sees the index of one array beside the
    keys of another.

    Args:
        filepath: of the JSON file.
        cache: folder of the cache; in the catalog `{path: <folder>}`, since Kedro takes a relative
            path as one below the project under this key alone.
        metadata: for Kedro-Viz.
    """

    def __init__(
        self,
        filepath: str,
        cache: str | Mapping[str, str],
        metadata: dict[str, Any] | None = None,
    ):
        self._filepath = find_place(filepath)
        self._cache = Cache(find_place(cache if isinstance(cache, str) else cache["path"]))
        self.metadata = metadata

    def load(self) -> StoredArray:
        """Return the array; raises DatasetError where it was never saved, BadInputError where rows
        of it are no longer in the cache."""
        if not self._exists():
            raise BadInputError(f"nothing at {self._filepath}: run the stage that writes it first.")
        saved = json.loads(self._filepath.read_text())
        fingerprint = Fingerprint(saved["fingerprint"]["step"], saved["fingerprint"]["values"])
        index = pd.DataFrame(saved["index"])
        return self._cache.open_array(fingerprint, index, saved["keys"], saved["metadata"])

    def save(self, data: StoredArray) -> None:
        """Write index, keys, fingerprint and metadata; the rows are in the cache already."""
        record = {
            "fingerprint": data.fingerprint.describe(),
            "metadata": data.metadata,
            "index": data.index.to_dict("list"),
            "keys": list(data.keys),
        }
        with write_whole(self._filepath) as file:
            file.write(json.dumps(record).encode())

    def _exists(self) -> bool:
        return self._filepath.is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}
