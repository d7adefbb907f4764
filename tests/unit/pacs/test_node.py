"""A node in this process, and an archive that answers as it is told."""

import json
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import requests
from pydicom import Dataset
from pynetdicom import AE, evt
from pynetdicom.events import Event
from pynetdicom.sop_class import SecondaryCaptureImageStorage

from busi_pipeline.pacs import node as node_module
from busi_pipeline.pacs import reading, receiving, sending
from busi_pipeline.pacs.node import Node, run_node
from busi_pipeline.pacs.polling import Poller
from busi_pipeline.pacs.reading import Reader
from busi_pipeline.pacs.records import OUTCOMES
from busi_pipeline.pacs.sending import (
    REFUSALS,
    RefusedError,
    Sender,
    UnreachableError,
    WebArchive,
)
from busi_pipeline.pacs.settings import make_node_settings
from busi_pipeline.pacs.source import REPORT_CLASS, hash_dataset
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


def fail_at_first(
    monkeypatch: pytest.MonkeyPatch, owner: object, name: str, errors: list[Exception]
) -> None:
    """Let a method raise these errors, one a call, and then do what it does."""
    works, left = getattr(owner, name), list(errors)

    def fail(*given: Any) -> None:
        if left:
            raise left.pop()
        works(*given)

    monkeypatch.setattr(owner, name, fail)


def wait_until(test: Any, seconds: float = 60) -> None:
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
        time.sleep(0.2)
    assert archive.count() == (1, 1), "what is only not recorded is not sent again"
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


