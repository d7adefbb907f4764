"""A folder with one array, written in chunks and read as a memory map."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from kedro.io import AbstractDataset, DatasetError

from busi_pipeline.arrays import ArrayStream, StoredArray


class ArrayStoreDataset(AbstractDataset[ArrayStream, StoredArray]):
    """`<path>/values.npy`, `index.csv` and `attributes.json`.

    The folder appears under its name only when all of it is written: a run that was stopped in
    the middle leaves nothing that could be taken for the whole.
    """

    def __init__(self, path: str, metadata: dict[str, Any] | None = None):
        self._path = Path(path)
        self.metadata = metadata

    def load(self) -> StoredArray:
        """Return the array with its index; raises DatasetError where it was not saved yet."""
        if not self._exists():
            raise DatasetError(f"nothing at {self._path}: run the stage that writes it first.")
        return StoredArray(
            index=pd.read_csv(self._path / "index.csv", dtype={"image_id": str}),
            values=np.load(self._path / "values.npy", mmap_mode="r"),
            attributes=json.loads((self._path / "attributes.json").read_text()),
        )

    def save(self, data: ArrayStream) -> None:
        """Write the stream chunk by chunk; raises DatasetError where it is shorter or longer."""
        unfinished = self._path.with_name(self._path.name + ".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        rows = len(data.index)
        values = np.lib.format.open_memmap(
            unfinished / "values.npy", mode="w+", dtype=data.dtype, shape=(rows, *data.shape)
        )
        written = 0
        for chunk in data.chunks:
            if written + len(chunk) > rows:
                raise DatasetError(f"{self._path.name}: more rows came than the index has ({rows})")
            values[written : written + len(chunk)] = chunk
            written += len(chunk)
        if written != rows:
            raise DatasetError(f"{self._path.name}: {written} rows came, the index has {rows}")
        values.flush()
        del values
        data.index.to_csv(unfinished / "index.csv", index=False)
        (unfinished / "attributes.json").write_text(json.dumps(data.describe(), indent=2))
        shutil.rmtree(self._path, ignore_errors=True)
        unfinished.rename(self._path)

    def _exists(self) -> bool:
        return (self._path / "attributes.json").is_file()

    def _describe(self) -> dict[str, Any]:
        return {"path": str(self._path)}
