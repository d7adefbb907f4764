"""What readers said, before and after they saw an answer: a file of one line an event.

Lines are only ever added, and name files by their hash alone.
"""

import csv
import json
import logging
import os
import threading
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pandas as pd

from busi_pipeline.errors import BadInputError
from busi_pipeline.stats.classes import Classes

logger = logging.getLogger(__name__)

READ, ANSWER, DECISION = "read", "answer", "decision"
COLUMNS: Final = (
    "time",
    "event",
    "reader",
    "case",
    "byte_sha256",
    "birads",
    "blinded",
    "seconds",
    "box",
    "model",
    "model_version",
    "positive_score",
    "threshold",
    "flagged",
    "refer",
    "reasons",
    "box_source",
)
"""Of an event, for a table; what an event does not have is empty."""


class Readings:
    """The file, and who saw an answer on which image."""

    def __init__(self, path: Path):
        """Read what is there; the file is made with the first event."""
        self._path = path
        self._lock = threading.Lock()
        self._answered: set[tuple[str, str]] = set()
        for event in self.list_events():
            self._remember(event)

    @property
    def path(self) -> Path:
        """Of the file."""
        return self._path

    def add(self, event: str, reader: str, **values: Any) -> None:
        """Keep an event: on disk before this returns; raises BadInputError where it cannot be."""
        line = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "event": event,
            "reader": reader,
            **values,
        }
        with self._lock:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                # In one write, which the system appends whole, also beside another process.
                file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
                try:
                    length = os.fstat(file).st_size
                    begin = "" if not length or os.pread(file, 1, length - 1) == b"\n" else "\n"
                    os.write(file, f"{begin}{json.dumps(line)}\n".encode())
                    os.fsync(file)
                finally:
                    os.close(file)
            except OSError as error:
                raise BadInputError(
                    f"what readers say cannot be kept in {self._path}: {error.strerror or error}. "
                    "Start the service with another file: --readings."
                ) from None
            self._remember(line)

    def has_seen_answer(self, reader: str, byte_sha256: str) -> bool:
        """Return whether a reader has seen an answer on this file."""
        return (reader.casefold(), byte_sha256) in self._answered

    def list_events(self) -> list[dict[str, Any]]:
        """Return all events; a line that was cut off is left out, and the log says so."""
        if not self._path.is_file():
            return []
        events, damaged = [], 0
        for line in self._path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                event = dict(json.loads(line))
                str(event["event"]), str(event["reader"]), str(event["byte_sha256"])
            except (ValueError, TypeError, KeyError):
                damaged += 1
            else:
                events.append(event)
        if damaged:
            logger.warning("%s: %d damaged lines left out", self._path, damaged)
        return events

    def list_reads(self, truths: "dict[str, bool] | None" = None) -> pd.DataFrame:
        """Return what stats.readers.count_changes takes: blinded reads with a decision.

        Args:
            truths: {byte_sha256: whether it is positive}.

        Of several reads of one file by one reader, the first counts.
        """
        cases: dict[str, dict[str, Any]] = {}
        for event in self.list_events():
            case = cases.setdefault(str(event.get("case")), {})
            if event["event"] == READ and event.get("blinded") and "first" not in case:
                case |= {"reader": event["reader"], "byte_sha256": event["byte_sha256"]}
                case["first"] = event["birads"]
            elif event["event"] == ANSWER and "flagged" not in case:
                case["flagged"] = event["flagged"]
            elif event["event"] == DECISION:
                case["final"] = event["birads"]
        names = ["reader", "byte_sha256", "first", "flagged", "final"]
        whole = [case for case in cases.values() if all(name in case for name in names)]
        table = pd.DataFrame(whole, columns=names)
        known = truths or {}
        table["is_positive"] = [known.get(own) for own in table["byte_sha256"]]
        first = ~pd.DataFrame(
            {"reader": table["reader"].str.casefold(), "file": table["byte_sha256"]}
        ).duplicated()
        return table[first].reset_index(drop=True)

    def _remember(self, event: dict[str, Any]) -> None:
        if event["event"] == ANSWER:
            self._answered.add((str(event["reader"]).casefold(), str(event["byte_sha256"])))


def read_truths(path: Path | None, classes: Classes) -> dict[str, bool]:
    """Return {byte_sha256: whether it is positive} of a CSV file; raises BadInputError.

    Args:
        path: with columns `byte_sha256` and `label`; None for none.
        classes: that the labels are of.
    """
    if path is None:
        return {}
    allowed = "it must be a CSV file with the columns byte_sha256 and label"
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise BadInputError(f"--truth {path} cannot be read: {reason}; {allowed}.") from None
    if rows and not {"byte_sha256", "label"} <= set(rows[0]):
        raise BadInputError(f"--truth {path}: {allowed}; got {_list_names(rows[0])}.")
    for number, row in enumerate(rows, 2):
        if row["label"] not in classes.names:
            raise BadInputError(
                f"--truth {path}, line {number}: label must be one of "
                f"{', '.join(classes.names)}; got {row['label']!r}."
            )
    return {row["byte_sha256"].strip().lower(): row["label"] in classes.positive for row in rows}


def _list_names(names: Collection[Any]) -> str:
    return ", ".join(str(name) for name in names)
