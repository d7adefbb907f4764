"""What readers said, before and after they saw an answer: a file of one line an event.

Lines are only ever added, and name files by hashes alone.
"""

import csv
import json
import logging
import os
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import pandas as pd

from busi_pipeline.errors import BadInputError
from busi_pipeline.models.packaged import READER
from busi_pipeline.stats.classes import Classes
from busi_pipeline.stats.readers import CATEGORIES

logger = logging.getLogger(__name__)

READ, ANSWER, DECISION = "read", "answer", "decision"
COLUMNS: Final = (
    "time",
    "event",
    "reader",
    "case",
    "item",
    "byte_sha256",
    "pixel_sha256",
    "width",
    "height",
    "frame",
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

# What each event must have, besides reader, case and hashes.
_NEEDED: Final[dict[str, dict[str, type]]] = {
    READ: {"birads": str, "blinded": bool},
    ANSWER: {"flagged": bool, "model_version": str},
    DECISION: {"birads": str},
}
_TEXTS: Final = ("time", "reader", "case", "byte_sha256", "pixel_sha256")


class Undecided(NamedTuple):
    """A read that waits for a decision.

    Attributes:
        case: its key.
        first: the category.
        box: the reader's, four texts, or None.
        is_blinded: whether the reader had not seen an answer before.
    """

    case: str
    first: str
    box: tuple[str, ...] | None
    is_blinded: bool


class Readings:
    """The file, and what follows from it: who saw an answer on which image, what is undecided."""

    def __init__(self, path: Path):
        """Read what is there; the file is made with the first event. Raises BadInputError."""
        self._path = path
        self._lock = threading.Lock()
        self._answered: set[tuple[str, str]] = set()
        self._undecided: dict[tuple[str, str], Undecided] = {}
        self._items: set[tuple[str, str]] = set()
        for event in self.list_events():
            self._remember(event)

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
                self._append(json.dumps(line))
            except OSError as error:
                raise BadInputError(
                    f"what readers say cannot be kept in {self._path}: {error.strerror or error}. "
                    "Start the service with another file: --readings."
                ) from None
            self._remember(line)

    def _append(self, line: str) -> None:
        # In one write, which the system appends whole, also beside another process.
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            length = os.fstat(file).st_size
            begin = "" if not length or os.pread(file, 1, length - 1) == b"\n" else "\n"
            content = f"{begin}{line}\n".encode()
            if os.write(file, content) < len(content):
                raise OSError("there is no room left")
            os.fsync(file)
        finally:
            os.close(file)

    def has_seen_answer(self, reader: str, *hashes: str) -> bool:
        """Return whether a reader has seen an answer on a file, or an image, of these hashes."""
        return any((reader.casefold(), own) in self._answered for own in hashes)

    def find_undecided(self, reader: str, byte_sha256: str) -> Undecided | None:
        """Return what a reader read of a file and did not decide on; None where there is none."""
        return self._undecided.get((reader.casefold(), byte_sha256))

    def has_read_item(self, reader: str, item: str) -> bool:
        """Return whether a reader has read an image of the worklist."""
        return (reader.casefold(), item) in self._items

    def list_events(self) -> list[dict[str, Any]]:
        """Return all events; a line that is damaged is left out, and the log says so.

        Raises BadInputError where the file cannot be read.
        """
        try:
            content = self._path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return []
        except OSError as error:
            raise BadInputError(
                f"--readings {self._path} cannot be read: {error.strerror or error}."
            ) from None
        lines = content.splitlines()
        events = [event for line in lines if (event := _read_event(line)) is not None]
        if len(events) < len(lines):
            logger.warning("%s: %d damaged lines left out", self._path, len(lines) - len(events))
        return events

    def list_reads(self, truths: dict[str, bool] | None = None) -> pd.DataFrame:
        """Return what stats.readers.count_changes takes: blinded reads whose answer was seen.

        Args:
            truths: {byte_sha256: whether it is positive}.

        Of several reads of one file by one reader, the first counts.
        """
        cases: dict[str, dict[str, Any]] = {}
        for event in self.list_events():
            case = cases.setdefault(event["case"], {"final": None})
            if event["event"] == READ and event["blinded"] and "first" not in case:
                case |= {name: event[name] for name in ("reader", "byte_sha256", "pixel_sha256")}
                case["first"] = event["birads"]
            elif event["event"] == DECISION:
                case["final"] = event["birads"]
            elif (
                event["event"] == ANSWER
                and event.get("box_source") != READER
                and "flagged" not in case
            ):
                case |= {name: event[name] for name in ("flagged", "model_version")}
        names = ["reader", "byte_sha256", "pixel_sha256", "first", "flagged", "model_version"]
        whole = [case for case in cases.values() if all(name in case for name in names)]
        table = pd.DataFrame(whole, columns=[*names, "final"])
        known = truths or {}
        table["is_positive"] = [known.get(own) for own in table["byte_sha256"]]
        once = table.assign(reader=table["reader"].str.casefold())
        first = ~once.duplicated(["reader", "pixel_sha256"])
        return table[first].reset_index(drop=True)

    def _remember(self, event: dict[str, Any]) -> None:
        reader, file = event["reader"].casefold(), event["byte_sha256"]
        if event["event"] == ANSWER:
            self._answered |= {(reader, file), (reader, event["pixel_sha256"])}
        elif event["event"] == DECISION:
            self._undecided.pop((reader, file), None)
        else:
            box = tuple(str(event.get("box") or "").split(",")) if event.get("box") else None
            self._undecided[reader, file] = Undecided(
                event["case"], event["birads"], box, event["blinded"]
            )
            self._items.add((reader, str(event.get("item") or "")))


def _read_event(line: str) -> dict[str, Any] | None:
    """Return an event; None for a line that is none."""
    try:
        event = dict(json.loads(line))
    except (ValueError, TypeError):
        return None
    needed = _NEEDED.get(event.get("event", ""))
    if needed is None or not all(isinstance(event.get(name), str) for name in _TEXTS):
        return None
    if not all(isinstance(event.get(name), kind) for name, kind in needed.items()):
        return None
    return event if event.get("birads") in (None, *CATEGORIES) else None


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
        found = ", ".join(str(name) for name in rows[0])
        raise BadInputError(f"--truth {path}: {allowed}; got {found}.")
    truths: dict[str, bool] = {}
    for number, row in enumerate(rows, 2):
        if row["label"] not in classes.names:
            raise BadInputError(
                f"--truth {path}, line {number}: label must be one of "
                f"{', '.join(classes.names)}; got {row['label']!r}."
            )
        name, positive = str(row["byte_sha256"]).strip().lower(), row["label"] in classes.positive
        if truths.setdefault(name, positive) != positive:
            raise BadInputError(
                f"--truth {path}, line {number}: {name} has another label further up."
            )
    return truths
