"""The poller: what one look misses the next one finds, and no image is fetched without end."""

import io
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests

from busi_pipeline.pacs import polling
from busi_pipeline.pacs.polling import Poller
from busi_pipeline.pacs.receiving import Door
from busi_pipeline.pacs.records import Records
from busi_pipeline.pacs.settings import make_node_settings
from busi_pipeline.pacs.spool import Spool
from tests.pacs_factories import make_image, write_image

TODAY = date(2025, 3, 10)


def find(tag: str, value: str) -> dict[str, Any]:
    return {tag: {"vr": "UI", "Value": [value]}}


class Archive:
    """Studies with an image each, {study: its number}; `failing` studies are not searched."""

    def __init__(self, *numbers: int):
        self.studies = {f"1.2.{number}": number for number in numbers}
        self.failing: set[str] = set()
        self.since: list[str] = []
        self.fetched: list[str] = []
        self.kind = 'multipart/related; type="application/dicom"; boundary="x y"'
        self.content: bytes | None = None

    def search_for_studies(self, search_filters: Any, offset: int, **_: Any) -> list[Any]:
        if offset:
            return []
        self.since.append(search_filters["StudyDate"])
        return [find("0020000D", study) for study in self.studies]

    def search_for_series(self, study: str, offset: int, **_: Any) -> list[Any]:
        if study in self.failing:
            raise ValueError("DOE^JANE")
        return [] if offset else [find("0020000E", "1.3")]

    def search_for_instances(self, study: str, series: str, offset: int, **_: Any) -> list[Any]:
        image = make_image(self.studies[study])
        found = find("00080018", image.SOPInstanceUID) | find("00080016", image.SOPClassUID)
        return [] if offset else [found]

    def get(self, address: str, **_: Any) -> requests.Response:
        self.fetched.append(address)
        number = int(address.rpartition(".")[2])
        content = self.content or write_image(number)
        response = requests.Response()
        response.status_code = 200
        response.headers["Content-Type"] = self.kind
        start = b"--x y\r\nContent-Type: application/dicom\r\n\r\n"
        response.raw = io.BytesIO(
            content if self.kind == "application/dicom" else start + content + b"\r\n--x y--"
        )
        return response


@pytest.fixture(autouse=True)
def _on_a_day(monkeypatch: pytest.MonkeyPatch) -> None:
    set_day(TODAY, monkeypatch)


def set_day(day: date, monkeypatch: pytest.MonkeyPatch) -> None:
    class Day(date):
        @classmethod
        def today(cls) -> Any:
            return day

    monkeypatch.setattr(polling, "date", Day)


class Polled:
    """A poller with its own records and spool, beside an archive."""

    def __init__(self, folder: Path, archive: Archive, **settings: Any):
        given = {"to": "http://127.0.0.1:9/", "poll": "http://127.0.0.1:9/", "free_bytes": 1}
        settings = make_node_settings(**given | settings)
        self.spool, self.records = Spool(folder), Records(folder / "done.sqlite")
        self.door = Door(self.spool, settings, lambda name: None)
        self.poller = Poller(self.door, settings, self.records, self.spool.holds_image)
        self.poller._client = self.poller._session = archive  # type: ignore[assignment]

    def close(self) -> None:
        self.records.close()
        self.spool.close()


@pytest.fixture
def archive() -> Archive:
    return Archive(1, 2)


@pytest.fixture
def polled(tmp_path: Path, archive: Archive) -> Iterator[Polled]:
    made = Polled(tmp_path, archive)
    yield made
    made.close()


@pytest.mark.parametrize("kind", [None, "application/dicom"])
def test_an_image_is_taken_as_the_archive_has_it(
    kind: str | None, polled: Polled, archive: Archive
) -> None:
    archive.kind = kind or archive.kind
    assert polled.poller.look() == 2
    kept = {polled.spool.read_image(name) for name in polled.spool.list_images()}
    assert {own.content for own in kept if own} == {write_image(1), write_image(2)}
    assert polled.poller.look() == 0
    assert len(archive.fetched) == 2


def test_one_study_holds_up_no_other(
    polled: Polled, archive: Archive, caplog: pytest.LogCaptureFixture
) -> None:
    archive.failing = {"1.2.1"}
    assert polled.poller.look() == 1
    assert "a study cannot be looked at" in caplog.text
    assert polled.records.find_look() is None
    archive.failing = set()
    assert polled.poller.look() == 1
    assert polled.records.find_look() == TODAY


def test_a_look_goes_back_to_the_last_complete_one(
    polled: Polled, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    polled.poller.look()
    set_day(TODAY + timedelta(days=9), monkeypatch)
    archive.failing = {"1.2.1"}
    polled.poller.look()
    set_day(TODAY + timedelta(days=10), monkeypatch)
    polled.poller.look()
    assert archive.since == ["20250309-"] * 3


def test_an_image_that_is_turned_away_is_not_fetched_again(
    tmp_path: Path, archive: Archive
) -> None:
    for _ in range(2):
        polled = Polled(tmp_path, archive, max_bytes=1000)
        assert polled.poller.look() == 0
        polled.close()
    assert len(archive.fetched) == 2


def test_of_a_large_image_little_is_read(tmp_path: Path) -> None:
    archive = Archive(1)
    archive.content = bytes(50_000_000)
    polled = Polled(tmp_path, archive, max_bytes=1000)
    read: list[int] = []
    get = archive.get

    def count(address: str, **given: Any) -> requests.Response:
        response = get(address, **given)
        raw = response.raw
        response.raw = io.BufferedReader(raw)
        response.iter_content = lambda size: _count(raw, size, read)  # type: ignore[assignment]
        return response

    archive.get = count  # type: ignore[method-assign]
    polled.poller.look()
    polled.close()
    assert sum(read) < 1_000_000
    assert polled.door.counts == {"turned away": 1}


def _count(raw: Any, size: int, read: list[int]) -> Iterator[bytes]:
    while chunk := raw.read(size):
        read.append(len(chunk))
        yield chunk


def test_what_holds_no_file_is_tried_again(polled: Polled, archive: Archive) -> None:
    archive.kind = "text/html"
    assert polled.poller.look() == 0
    assert polled.records.find_look() is None
    assert len(archive.fetched) == 2
    polled.poller.look()
    assert len(archive.fetched) == 4
