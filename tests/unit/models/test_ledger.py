"""The ledger says who was the champion when, and notices every change."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from busi_pipeline.errors import BadInputError
from busi_pipeline.models.ledger import CHAMPION, PREVIOUS, Ledger, append_entry, read_ledger

DAY = datetime(2026, 11, 1, 12, tzinfo=UTC)


def add(ledger: Ledger, version: str, day: int, **roles: str) -> Ledger:
    return append_entry(
        ledger,
        "promote",
        version,
        "resnet50",
        roles or {CHAMPION: version},
        "an engineer",
        "it is better",
        {version: "1"},
        now=DAY + timedelta(days=day),
    )


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """Two champions, one after the other."""
    ledger = add(read_ledger(tmp_path / "ledger.jsonl"), "aaa", 0)
    return add(ledger, "bbb", 10, champion="bbb", previous="aaa")


def test_a_ledger_is_read_as_it_was_written(ledger: Ledger) -> None:
    assert read_ledger(ledger.path) == ledger
    assert ledger.roles == {CHAMPION: "bbb", PREVIOUS: "aaa"}
    assert [entry.number for entry in ledger.entries] == [1, 2]
    assert ledger.entries[0].before == "0" * 64
    assert ledger.find_experiment("aaa") == "resnet50"
    assert ledger.find_experiment("ccc") == ""


def test_no_file_is_an_empty_ledger(tmp_path: Path) -> None:
    empty = read_ledger(tmp_path / "none.jsonl")
    assert (empty.entries, empty.roles, empty.roles_on(DAY)) == ((), {}, {})


@pytest.mark.parametrize(("day", "champion"), [(-1, None), (0, "aaa"), (9, "aaa"), (10, "bbb")])
def test_the_champion_of_a_day_is_known(ledger: Ledger, day: int, champion: str | None) -> None:
    assert ledger.roles_on(DAY + timedelta(days=day)).get(CHAMPION) == champion


def test_an_entry_is_never_dated_before_the_last(ledger: Ledger) -> None:
    later = add(ledger, "ccc", -50)
    assert later.entries[-1].time == ledger.entries[-1].time


@pytest.mark.parametrize("line", [0, 1])
def test_a_changed_line_is_noticed(ledger: Ledger, line: int) -> None:
    """TRAP: the last line has no follower, so its own change shows only against a noted head."""
    lines = ledger.path.read_text().splitlines()
    changed = json.loads(lines[line]) | {"who": "somebody else"}
    lines[line] = json.dumps(changed)
    ledger.path.write_text("\n".join(lines) + "\n")
    if line == 1:
        assert read_ledger(ledger.path).head != ledger.head
    else:
        with pytest.raises(BadInputError, match="line 2, does not follow from line 1"):
            read_ledger(ledger.path)


def test_a_removed_line_is_noticed(ledger: Ledger) -> None:
    first, second = ledger.path.read_text().splitlines()
    ledger.path.write_text(second + "\n")
    with pytest.raises(BadInputError, match="line 1, does not follow from line 0"):
        read_ledger(ledger.path)
    ledger.path.write_text(first + "\n" + first + "\n")
    with pytest.raises(BadInputError, match="line 2, does not follow"):
        read_ledger(ledger.path)


@pytest.mark.parametrize("line", ["no JSON", "[]", '{"number": 3}'])
def test_a_damaged_line_is_named(ledger: Ledger, line: str) -> None:
    with ledger.path.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(BadInputError, match="line 3, is damaged"):
        read_ledger(ledger.path)


def test_a_line_that_was_cut_off_never_took_effect(ledger: Ledger) -> None:
    with ledger.path.open("a") as file:
        file.write('{"number": 3, "ti')
    with pytest.raises(BadInputError, match=r"line 3, was cut off.*remove it"):
        read_ledger(ledger.path)


def test_two_runs_cannot_both_add_to_what_they_read(ledger: Ledger) -> None:
    add(ledger, "ccc", 11)
    with pytest.raises(BadInputError, match="changed by another run"):
        add(ledger, "ddd", 12)
    assert read_ledger(ledger.path).roles == {CHAMPION: "ccc"}
