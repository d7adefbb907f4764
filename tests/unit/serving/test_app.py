"""The service answers as the package does, and refuses in one line what it cannot use."""

import io
import json
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from busi_pipeline.errors import BadInputError
from busi_pipeline.models.packaged import Answer, PackagedModel
from busi_pipeline.serving.logs import JsonLines
from busi_pipeline.serving.service import Service
from tests.factories import encode_image
from tests.package_factories import draw_scan, write_tiny_package
from tests.privacy_factories import INK, write_name
from tests.serving_factories import BRIGHT, SCAN, serve

KEY = "0123456789abcdef"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models of which one looks at the whole image, so that a bright one is flagged."""
    folder = tmp_path_factory.mktemp("whole")
    write_tiny_package(folder / "tiny" / "package")
    return folder


@pytest.fixture(scope="module")
def client(models: Path) -> Iterator[TestClient]:
    with serve(models, max_bytes=500_000, max_files=3) as (client, _):
        yield client


def as_files(*contents: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    return [("files", (f"{number}.png", own)) for number, own in enumerate(contents)]


def expect(answer: Answer) -> dict[str, Any]:
    return json.loads(json.dumps(answer.as_record()))


def test_the_answer_is_that_of_the_package(client: TestClient, model: PackagedModel) -> None:
    sent = client.post("/v1/predictions", files=as_files(SCAN, BRIGHT))
    assert sent.status_code == 200
    body = sent.json()
    assert (body["model"], body["model_version"]) == ("tiny", model.version)
    for number, (own, content) in enumerate(zip(body["predictions"], (SCAN, BRIGHT), strict=True)):
        assert own == {
            "file": f"{number}.png",
            "error": None,
            **expect(model.predict_bytes(content)),
        }
    scores = [own["positive_score"] for own in body["predictions"]]
    assert scores[0] != scores[1]


def test_a_box_is_used_where_there_is_one(client: TestClient, model: PackagedModel) -> None:
    boxes = {"box": ["10,12,50,40", ""]}
    body = client.post("/v1/predictions", files=as_files(SCAN, SCAN), data=boxes).json()
    first, second = body["predictions"]
    assert (first["box"], first["box_source"]) == ([10, 12, 50, 40], "reader")
    assert second["box_source"] == "localizer"
    assert first["positive_score"] == model.predict_bytes(SCAN, (10, 12, 50, 40)).positive_score


def test_a_bad_image_has_its_reason_and_the_others_their_answers(client: TestClient) -> None:
    sent = client.post("/v1/predictions", files=as_files(b"none", SCAN))
    assert sent.status_code == 200
    bad, good = sent.json()["predictions"]
    assert "no image format was recognised" in bad["error"]
    assert {value for name, value in bad.items() if name not in ("file", "error")} == {None, 2}
    assert good["error"] is None
    alone = client.post("/v1/predictions", files=as_files(b"none"))
    assert alone.status_code == 422
    assert alone.headers["content-type"] == "application/problem+json"
    assert "no image format was recognised" in alone.json()["detail"]


MULTIPART = {"content-type": "multipart/form-data; boundary=x"}
REFUSED: dict[str, tuple[dict[str, Any], int, str]] = {
    "no body": ({}, 415, "multipart/form-data"),
    "JSON": ({"json": {"files": []}}, 415, "multipart/form-data"),
    "no boundary": (
        {"content": b"x", "headers": {"content-type": "multipart/form-data"}},
        400,
        "boundary",
    ),
    "damaged": ({"content": b"--x\r\nfiles", "headers": MULTIPART}, 422, "at least one file"),
    "no part header": ({"content": b"--x\r\n\r\nabc\r\n--x--", "headers": MULTIPART}, 400, ""),
    "no file": ({"files": {"box": (None, "1,2,3,4")}}, 422, "at least one file"),
    "files as text": ({"files": {"files": (None, "abc")}}, 422, "at least one file"),
    "box as a file": (
        {"files": [*as_files(SCAN), ("box", ("a.txt", b"1,2,3,4"))]},
        422,
        "a `box` for each file",
    ),
    "too many": ({"files": as_files(SCAN, SCAN, SCAN, SCAN)}, 400, "Too many files"),
    "another part": (
        {"files": as_files(SCAN), "data": {"patient": "x"}},
        422,
        "parts are `files` and `box`; got patient",
    ),
    "boxes of fewer": (
        {"files": as_files(SCAN, SCAN), "data": {"box": "1,2,3,4"}},
        422,
        "a `box` for each file",
    ),
    "a box that lies outside": (
        {"files": as_files(SCAN), "data": {"box": "10,10,1000,20"}},
        422,
        "a box is left, top, right and bottom",
    ),
    "a box of words": ({"files": as_files(SCAN), "data": {"box": "a,b"}}, 422, "a box is left"),
    "too large": ({"files": as_files(bytes(600_000))}, 413, "500000 bytes"),
}


@pytest.mark.parametrize("path", ["/v1/predictions", "/v1/overlays"])
@pytest.mark.parametrize("name", REFUSED)
def test_a_wrong_request_is_refused_in_one_line(name: str, path: str, client: TestClient) -> None:
    request, status, reason = REFUSED[name]
    if path == "/v1/overlays" and name in ("boxes of fewer", "box as a file"):
        status, reason = 400, "Too many files"
    sent = client.post(path, **request)
    assert (sent.status_code, reason in sent.json()["detail"]) == (status, True), sent.text
    assert sent.json()["status"] == status
    assert "\n" not in sent.json()["detail"]


def test_a_body_of_unknown_length_is_cut_off(client: TestClient) -> None:
    def drip() -> Iterator[bytes]:
        yield b'--x\r\ncontent-disposition: form-data; name="files"; filename="a"\r\n\r\n'
        for _ in range(10):
            yield bytes(100_000)

    sent = client.post("/v1/predictions", content=drip(), headers=MULTIPART)
    assert sent.status_code == 413


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\scans\\a.png", "a.png"),
        ("a\u202egnp.exe", "a_gnp.exe"),
        ("<img src=x onerror=alert(1)>", "<img src=x onerror=alert(1)>"),
        ("x" * 500, "x" * 200),
    ],
)
def test_a_file_name_comes_back_harmless(name: str, expected: str, client: TestClient) -> None:
    sent = client.post("/v1/predictions", files=[("files", (name, SCAN))])
    assert sent.json()["predictions"][0]["file"] == expected
    assert sent.headers["content-type"] == "application/json"
    assert sent.headers["x-content-type-options"] == "nosniff"


def test_the_overlay_is_drawn_on_demand(client: TestClient) -> None:
    def draw(content: bytes = SCAN, **options: str) -> np.ndarray:
        sent = client.post(
            "/v1/overlays", files=as_files(content), data={"box": "10,10,70,50"}, params=options
        )
        assert sent.headers["content-type"] == "image/png"
        return np.asarray(Image.open(io.BytesIO(sent.content))).astype(int)

    both, alone = draw(), draw(attribution="false")
    assert tuple(both[30, 10]) == tuple(alone[30, 10]) == (0, 114, 178)
    assert np.ptp(alone[20:40, 20:60], axis=-1).max() == 0, "grey"
    assert np.ptp(both[20:40, 20:60], axis=-1).max() > 40, "red and blue"
    named = write_name(draw_scan(3, 120, 160))
    whole = draw(encode_image(Image.fromarray(named)), attribution="false")
    assert (whole[52:] == named[52:]).all()
    assert (whole == INK).any(axis=2).sum() > 20, "the text is there"
    refused = client.post("/v1/overlays", files=as_files(b"none"))
    assert (refused.status_code, refused.headers["content-type"]) == (
        422,
        "application/problem+json",
    )


def test_the_model_says_what_it_is(client: TestClient, model: PackagedModel) -> None:
    told = client.get("/v1/model").json()
    assert (told["name"], told["version"], told["card"]) == ("tiny", model.version, "# A card\n")
    assert (told["threshold"], told["expected_sensitivity"]) == (0.3, 0.95)
    assert told["classes"] == ["benign", "malignant", "normal"]
    assert told["roles"] == {}


def test_health_needs_no_key_and_all_else_does(models: Path) -> None:
    with serve(models, api_key=KEY) as (client, _):
        for path in ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"):
            assert client.get(path).status_code == 200
        for path in ("/v1/model", "/metrics", "/openapi.json", "/v2", "/nowhere"):
            assert client.get(path).status_code == 401
        wrong: list[dict[str, str]] = [{}, {"x-api-key": KEY[:-1]}, {"authorization": KEY}]
        wrong += [{"authorization": f"Basic {KEY}"}, {"x-api-key": ""}, {"x-api-key": KEY.upper()}]
        for headers in wrong:
            sent = client.post("/v1/predictions", files=as_files(SCAN), headers=headers)
            assert sent.status_code == 401
            assert sent.headers["www-authenticate"] == "Bearer"
        for headers in ({"x-api-key": KEY}, {"authorization": f"bearer {KEY}"}):
            sent = client.post("/v1/predictions", files=as_files(SCAN), headers=headers)
            assert sent.status_code == 200


def test_no_other_site_may_read_answers(client: TestClient) -> None:
    headers = {"origin": "https://elsewhere.example", "access-control-request-method": "POST"}
    sent = client.options("/v1/predictions", headers=headers)
    assert not [name for name in sent.headers if name.startswith("access-control")]
    assert sent.status_code == 405


@pytest.mark.parametrize("given", ["abc-1.2_3", "a b", "a\x01", "x" * 65, ""])
def test_a_request_has_an_id(given: str, client: TestClient) -> None:
    sent = client.get("/healthz", headers={"x-request-id": given})
    request_id = sent.headers["x-request-id"]
    assert (request_id == given) == (given == "abc-1.2_3")
    assert request_id.isprintable()
    assert 0 < len(request_id) <= 64


def test_counters_say_what_was_answered(whole: Path) -> None:
    with serve(whole) as (client, _):
        client.post("/v1/predictions", files=as_files(BRIGHT, SCAN, b"none"))
        client.get("/nowhere")
        text = client.get("/metrics").text
    for line in (
        'busi_images_total{outcome="flagged"} 1.0',
        'busi_images_total{outcome="not_flagged"} 1.0',
        'busi_images_total{outcome="unusable"} 1.0',
        'busi_requests_total{route="/v1/predictions",status="200"} 1.0',
        'busi_requests_total{route="none",status="404"} 1.0',
        "busi_images_pending 0.0",
        'busi_model{name="tiny",version="',
    ):
        assert line in text


def test_the_log_has_no_name_of_a_file(models: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with serve(models) as (client, _):
        for name in ("Jane Doe.png", "Jane Doe.txt"):
            content = SCAN if name.endswith("png") else b"Jane Doe"
            client.post("/v1/predictions", files=[("files", (name, content))])
        client.get("/v1/Jane Doe")
    # The test's own client logs addresses; the service does not.
    records = [own for own in caplog.records if own.name.startswith("busi_pipeline")]
    lines = [JsonLines().format(record) for record in records]
    requests = [own for line in lines if (own := json.loads(line))["message"] == "request"]
    assert [line["status"] for line in requests] == [200, 422, 404]
    assert requests[0]["images"] == 1
    assert {"request_id", "route", "milliseconds", "model_version"} <= set(requests[0])
    assert len(lines) >= 3
    assert "Jane" not in "".join(lines)


def test_a_failure_is_answered_and_its_reason_stays_in_the_log(
    models: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("of the inside")

    monkeypatch.setattr(PackagedModel, "predict_bytes", fail)
    with serve(models) as (client, service):
        sent = client.post("/v1/predictions", files=as_files(SCAN))
        assert service.work.pending == 0
    assert sent.status_code == 500
    assert "of the inside" not in sent.text
    assert sent.headers["x-request-id"] in caplog.text
    assert "of the inside" in caplog.text


class Held:
    """Holds images back until it is told to go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.go_on = threading.Event()
        inner = PackagedModel.predict_bytes

        def wait(*given: Any, **named: Any) -> Answer:
            assert self.go_on.wait(20)
            return inner(*given, **named)

        monkeypatch.setattr(PackagedModel, "predict_bytes", wait)


