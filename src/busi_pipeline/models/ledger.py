"""Which model was in use when: a file of one line an event, each with the hash of the line before.

Lines are only ever added. Whoever changes or removes one breaks the chain, which every reading
checks; a removed end shows against the head that was noted elsewhere, see `Ledger.head`. Nothing
here needs MLflow, Kedro or TensorFlow.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from busi_pipeline.caching.places import Place
from busi_pipeline.errors import BadInputError

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
ROLES: Final = (CHAMPION, CHALLENGER, PREVIOUS)
PROMOTE, CHALLENGE, ROLL_BACK = "promote", "challenge", "rollback"
ACTIONS: Final = (PROMOTE, CHALLENGE, ROLL_BACK)
START: Final = "0" * 64
"""What stands before the first line."""


class Entry(NamedTuple):
    """One event.

    Attributes:
        number: 1 for the first.
        time: ISO 8601, UTC, to the second.
        action: one of ACTIONS.
        version, experiment: of the model that it is about.
        roles: {role: version} from then on.
        who, why: in the words of whoever did it.
        registered: {version: number of its MLflow version} of the models in `roles`.
        gate: what was asked of the model, and what it had; see pipelines.promotion.
        before: SHA-256 of the line before.
    """

    number: int
    time: str
    action: str
    version: str
    experiment: str
    roles: dict[str, str]
    who: str
    why: str
    registered: dict[str, str]
    gate: list[dict[str, Any]]
    before: str


class Ledger(NamedTuple):
    """The events so far.

    Attributes:
        path: of the file.
        entries: in their order.
        head: SHA-256 of the last line; START where there is none.
    """

    path: Place
    entries: tuple[Entry, ...]
    head: str

    @property
    def roles(self) -> dict[str, str]:
        """{role: version} now."""
        return dict(self.entries[-1].roles) if self.entries else {}

    @property
    def registered(self) -> dict[str, str]:
        """{version: number of its MLflow version} of every model that ever had a role."""
        return {v: number for entry in self.entries for v, number in entry.registered.items()}

    def find_experiment(self, version: str) -> str:
        """Return the experiment that a version is of; "" where the ledger does not have it."""
        named = {entry.version: entry.experiment for entry in self.entries}
        return named.get(version, "")

    def roles_on(self, moment: datetime) -> dict[str, str]:
        """Return {role: version} at a moment, which must have a time zone."""
        before = [e for e in self.entries if datetime.fromisoformat(e.time) <= moment]
        return dict(before[-1].roles) if before else {}


def read_ledger(path: Place) -> Ledger:
    """Return the ledger in a file; an empty one where there is no file.

    Raises BadInputError, one line, where a line is damaged or the chain is broken.
    """
    lines = path.read_bytes().split(b"\n") if path.is_file() else [b""]
    entries, head = [], START
    for number, line in enumerate(lines[:-1], 1):
        entries.append(_read_line(line, number, head, path))
        head = hashlib.sha256(line).hexdigest()
    if lines[-1]:
        raise BadInputError(
            f"{path}, line {len(lines)}, was cut off while it was written, so it never took "
            "effect: remove it."
        )
    return Ledger(path, tuple(entries), head)


def _read_line(line: bytes, number: int, before: str, path: Place) -> Entry:
    try:
        entry = Entry(**json.loads(line))
        datetime.fromisoformat(entry.time)
    except (ValueError, TypeError):
        raise BadInputError(f"{path}, line {number}, is damaged: it is no entry.") from None
    if entry.before != before or entry.number != number:
        raise BadInputError(
            f"{path}, line {number}, does not follow from line {number - 1}: one of them was "
            "changed, removed or added. Compare with a copy of the file."
        )
    return entry


def append_entry(
    ledger: Ledger,
    action: str,
    version: str,
    experiment: str,
    roles: Mapping[str, str],
    who: str,
    why: str,
    registered: Mapping[str, str],
    gate: Sequence[Mapping[str, Any]] = (),
    now: datetime | None = None,
) -> Ledger:
    """Add an entry, on disk before this returns; see Entry. Return the ledger with it.

    Args:
        ledger: as it was read. The caller holds the lock.
        now: with a time zone; the present by default. An entry is never dated before the last.

    Raises BadInputError where the file has changed since.
    """
    if read_ledger(ledger.path).head != ledger.head:
        raise BadInputError(f"{ledger.path} was changed by another run: run this one again.")
    time = (now or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="seconds")
    if ledger.entries:
        time = max(time, ledger.entries[-1].time)
    entry = Entry(
        len(ledger.entries) + 1,
        time,
        action,
        version,
        experiment,
        {role: roles[role] for role in ROLES if role in roles},
        who,
        why,
        dict(registered),
        [dict(line) for line in gate],
        ledger.head,
    )
    line = json.dumps(entry._asdict(), allow_nan=False).encode()
    ledger.path.parent.mkdir(parents=True, exist_ok=True)
    with ledger.path.open("ab") as file:
        file.write(line + b"\n")
        file.flush()
        os.fsync(file.fileno())
    return Ledger(ledger.path, (*ledger.entries, entry), hashlib.sha256(line).hexdigest())
