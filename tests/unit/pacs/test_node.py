"""A node in this process, and an archive that answers as it is told."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import requests
from pydicom import Dataset
from pynetdicom import AE, evt
from pynetdicom.events import Event
from pynetdicom.sop_class import SecondaryCaptureImageStorage

from busi_pipeline.pacs import reading, receiving, sending
from busi_pipeline.pacs.node import Node
from busi_pipeline.pacs.records import OUTCOMES
from busi_pipeline.pacs.sending import (
    REFUSALS,
    RefusedError,
    UnreachableError,
    WebArchive,
)
from busi_pipeline.pacs.settings import make_node_settings
from busi_pipeline.pacs.source import REPORT_CLASS
from tests.dicom_factories import write_dicom
from tests.package_factories import write_tiny_package
from tests.pacs_factories import list_texts, make_image, read_object, send, write_image


class Archive:
    """Takes C-STORE; attributes: `stored`, all objects; `answers`, the next statuses."""

    def __init__(self) -> None:
        self.stored: list[Dataset] = []
        self.answers: list[int] = []
        self._entity = AE("ARCHIVE")
        for own in (REPORT_CLASS, SecondaryCaptureImageStorage):
            self._entity.add_supported_context(own)
        self._server = self._entity.start_server(
            ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, self._store)]
        )
        self.port = self._server.socket.getsockname()[1]

    def _store(self, event: Event) -> int:
        status = self.answers.pop(0) if self.answers else 0
        if status == 0:
            self.stored.append(read_object(event.encoded_dataset()))
        return status

    def close(self) -> None:
        self._entity.shutdown()

    def count(self) -> tuple[int, int]:
        """Return numbers of reports and of pictures."""
        reports = sum(own.Modality == "SR" for own in self.stored)
        return reports, len(self.stored) - reports


@pytest.fixture
def archive() -> Iterator[Archive]:
    started = Archive()
    yield started
    started.close()


@contextmanager
def run(models: Path, spool: Path, archive: Archive, **settings: Any) -> Iterator[Node]:
    given = {"free_bytes": 1, "port": 0, "retry_seconds": 0.05, **settings}
    to = f"ARCHIVE@127.0.0.1:{archive.port}"
    node = Node(make_node_settings(**{"models": models, "spool": spool, "to": to} | given))
    node.start()
    try:
        yield node
    finally:
        node.stop()


def wait_until(test: Any, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not test():
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.02)


def wait_for(node: Node, **expected: int) -> None:
    wanted = dict.fromkeys(OUTCOMES, 0) | expected
    wait_until(lambda: node.records.count() == wanted)


def test_each_image_is_answered_once(models: Path, archive: Archive, tmp_path: Path) -> None:
    with run(models, tmp_path, archive) as node:
        for number in (1, 2, 1):
            assert node.door.admit(write_image(number)) == receiving.SUCCESS
        wait_for(node, answered=2)
        assert node.door.admit(write_image(1)) == receiving.SUCCESS
        wait_until(lambda: not node.spool.list_images())
    assert archive.count() == (2, 2)


def test_a_crash_after_sending_sends_the_same_again(
    models: Path, archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: Any) -> None:
        raise RuntimeError

    with run(models, tmp_path, archive) as node:
        monkeypatch.setattr(node.records, "add", crash)
        node.door.admit(write_image(1))
        wait_until(lambda: len(archive.stored) >= 2)
    first = list(archive.stored)
    with run(models, tmp_path, archive) as node:
        wait_for(node, answered=1)
    again = archive.stored[len(first) :]
    assert len(again) == 2
    assert again == first[:2]


def test_a_crash_after_computing_gives_no_second_report(
    models: Path, archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with run(models, tmp_path, archive) as node:
        monkeypatch.setattr(node.spool, "drop_image", lambda name: None)
        node.door.admit(write_image(1))
        wait_for(node, answered=1)
    with run(models, tmp_path, archive) as node:
        wait_until(lambda: not node.spool.list_images())
    assert archive.count() == (1, 1)


def test_a_spool_that_is_lost_doubles_nothing(
    models: Path, archive: Archive, tmp_path: Path
) -> None:
    for folder in ("one", "other"):
        with run(models, tmp_path / folder, archive) as node:
            node.door.admit(write_image(1))
            wait_for(node, answered=1)
    assert archive.count() == (2, 2)
    assert len({own.SOPInstanceUID for own in archive.stored}) == 2


def test_a_new_model_gives_a_new_report(models: Path, archive: Archive, tmp_path: Path) -> None:
    other = write_tiny_package(tmp_path / "other", locates=True, card="# Another\n")
    for model in (None, str(other)):
        with run(models, tmp_path / "spool", archive, model=model) as node:
            node.door.admit(write_image(1))
            wait_until(lambda: not node.spool.list_images())
            wait_until(lambda node=node: not node.spool.list_results())
    assert archive.count() == (2, 2)
    assert len({own.SOPInstanceUID for own in archive.stored}) == 4


def test_only_breasts_are_answered(models: Path, archive: Archive, tmp_path: Path) -> None:
    knee = write_image(1, BodyPartExamined="KNEE")
    with run(models, tmp_path / "a", archive) as node:
        node.door.admit(knee)
        node.door.admit(write_image(2, BodyPartExamined=""))
        wait_for(node, answered=1, other_body_part=1)
    with run(models, tmp_path / "b", archive, any_body_part=True) as node:
        node.door.admit(knee)
        wait_for(node, answered=1)
    assert archive.count() == (2, 2)


def test_an_unusable_image_gets_a_report_that_says_so(
    models: Path, archive: Archive, tmp_path: Path
) -> None:
    with run(models, tmp_path, archive) as node:
        black = make_image(1)
        black.PixelData = bytes(len(black.PixelData))
        node.door.admit(write_dicom(black))
        wait_for(node, unusable=1)
    (report,) = archive.stored
    assert "could not be analysed" in list_texts(report)[0]


def test_own_results_that_come_back_are_no_images(
    models: Path, archive: Archive, tmp_path: Path
) -> None:
    with run(models, tmp_path, archive) as node:
        node.door.admit(write_image(1))
        wait_for(node, answered=1)
        for own in archive.stored[:2]:
            assert node.door.admit(write_dicom(own)) == receiving.SUCCESS
        assert node.door.counts["own results"] == 2
        strange = archive.stored[1]
        strange.Manufacturer = "SOMEONE"
        assert node.door.admit(write_dicom(strange)) == receiving.CLASS_NOT_SUPPORTED
        assert node.spool.list_images() == []


def test_what_cannot_be_filed_is_turned_away(
    models: Path, archive: Archive, tmp_path: Path
) -> None:
    image = write_image(1)
    with run(models, tmp_path, archive, max_bytes=len(image)) as node:
        admit = node.door.admit
        assert admit(write_image(1, StudyInstanceUID=None)) == receiving.NOT_UNDERSTOOD
        assert admit(image[:200]) == receiving.NOT_UNDERSTOOD
        assert admit(image + b"\0" * 10) == receiving.NOT_UNDERSTOOD
        assert admit(image, "1.2.3") == receiving.OTHER_OBJECT
        assert node.door.counts["turned away"] == 4
    with run(models, tmp_path, archive, free_bytes=1 << 60) as node:
        assert node.door.admit(image) == receiving.OUT_OF_RESOURCES
    assert archive.stored == []


def test_refused_results_hold_up_nobody(
    models: Path, archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "_FIRST_WAIT", 0.2)
    archive.answers = [0xA900]
    with run(models, tmp_path, archive, retry_seconds=0.2) as node:
        node.door.admit(write_image(1))
        wait_until(lambda: not archive.answers)
        archive.answers = []
        node.door.admit(write_image(2))
        wait_for(node, answered=2)
    assert archive.count() == (2, 2)


def test_results_that_stay_refused_are_put_aside(
    models: Path, archive: Archive, tmp_path: Path
) -> None:
    archive.answers = [0xC000] * REFUSALS
    with run(models, tmp_path, archive) as node:
        node.door.admit(write_image(1))
        wait_for(node, refused=1)
        wait_until(lambda: not node.spool.list_results())
        node.door.admit(write_image(2))
        wait_for(node, refused=1, answered=1)
    assert len(list((tmp_path / "refused").iterdir())) == 1
    assert archive.count() == (1, 1)


def test_an_archive_that_is_full_is_asked_without_end(
    models: Path, archive: Archive, tmp_path: Path
) -> None:
    archive.answers = [0xA700] * (REFUSALS + 3)
    with run(models, tmp_path, archive) as node:
        node.door.admit(write_image(1))
        wait_for(node, answered=1)
    assert not list((tmp_path / "refused").iterdir())


def test_an_image_that_fails_is_set_aside(
    models: Path, archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = reading.look_at

    def fail_once(*given: Any) -> Any:
        monkeypatch.setattr(reading, "look_at", looked)
        raise RuntimeError("DOE^JANE")

    monkeypatch.setattr(reading, "look_at", fail_once)
    with run(models, tmp_path, archive) as node:
        node.door.admit(write_image(1))
        node.door.admit(write_image(2))
        wait_for(node, answered=1)
    assert len(list((tmp_path / "failed").iterdir())) == 1


def test_an_image_that_ends_the_process_is_set_aside(
    models: Path, archive: Archive, tmp_path: Path
) -> None:
    with run(models, tmp_path, archive) as node:
        node.reader.stop()
        node.door.admit(write_image(1))
        (name,) = node.spool.list_images()
        for _ in range(reading.TRIES):
            node.spool.count_try(name)
    with run(models, tmp_path, archive) as node:
        node.door.admit(write_image(2))
        wait_for(node, answered=1)
    assert [path.name for path in (tmp_path / "failed").iterdir()] == [name]


def test_an_image_waits_while_the_disk_is_full(
    models: Path, archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_DISK_SECONDS", 0.01)
    with run(models, tmp_path, archive) as node:
        keep, failures = node.spool.keep_results, [OSError(28, "full")] * (reading.TRIES + 2)

        def fail(*given: Any) -> None:
            if failures:
                raise failures.pop()
            keep(*given)

        monkeypatch.setattr(node.spool, "keep_results", fail)
        node.door.admit(write_image(1))
        wait_for(node, answered=1)
    assert archive.count() == (1, 1)


def test_what_is_computed_is_sent_before_the_end(
    models: Path, archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    looked = reading.look_at

    def look_slowly(*given: Any) -> Any:
        begun.set()
        assert go_on.wait(20)
        return looked(*given)

    monkeypatch.setattr(reading, "look_at", look_slowly)
    with run(models, tmp_path, archive) as node:
        for number in (1, 2, 3):
            node.door.admit(write_image(number))
        assert begun.wait(20)
        threading.Timer(0.3, go_on.set).start()
    assert archive.count() == (1, 1)
    assert len(list((tmp_path / "images").iterdir())) == 2


def test_an_object_that_is_too_large_ends_the_association(
    models: Path, archive: Archive, tmp_path: Path
) -> None:
    with run(models, tmp_path, archive, max_bytes=30_000) as node:
        assert send(node.receiver.port, [make_image(1)]) == [None]
        assert node.door.counts == {"turned away": 1}
        assert node.spool.list_images() == []


def test_a_message_of_gigabytes_is_not_waited_for(
    models: Path, archive: Archive, tmp_path: Path
) -> None:
    with (
        run(models, tmp_path, archive) as node,
        socket.create_connection(("127.0.0.1", node.receiver.port), timeout=10) as connection,
    ):
        connection.sendall(b"\x01\x00\xff\xff\xff\xff" + b"\0" * 100)
        with suppress(ConnectionResetError):
            assert connection.recv(100) == b""


class Response(requests.Response):
    """What a DICOMweb service answers."""

    def __init__(self, status: int, *reasons: int):
        super().__init__()
        self.status_code = status
        self.headers["Content-Type"] = "application/dicom+json"
        answer = Dataset()
        answer.FailedSOPSequence = [Dataset() for _ in reasons]
        for item, reason in zip(answer.FailedSOPSequence, reasons, strict=True):
            item.FailureReason = reason
        self._content = answer.to_json().encode() if reasons else b"{}"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Response(200), None),
        (Response(409, 0x0111, 0x0111), None),
        (Response(202, 0xA900), RefusedError),
        (Response(409, 0xC000), RefusedError),
        (Response(400), RefusedError),
        (Response(202, 0xA700), UnreachableError),
        (Response(401), UnreachableError),
        (Response(503), UnreachableError),
        (requests.ConnectionError("1.2.3"), UnreachableError),
        (requests.Timeout("1.2.3"), UnreachableError),
    ],
)
def test_what_stow_answers_is_stored_refused_or_later(
    answer: Any, expected: type[Exception] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def post(*_: Any, **__: Any) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(requests.Session, "post", post)
    archive = WebArchive(make_node_settings(to="http://127.0.0.1:9/dicom-web"))
    content = write_image(1)
    if expected is None:
        archive.send([content])
        return
    with pytest.raises(expected) as caught:
        archive.send([content])
    assert "1.2.3" not in str(caught.value)
