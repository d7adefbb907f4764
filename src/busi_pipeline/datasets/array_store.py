"""Arrays on disk whose rows are shared: what one step computed, no other computes again."""

import json
import shutil
import time
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from kedro.io import AbstractDataset, DatasetError

from busi_pipeline.arrays import ArrayStream, StoredArray, StoredRows
from busi_pipeline.fingerprints import hash_values

_KEY_TYPE = np.dtype([("key", "S64"), ("seconds", "f4")])
# Of a part: small enough to lose when a run is stopped, large enough to be few.
_BYTES_A_PART = 32 * 2**20
_ROWS_A_PART = 1024


class RowPool:
    """Rows of one recipe, each under its key, in files that are added and never changed.

    `<folder>/recipe.json`; `<part>.npy` holds rows and `<part>.keys.npy` their keys and the seconds
    each took. A part counts once its keys are there, and they are written last, so that whoever is
    stopped in the middle loses the last part at most. Two processes may add at once.
    """

    def __init__(self, folder: Path, recipe: dict[str, Any]):
        self._folder = folder / hash_values(recipe)[:32]
        self._recipe = recipe

    def find(self, keys: Iterable[str]) -> dict[str, tuple[Path, int, float]]:
        """Return {key: (file of its part, row of it, seconds it took)} for the keys there are."""
        wanted = set(keys)
        found = {}
        for listing in sorted(self._folder.glob("*.keys.npy")):
            part = listing.with_name(listing.name.replace(".keys.npy", ".npy"))
            if not part.is_file():
                continue
            for row, (key, seconds) in enumerate(np.load(listing).tolist()):
                if key.decode() in wanted:
                    found[key.decode()] = (part, row, seconds)
        return found

    def add(self, stream: ArrayStream, positions: np.ndarray) -> None:
        """Compute the rows at these positions and keep them.

        Raises DatasetError where more or fewer rows come than positions were given.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / "recipe.json").write_text(json.dumps(self._recipe, indent=2))
        chunks: list[np.ndarray] = []
        listing: list[tuple[str, float]] = []
        written = 0
        begun = time.perf_counter()
        for chunk in stream.compute(positions):
            if written + len(listing) + len(chunk) > len(positions):
                raise DatasetError(f"more rows came than were asked for ({len(positions)})")
            seconds = (time.perf_counter() - begun) / max(1, len(chunk))
            start = written + len(listing)
            listing += [
                (stream.keys[position], seconds)
                for position in positions[start : start + len(chunk)]
            ]
            chunks.append(np.asarray(chunk, dtype=stream.dtype))
            if len(listing) >= _ROWS_A_PART or sum(c.nbytes for c in chunks) >= _BYTES_A_PART:
                self._write_part(np.concatenate(chunks), listing)
                written += len(listing)
                chunks, listing = [], []
            begun = time.perf_counter()
        if listing:
            self._write_part(np.concatenate(chunks), listing)
            written += len(listing)
        if written != len(positions):
            raise DatasetError(f"{written} rows came, {len(positions)} were asked for")

    def _write_part(self, rows: np.ndarray, listing: list[tuple[str, float]]) -> None:
        name = uuid.uuid4().hex
        for suffix, values in (
            (".npy", rows),
            (".keys.npy", np.array([(k.encode(), s) for k, s in listing], dtype=_KEY_TYPE)),
        ):
            unfinished = self._folder / f"{name}{suffix}.unfinished"
            with unfinished.open("wb") as file:
                np.save(file, values)
            unfinished.rename(self._folder / f"{name}{suffix}")


class ArrayStoreDataset(AbstractDataset[ArrayStream, StoredArray]):
    """`<path>/index.csv` with the key of each row, `<path>/attributes.json`, and rows in a pool.

    Args:
        path: folder of this array.
        pool: folder the rows are kept in, shared between arrays. Deleting it costs only the time
            to compute the rows again.
        metadata: for Kedro-Viz.

    A row is looked up in the pool by recipe and key, and computed where it is not there. `load`
    gives the attributes `seconds`, what all rows took when they were computed, `seconds_now`, what
    the last save spent, and `computed`, how many rows that were.
    """

    def __init__(self, path: str, pool: str, metadata: dict[str, Any] | None = None):
        self._path = Path(path)
        self._pool = Path(pool)
        self.metadata = metadata

    def load(self) -> StoredArray:
        """Return the array with its index; raises DatasetError where it, or a row, is missing."""
        if not self._exists():
            raise DatasetError(f"nothing at {self._path}: run the stage that writes it first.")
        index = pd.read_csv(self._path / "index.csv", dtype={"image_id": str, "key": str})
        attributes = json.loads((self._path / "attributes.json").read_text())
        keys = index["key"].tolist()
        recipe = attributes.pop("recipe")
        places = RowPool(self._pool, recipe).find(keys)
        if missing := len(set(keys) - set(places)):
            raise DatasetError(
                f"{missing} rows of {self._path} are no longer in {self._pool}: "
                "run the stage that writes them again."
            )
        files = sorted({part for part, _, _ in places.values()})
        number = {part: i for i, part in enumerate(files)}
        where = np.array([(number[places[key][0]], places[key][1]) for key in keys], dtype=np.int64)
        values = StoredRows(files, where)
        return StoredArray(index.drop(columns="key"), values, keys, recipe, attributes)

    def save(self, data: ArrayStream) -> None:
        """Compute the rows that are not in the pool yet, then write index and attributes."""
        if not len(data.index) == len(data.keys) > 0:
            raise DatasetError(
                f"{self._path.name}: {len(data.index)} rows in the index, {len(data.keys)} keys; "
                "as many keys as rows are needed, and at least one"
            )
        pool = RowPool(self._pool, data.recipe)
        unique = dict(zip(reversed(data.keys), reversed(range(len(data.keys))), strict=True))
        known = pool.find(unique)
        missing = np.array(sorted(unique[key] for key in unique if key not in known), dtype=int)
        begun = time.perf_counter()
        if len(missing):
            pool.add(data, missing)
            known = pool.find(unique)
        attributes = data.about | {
            "recipe": data.recipe,
            "seconds": float(sum(known[key][2] for key in unique)),
            "seconds_now": time.perf_counter() - begun if len(missing) else 0.0,
            "computed": len(missing),
        }
        unfinished = self._path.with_name(self._path.name + ".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        data.index.assign(key=data.keys).to_csv(unfinished / "index.csv", index=False)
        (unfinished / "attributes.json").write_text(json.dumps(attributes, indent=2))
        shutil.rmtree(self._path, ignore_errors=True)
        unfinished.rename(self._path)
        self._logger.info(
            "%s: %d rows, %d computed, %d kept from before",
            self._path.name,
            len(data.index),
            len(missing),
            len(unique) - len(missing),
        )

    def _exists(self) -> bool:
        return (self._path / "attributes.json").is_file()

    def _describe(self) -> dict[str, Any]:
        return {"path": str(self._path), "pool": str(self._pool)}
