"""Which images are done: a line each, without patient data, that outlives the node."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path

from busi_pipeline.errors import BadInputError
from busi_pipeline.pacs.spool import ResultKey

ANSWERED, UNUSABLE, OTHER_BODY_PART, FAILED, REFUSED = (
    *("answered", "unusable", "other_body_part", "failed", "refused"),
)
OUTCOMES = (ANSWERED, UNUSABLE, OTHER_BODY_PART, FAILED, REFUSED)

_TABLES = (
    """
    CREATE TABLE IF NOT EXISTS done (
        image TEXT NOT NULL, version TEXT NOT NULL, content TEXT NOT NULL, outcome TEXT NOT NULL,
        time TEXT NOT NULL, PRIMARY KEY (image, version)
    )
    """,
    "CREATE TABLE IF NOT EXISTS turned_away (image TEXT NOT NULL PRIMARY KEY)",
    "CREATE TABLE IF NOT EXISTS looks (number INTEGER PRIMARY KEY CHECK (number = 1), day TEXT)",
)


class Records:
    """A table of images that are done, by name and version of the model; and what was looked at."""

    def __init__(self, path: Path):
        """Open the file, made where there is none; raises BadInputError where it is damaged."""
        self._lock = threading.Lock()
        with _explain(path):
            self._table = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        try:
            with _explain(path):
                self._table.execute("PRAGMA synchronous=FULL")
                for table in _TABLES:
                    self._table.execute(table)
                self.count()
        except BadInputError:
            self._table.close()
            raise

    def add(self, key: ResultKey, outcome: str) -> None:
        """Keep durably what became of an image; one that was kept before is replaced.

        Args:
            key: of the image, the model and the content.
            outcome: one of OUTCOMES.
        """
        now = datetime.now(UTC).isoformat(timespec="seconds")
        values = (key.image, key.version, key.content, outcome, now)
        self._ask("INSERT OR REPLACE INTO done VALUES (?, ?, ?, ?, ?)", *values)

    def find_outcome(self, image: str, version: str) -> tuple[str, str] | None:
        """Return content and outcome of an image; None where the model is not done with it."""
        question = "SELECT content, outcome FROM done WHERE image = ? AND version = ?"
        rows = self._ask(question, image, version)
        return (rows[0][0], rows[0][1]) if rows else None

    def holds_image(self, name: str) -> bool:
        """Return whether any model is done with an image."""
        return bool(self._ask("SELECT 1 FROM done WHERE image = ? LIMIT 1", name))

    def count(self) -> dict[str, int]:
        """Return {outcome: number of images}."""
        found = dict(self._ask("SELECT outcome, COUNT(*) FROM done GROUP BY outcome"))
        return {outcome: found.get(outcome, 0) for outcome in OUTCOMES}

    def add_turned_away(self, image: str) -> None:
        """Keep durably that an image that was looked for is not taken."""
        self._ask("INSERT OR IGNORE INTO turned_away VALUES (?)", image)

    def holds_turned_away(self, image: str) -> bool:
        """Return whether an image was looked for, and not taken."""
        return bool(self._ask("SELECT 1 FROM turned_away WHERE image = ?", image))

    def keep_look(self, day: date) -> None:
        """Keep durably the day of a complete look at an archive."""
        self._ask("INSERT OR REPLACE INTO looks VALUES (1, ?)", day.isoformat())

    def find_look(self) -> date | None:
        """Return the day of the last complete look; None where there was none."""
        rows = self._ask("SELECT day FROM looks")
        return date.fromisoformat(rows[0][0]) if rows else None

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._table.close()

    def _ask(self, question: str, *values: str) -> list[tuple]:
        with self._lock:
            return self._table.execute(question, values).fetchall()


@contextmanager
def _explain(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise BadInputError(
            f"{path} cannot be used ({error}): put a copy of it back, or move it away. Without it, "
            "images that come again are answered again, with the same UIDs."
        ) from None
