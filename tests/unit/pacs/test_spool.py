"""The spool: what is there is complete, and comes in the order of its arrival."""

import os
from datetime import date
from pathlib import Path

import pytest

from busi_pipeline.errors import BadInputError
from busi_pipeline.pacs.records import ANSWERED, OUTCOMES, Records
from busi_pipeline.pacs.spool import ResultKey, Spool

KEY = ResultKey("a" * 32, "0123456789ab", "c" * 16)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


def list_files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_images_come_in_the_order_of_their_arrival(spool: Spool) -> None:
    for number, name in enumerate(("c", "a", "b")):
        assert spool.keep_image(name, name.encode())
        os.utime(spool.folder / "images" / name, (number, number))
    assert spool.list_images() == ["c", "a", "b"]
    arrived = spool.read_image("a")
    assert arrived is not None
    assert (arrived.content, arrived.moment.timestamp()) == (b"a", 1)


def test_of_two_images_with_one_name_the_first_stays(spool: Spool) -> None:
    assert spool.keep_image("a", b"first")
    assert not spool.keep_image("a", b"second")
    arrived = spool.read_image("a")
    assert arrived is not None
    assert arrived.content == b"first"
    assert list_files(spool.folder) == ["a", "lock"]


def test_what_was_half_written_is_gone_after_a_crash(spool: Spool) -> None:
    half = spool.folder / "unfinished" / "x"
    half.mkdir()
    (half / "report.dcm").write_bytes(b"half")
    spool.close()
    again = Spool(spool.folder)
    assert again.list_results() == []
    assert list_files(spool.folder) == ["lock"]


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)


@pytest.mark.usefixtures("full_disk")
def test_a_crash_while_writing_leaves_no_image(spool: Spool) -> None:
    with pytest.raises(OSError, match="No space"):
        spool.keep_image("a", b"content")
    assert list_files(spool.folder) == ["lock"]


def test_results_go_and_come_together(spool: Spool) -> None:
    objects = {"report.dcm": b"report", "picture.dcm": b"picture"}
    spool.keep_results(KEY, objects, ANSWERED)
    assert spool.list_results() == [KEY]
    results = spool.read_results(KEY)
    assert results.objects == (b"report", b"picture")
    assert results.outcome == ANSWERED
    assert spool.find_outcomes(KEY.image, KEY.version) == {KEY.content: ANSWERED}
    assert spool.holds_image(KEY.image)
    spool.drop_results(KEY)
    assert spool.find_outcomes(KEY.image, KEY.version) == {}
    assert list_files(spool.folder) == ["lock"]


@pytest.mark.usefixtures("full_disk")
def test_results_that_cannot_be_written_leave_nothing(spool: Spool) -> None:
    with pytest.raises(OSError, match="No space"):
        spool.keep_results(KEY, {"report.dcm": b"report"}, ANSWERED)
    assert list((spool.folder / "unfinished").iterdir()) == []


def test_of_refused_results_only_the_refused_objects_stay(spool: Spool) -> None:
    spool.keep_results(KEY, {"report.dcm": b"report", "picture.dcm": b"picture"}, ANSWERED)
    spool.refuse_results(KEY, [1])
    assert spool.list_results() == []
    (kept,) = (spool.folder / "refused").iterdir()
    assert list_files(kept) == ["about.json", "picture.dcm"]
    kept.rename(spool.folder / "results" / kept.name)
    assert spool.read_results(KEY).objects == (b"picture",)


def test_damaged_results_hide_no_image(spool: Spool) -> None:
    spool.keep_results(KEY, {"report.dcm": b"report"}, ANSWERED)
    (spool.folder / "results" / KEY.folder / "about.json").write_bytes(b"{")
    assert spool.find_outcomes(KEY.image, KEY.version) == {KEY.content: ""}


def test_a_damaged_table_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "done.sqlite").write_bytes(b"no table" * 1000)
    with pytest.raises(BadInputError, match="put a copy of it back, or move it away") as caught:
        Records(tmp_path / "done.sqlite")
    assert "\n" not in str(caught.value)


def test_only_the_owner_can_read_what_is_kept(spool: Spool) -> None:
    spool.keep_image("a", b"content")
    spool.keep_results(KEY, {"report.dcm": b"report"}, ANSWERED)
    for path in spool.folder.rglob("*"):
        if path.name != "lock":
            assert path.stat().st_mode & 0o077 == 0, path.name


def test_two_nodes_do_not_share_a_spool(spool: Spool) -> None:
    with pytest.raises(BadInputError, match="another node uses"):
        Spool(spool.folder)
    spool.close()
    Spool(spool.folder)


def test_records_outlive_the_node(tmp_path: Path) -> None:
    path = tmp_path / "done.sqlite"
    records = Records(path)
    records.add(KEY, ANSWERED)
    records.add_turned_away("b")
    records.keep_look(date(2025, 1, 2))
    records.close()
    again = Records(path)
    assert again.find_outcome(KEY.image, KEY.version) == (KEY.content, ANSWERED)
    assert again.find_outcome(KEY.image, "other") is None
    assert (again.holds_turned_away("b"), again.holds_turned_away("c")) == (True, False)
    assert again.find_look() == date(2025, 1, 2)
    assert again.holds_image(KEY.image)
    assert again.count() == dict.fromkeys(OUTCOMES, 0) | {ANSWERED: 1}