def test_results_that_come_back_are_no_images(
    models: Path, archive: Archive, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with run(models, tmp_path, archive) as node:
        node.door.admit(write_image(1))
        wait_for(node, answered=1)
        for own in archive.stored[:2]:
            assert node.door.admit(write_dicom(own)) == receiving.SUCCESS
        assert node.door.counts["results"] == 2
        strange = archive.stored[1]
        strange.Manufacturer = "SOMEONE"
        assert node.door.admit(write_dicom(strange)) == receiving.SUCCESS
        assert node.door.counts["results"] == 3
        assert "object of another maker ignored" in caplog.text
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
    archive.answers = [0xA900, 0xA900]
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
    archive.answers = [0xC000] * 2 * REFUSALS
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
        wait_for(node, answered=1, failed=1)
    (failed,) = (tmp_path / "failed").iterdir()
    texts = [list_texts(own)[0] for own in archive.stored if own.Modality == "SR"]
    refusals = [text for text in texts if "internal error" in text]
    assert len(refusals) == 1
    assert "DOE^JANE" not in refusals[0]
    failed.rename(tmp_path / "images" / failed.name)
    with run(models, tmp_path, archive) as node:
        wait_for(node, answered=2)
    assert archive.count() == (3, 2)


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
        wait_for(node, answered=1, failed=1)
    assert [path.name for path in (tmp_path / "failed").iterdir()] == [name]


def test_an_image_waits_while_the_disk_is_full(
    models: Path, archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_DISK_SECONDS", 0.01)
    with run(models, tmp_path, archive) as node:
        errors = [OSError(28, "full")] * (reading.TRIES + 2)
        fail_at_first(monkeypatch, node.spool, "keep_results", errors)
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


def test_an_object_that_is_too_large_holds_up_no_other(
    models: Path, archive: Archive, tmp_path: Path
) -> None:
    large = make_image(1)
    large.PixelData = large.PixelData * 10
    with run(models, tmp_path, archive, max_bytes=100_000) as node:
        statuses = send(node.receiver.port, [make_image(2), large, make_image(3)])
        assert statuses == [receiving.SUCCESS, receiving.NOT_UNDERSTOOD, receiving.SUCCESS]
        assert node.door.counts == {"images": 2, "turned away": 1}
        wait_for(node, answered=2)


def correct(image: bytes) -> bytes:
    """Return an image with the same UID and other pixels."""
    changed = read_object(image)
    changed.PixelData = changed.PixelData[:-2] + b"\1\1"
    return write_dicom(changed)


def test_a_corrected_body_part_gets_an_answer(
    models: Path, archive: Archive, tmp_path: Path
) -> None:
    with run(models, tmp_path, archive) as node:
        node.door.admit(write_image(1, BodyPartExamined="KNEE"))
        wait_for(node, other_body_part=1)
        node.door.admit(write_image(1))
        wait_for(node, answered=1)
    assert archive.count() == (1, 1)


def test_an_image_that_was_unusable_gets_an_answer_once_it_is_corrected(
    models: Path, archive: Archive, tmp_path: Path
) -> None:
    black = make_image(1)
    black.PixelData = bytes(len(black.PixelData))
    with run(models, tmp_path, archive) as node:
        for _ in range(2):
            node.door.admit(write_dicom(black))
            wait_for(node, unusable=1)
            wait_until(lambda: not node.spool.list_images())
        node.door.admit(write_image(1))
        wait_for(node, answered=1)
    assert archive.count() == (2, 1)
    assert len({own.SOPInstanceUID for own in archive.stored}) == 3


def test_other_content_of_an_answered_image_is_a_warning(
    models: Path, archive: Archive, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with run(models, tmp_path, archive) as node:
        node.door.admit(write_image(1))
        wait_for(node, answered=1)
        node.door.admit(correct(write_image(1)))
        wait_until(lambda: node.count().get("other content") == 1)
        wait_until(lambda: not node.spool.list_images())
    assert archive.count() == (1, 1)
    assert "with other content" in caplog.text


def test_other_content_of_an_image_that_waits_is_a_warning(
    models: Path, archive: Archive, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with run(models, tmp_path, archive) as node:
        node.reader.stop()
        image = write_image(1)
        for content in (image, image, correct(image)):
            assert node.door.admit(content) == receiving.SUCCESS
        assert node.count().get("other content") == 1
    assert caplog.text.count("with other content") == 1


def test_an_image_is_the_same_whoever_wrote_its_file() -> None:
    image = make_image(1)
    first = write_dicom(image)
    image.file_meta.ImplementationVersionName = "ANOTHER"
    assert write_dicom(image) != first
    assert hash_dataset(write_dicom(image)) == hash_dataset(first)
    assert hash_dataset(correct(first)) != hash_dataset(first)


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


STORED, FAILED = "00081199", "00081198"


def answer_web(
    status: int,
    stored: Sequence[int] = (),
    failed: Mapping[int, int] | None = None,
    kind: str = "application/dicom+json; charset=utf-8",
) -> requests.Response:
    """Return what a DICOMweb service answers: numbers of images, {number: status}."""
    response = requests.Response()
    response.status_code = status
    response.headers["Content-Type"] = kind
    answer: dict[str, Any] = {}
    if stored:
        answer[STORED] = {"vr": "SQ", "Value": [make_item(number) for number in stored]}
    if failed:
        answer[FAILED] = {
            "vr": "SQ",
            "Value": [
                make_item(number) | {"00081197": {"vr": "US", "Value": [reason]}}
                for number, reason in failed.items()
            ],
        }
    response._content = json.dumps(answer).encode()
    return response


def make_item(number: int) -> dict[str, Any]:
    instance = str(make_image(number).SOPInstanceUID)
    return {"00081155": {"vr": "UI", "Value": [instance]}}


class WebAnswers:
    """Answers as it is told; attribute `sent`, how many objects each request had."""

    def __init__(self, answers: Sequence[Any]):
        self.answers, self.sent = list(answers), []

    def post(self, *given: Any, data: bytes, allow_redirects: bool, **more: Any) -> Any:
        assert not allow_redirects
        self.sent.append(data.count(b"Content-Type: application/dicom\r\n"))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


OTHER_FORM = requests.Response()
OTHER_FORM.status_code, OTHER_FORM._content = 200, b"[1]"
OTHER_FORM.headers["Content-Type"] = "application/json"

ONE: dict[str, tuple[Any, type[Exception] | None]] = {
    "stored": (answer_web(200, [1]), None),
    "other type": (answer_web(200, [1], kind="APPLICATION/JSON"), None),
    "there already": (answer_web(409, failed={1: 0x0111}), None),
    "nothing is said": (answer_web(200), UnreachableError),
    "of another object": (answer_web(200, [2]), UnreachableError),
    "no JSON": (answer_web(200, [1], kind="text/html"), UnreachableError),
    "another form": (OTHER_FORM, UnreachableError),
    "a login page": (answer_web(302, [1], kind="text/html"), UnreachableError),
    "refused": (answer_web(202, failed={1: 0xA900}), RefusedError),
    "all refused": (answer_web(409, failed={1: 0xC000}), RefusedError),
    "bad request": (answer_web(400), RefusedError),
    "full": (answer_web(202, failed={1: 0xA700}), UnreachableError),
    "no password": (answer_web(401), UnreachableError),
    "away": (answer_web(503), UnreachableError),
    "hung up": (requests.ConnectionError("1.2.3"), UnreachableError),
    "too late": (requests.Timeout("1.2.3"), UnreachableError),
}


def send_by_web(
    answers: Sequence[Any], numbers: Sequence[int], monkeypatch: pytest.MonkeyPatch
) -> list[int]:
    """Send images, and return how many each request had."""
    web = WebAnswers(answers)
    monkeypatch.setattr(requests.Session, "post", lambda self, *a, **b: web.post(*a, **b))
    archive = WebArchive(make_node_settings(to="http://127.0.0.1:9/dicom-web"))
    archive.send([write_image(number) for number in numbers])
    return web.sent


@pytest.mark.parametrize("name", ONE)
def test_what_stow_answers_is_stored_refused_or_later(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer, expected = ONE[name]
    if expected is None:
        send_by_web([answer], [1], monkeypatch)
        return
    with pytest.raises(expected) as caught:
        send_by_web([answer], [1], monkeypatch)
    assert "1.2.3" not in str(caught.value)


def test_of_two_objects_both_are_confirmed(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnreachableError):
        send_by_web([answer_web(202, [1])], [1, 2], monkeypatch)
    assert send_by_web([answer_web(202, [2, 1])], [1, 2], monkeypatch) == [2]


def test_of_two_objects_the_refused_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RefusedError) as caught:
        send_by_web([answer_web(202, [1], {2: 0xA900})], [1, 2], monkeypatch)
    assert caught.value.refused == (1,)


def test_objects_that_are_refused_together_are_sent_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [answer_web(400), answer_web(400), answer_web(200, [2])]
    with pytest.raises(RefusedError) as caught:
        send_by_web(answers, [1, 2], monkeypatch)
    assert caught.value.refused == (0,)


def test_one_refused_object_holds_not_back_the_other(
    models: Path, archive: Archive, tmp_path: Path
) -> None:
    archive.answers = [0xC000, 0] * REFUSALS
    with run(models, tmp_path, archive) as node:
        node.door.admit(write_image(1))
        wait_for(node, refused=1)
        wait_until(lambda: not node.spool.list_results())
    (kept,) = (tmp_path / "refused").iterdir()
    assert sorted(path.name for path in kept.iterdir()) == ["about.json", "report.dcm"]
    assert archive.count() == (0, REFUSALS)


@pytest.mark.parametrize("error", [sqlite3.OperationalError("full"), OSError(28, "full")])
def test_what_is_sent_and_not_recorded_is_not_sent_again(
    error: Exception,
    models: Path,
    archive: Archive,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with run(models, tmp_path, archive) as node:
        fail_at_first(monkeypatch, node.records, "add", [error] * 3)
        node.door.admit(write_image(1))
        wait_for(node, answered=1)
    assert archive.count() == (1, 1)


def test_a_refusal_that_is_not_recorded_ends_no_thread(
    models: Path, archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise sqlite3.OperationalError

    archive.answers = [0xC000] * 2 * REFUSALS
    with run(models, tmp_path, archive) as node:
        monkeypatch.setattr(node.records, "add", fail)
        node.door.admit(write_image(1))
        wait_until(lambda: list((tmp_path / "refused").iterdir()))
        monkeypatch.undo()
        node.door.admit(write_image(2))
        wait_for(node, answered=1)


def test_a_full_disk_ends_not_the_reader(
    models: Path, archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(reading, "_DISK_SECONDS", 0.01)
    with run(models, tmp_path, archive) as node:
        for name in ("count_try", "forget_tries"):
            monkeypatch.setattr(node.spool, name, fail)
        node.door.admit(write_image(1))
        time.sleep(0.2)
        monkeypatch.undo()
        wait_for(node, answered=1)


@pytest.mark.parametrize("part", ["reader", "sender", "receiver", "poller"])
def test_a_node_without_a_thread_ends_and_says_so(
    part: str,
    models: Path,
    archive: Archive,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(node_module, "log_own_lines", lambda: None)
    monkeypatch.setattr(node_module, "_LOOK_SECONDS", 0.05)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(threading, "excepthook", lambda *_: None)

    def fail(*_: Any) -> None:
        raise RuntimeError

    own, method = {
        "reader": (Reader, "_run"),
        "sender": (Sender, "_run"),
        "receiver": (receiving.Server, "service_actions"),
        "poller": (Poller, "_run"),
    }[part]
    monkeypatch.setattr(own, method, fail)
    to, poll = f"ARCHIVE@127.0.0.1:{archive.port}", "http://127.0.0.1:9/"
    settings = make_node_settings(models=models, spool=tmp_path, to=to, port=0, poll=poll)
    with pytest.raises(SystemExit) as caught:
        run_node(settings)
    assert caught.value.code == 1
    assert f"the node stops: its {part} ended" in caplog.text
