"""A run that was interrupted goes on from its last whole line."""

import uuid
from pathlib import Path

import pytest

from busi_pipeline.caching.places import find_place
from busi_pipeline.datasets.journal import Journal, JournalDataset


def test_records_are_on_disk_as_they_come(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "journal.jsonl"
    journal = JournalDataset(filepath=str(path)).load()
    assert "a" not in journal
    journal.add("a", {"score": 0.5, "text": "ä\nb"})
    again = Journal(path)
    assert again["a"] == {"score": 0.5, "text": "ä\nb"}
    again.add("a", {"score": 0.7})
    assert Journal(path)["a"] == {"score": 0.7}


def test_a_line_that_was_cut_off_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "journal.jsonl"
    for key in ("a", "b"):
        Journal(path).add(key, {"score": 1})
    whole = path.read_bytes()
    for cut in range(1, 20):
        path.write_bytes(whole[:-cut])
        journal = Journal(path)
        assert "a" in journal
        journal.add("c", {"score": 2})
        after = Journal(path)
        assert after["c"] == {"score": 2}
        assert ("b" in after) is (cut == 1), "only the end of the line was lost"
    assert "1 damaged lines left out" in caplog.text


def test_in_object_storage_each_record_is_an_object() -> None:
    path = find_place(f"memory://{uuid.uuid4().hex}/journal.jsonl")
    assert list(Journal(path).items()) == []
    journal = Journal(path)
    for number in range(3):
        journal.add(f"image {number}", {"score": number})
        assert list(Journal(path).items())[-1] == (f"image {number}", {"score": number})
    assert len(list(Journal(path).items())) == 3