def post_later(client: TestClient, *contents: bytes) -> tuple[threading.Thread, list[int]]:
    statuses: list[int] = []
    thread = threading.Thread(
        target=lambda: statuses.append(
            client.post("/v1/predictions", files=as_files(*contents)).status_code
        )
    )
    thread.start()
    return thread, statuses


def wait_for(service: Service, pending: int) -> None:
    end = time.monotonic() + 10
    while service.work.pending != pending:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_who_finds_no_room_is_told_when_to_come_again(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(monkeypatch)
    with serve(models, waiting=2) as (client, service):
        thread, statuses = post_later(client, SCAN, SCAN)
        wait_for(service, 2)
        turned_away = client.post("/v1/predictions", files=as_files(SCAN, SCAN))
        assert turned_away.status_code == 503
        assert int(turned_away.headers["retry-after"]) >= 1
        assert client.get("/healthz").status_code == 200, "others are not held up"
        held.go_on.set()
        thread.join()
        assert statuses == [200], "who had room is answered"
        assert client.post("/v1/predictions", files=as_files(SCAN, SCAN)).status_code == 200
        assert "busi_turned_away_total 1.0" in client.get("/metrics").text


def test_an_image_that_takes_too_long_is_given_up(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(monkeypatch)
    with serve(models, answer_seconds=0.2) as (client, service):
        sent = client.post("/v1/predictions", files=as_files(SCAN))
        assert sent.status_code == 503
        assert "took longer than 0.2 s" in sent.json()["detail"]
        assert service.work.pending == 1, "its thread cannot be stopped, so it keeps its room"
        waited = client.post("/v1/predictions", files=as_files(SCAN, SCAN))
        assert waited.status_code == 503
        assert service.work.pending == 1, "what did not begin gives its room back"
        held.go_on.set()
        wait_for(service, 0)


def test_what_lacks_a_decoder_costs_no_other_image_its_answer(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = PackagedModel.predict_bytes

    def lack(self: PackagedModel, content: bytes, box: Any = None) -> Answer:
        if content == b"dicom":
            raise BadInputError("DICOM files need the extra dicom")
        return inner(self, content, box)

    monkeypatch.setattr(PackagedModel, "predict_bytes", lack)
    sent = client.post("/v1/predictions", files=as_files(b"dicom", SCAN))
    assert sent.status_code == 200
    errors = [own["error"] for own in sent.json()["predictions"]]
    assert errors == ["DICOM files need the extra dicom", None]


def test_all_bodies_together_have_a_limit(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(monkeypatch)
    with serve(models, max_held=2 * len(SCAN)) as (client, service):
        thread, statuses = post_later(client, SCAN)
        wait_for(service, 1)
        refused = client.post("/v1/predictions", files=as_files(SCAN))
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        held.go_on.set()
        thread.join()
        assert statuses == [200]
        assert client.post("/v1/predictions", files=as_files(SCAN)).status_code == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8000", 200),
        ("localhost", 200),
        ("[::1]:8000", 200),
        ("elsewhere.example", 421),
        ("127.0.0.1.elsewhere.example", 421),
        ("", 421),
    ],
)
def test_without_a_key_no_other_name_is_answered(
    host: str, status: int, client: TestClient, models: Path
) -> None:
    """A website could give this machine a name of its own, and read the answers."""
    assert client.get("/v1/model", headers={"host": host}).status_code == status
    with serve(models, api_key=KEY) as (keyed, _):
        headers = {"host": host, "x-api-key": KEY}
        assert keyed.get("/v1/model", headers=headers).status_code == 200
