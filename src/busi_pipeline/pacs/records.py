"""Which images are done: a line each, without patient data, that outlives the node."""

import sqlite3
import threading
from datetime import UTC, datetime
from pathlib import Path

from busi_pipeline.pacs.spool import ResultKey

ANSWERED, UNUSABLE, OTHER_BODY_PART, REFUSED = (
    *("answered", "unusable", "other_body_part", "refused"),
)
OUTCOMES = (ANSWERED, UNUSABLE, OTHER_BODY_PART, REFUSED)

_TABLE = """
CREATE TABLE IF NOT EXISTS done (
    image TEXT NOT NULL, version TEXT NOT NULL, content TEXT NOT NULL, outcome TEXT NOT NULL,
    time TEXT NOT NULL, PRIMARY KEY (image, version)
)
"""


class Records:
    """A table of images that are done, by name and version of the model."""

    def __init__(self, path: Path):
        """Open the file, made where there is none."""
        self._lock = threading.Lock()
        self._table = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._table.execute("PRAGMA synchronous=FULL")
        self._table.execute(_TABLE)

    def add(self, key: ResultKey, content: str, outcome: str) -> None:
        """Keep durably what became of an image; one that was kept before is replaced.

        Args:
            key: of the image and the model.
            content: SHA-256 of the image's file.
            outcome: one of OUTCOMES.
        """
        now = datetime.now(UTC).isoformat(timespec="seconds")
        with self._lock:
            self._table.execute(
                "INSERT OR REPLACE INTO done VALUES (?, ?, ?, ?, ?)",
                (key.image, key.version, content, outcome, now),
            )

    def find_content(self, key: ResultKey) -> str | None:
        """Return the SHA-256 of the file that an answer is of; None where there is none."""
        rows = self._ask("SELECT content FROM done WHERE image = ? AND version = ?", *key)
        return rows[0][0] if rows else None

    def holds_image(self, name: str) -> bool:
        """Return whether any model is done with an image."""
        return bool(self._ask("SELECT 1 FROM done WHERE image = ? LIMIT 1", name))

    def count(self) -> dict[str, int]:
        """Return {outcome: number of images}."""
        found = dict(self._ask("SELECT outcome, COUNT(*) FROM done GROUP BY outcome"))
        return {outcome: found.get(outcome, 0) for outcome in OUTCOMES}

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._table.close()

    def _ask(self, question: str, *values: str) -> list[tuple]:
        with self._lock:
            return self._table.execute(question, values).fetchall()
