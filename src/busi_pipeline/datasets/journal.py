"""What a long run has done already, a line each: the next run goes on from there."""

import json
import logging
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset, DatasetError

from busi_pipeline.caching.places import Place, find_place

logger = logging.getLogger(__name__)


class Journal:
    """Records by key. A record is on disk before `add` returns.

    A line that was cut off, as by a power failure, is left out. In object storage, where nothing
    can be appended, each line is an object in a folder of the journal's name.
    """

    def __init__(self, path: Place):
        """Read what is there."""
        self._path = path
        self._records: dict[str, dict[str, Any]] = {}
        damaged = 0
        for line in self._read_lines():
            try:
                entry = json.loads(line)
                self._records[entry["key"]] = entry["record"]
            except (ValueError, TypeError, KeyError):
                damaged += 1
        if damaged:
            logger.warning("%s: %d damaged lines left out", path, damaged)

    def _read_lines(self) -> Iterator[str]:
        if not isinstance(self._path, Path):
            lines = sorted(self._path.fs.find(self._path.path))
            whole = [None] * len(lines)
            for content in self._path.fs.cat_ranges(lines, whole, whole, on_error="raise"):
                yield content.decode(errors="replace")
        elif self._path.is_file():
            yield from self._path.read_text(encoding="utf-8", errors="replace").splitlines()

    def __contains__(self, key: str) -> bool:
        return key in self._records

    def items(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield keys and records in the order in which they were added."""
        yield from self._records.items()

    def __getitem__(self, key: str) -> dict[str, Any]:
        return self._records[key]

    def add(self, key: str, record: dict[str, Any]) -> None:
        """Keep a record, which must be JSON."""
        line = json.dumps({"key": key, "record": record})
        if not isinstance(self._path, Path):
            (self._path / f"{time.time_ns()}-{uuid.uuid4().hex}.json").write_text(line)
            self._records[key] = record
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            # After a line that was cut off, a new one begins.
            file.write(line + "\n" if self._ends_line() else f"\n{line}\n")
        self._records[key] = record

    def _ends_line(self) -> bool:
        assert isinstance(self._path, Path)
        if not self._path.is_file() or not self._path.stat().st_size:
            return True
        with self._path.open("rb") as file:
            file.seek(-1, 2)
            return file.read(1) == b"\n"


class JournalDataset(AbstractDataset[None, Journal]):
    """A journal in a file; a node writes to it while it runs.

    Args:
        filepath: of the JSON lines.
        metadata: for Kedro-Viz.
    """

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None):
        self._filepath = find_place(filepath)
        self.metadata = metadata

    def load(self) -> Journal:
        """Return the journal as it is on disk."""
        return Journal(self._filepath)

    def save(self, data: None) -> None:
        """Refuse: records are added one by one."""
        raise DatasetError("a journal is written by the node that reads it")

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}
