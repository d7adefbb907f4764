"""What hostile requests try: paths, addresses, headers and names that mean something elsewhere."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from tests.dicom_factories import SECRETS, make_dicom, write_dicom
from tests.serving_factories import SCAN, serve

SCRIPT = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def client(models: Path) -> Iterator[TestClient]:
    with serve(models) as (client, _):
        client.post("/page/session", data={"reader": "A"})
        yield client


@pytest.mark.parametrize(
    "path",
    [
        "/page/static/../routes.py",
        "/page/static/..%2froutes.py",
        "/page/static/%2e%2e/routes.py",
        "/page/static/..%5croutes.py",
        "/page/static//etc/passwd",
        "/page/static/%00",
        "/page/cases/..%2f..%2fetc%2fpasswd/picture.png",
        "/v2/models/..%2f..%2fother/infer",
        "/v2/models/tiny/versions/..%2f..",
    ],
)
def test_paths_lead_to_nothing_else(path: str, client: TestClient) -> None:
    sent = client.get(path)
    assert sent.status_code in (400, 404, 405)
    assert "import" not in sent.text
    assert "root:" not in sent.text


def test_the_service_opens_no_connection(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An address in the place of an image is text (server-side request forgery)."""

    def refuse(*_: object) -> None:
        pytest.fail("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    for address in ("http://127.0.0.1:1/a.png", "file:///etc/passwd", "//host/share"):
        bytes_sent = client.post("/v1/predictions", files={"files": (address, address.encode())})
        assert bytes_sent.status_code == 422
        assert "root:" not in bytes_sent.text
        body = {"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": [address]}]}
        inferred = client.post("/v2/models/tiny/infer", content=json.dumps(body))
        assert 400 <= inferred.status_code < 500


@pytest.mark.parametrize("end", ["\r\nset-cookie: a=b", "\nset-cookie: a=b", "\x00", "é"])
def test_what_a_request_brings_breaks_no_header(end: str, client: TestClient) -> None:
    for headers in ({"x-request-id": f"id{end}"}, {"accept-language": f"de{end}"}):
        raw = {name: value.encode("utf-8") for name, value in headers.items()}
        sent = client.get("/page/", headers=raw)
        assert "a=b" not in str(sent.headers)
        assert sent.headers["x-request-id"].isalnum()
    for path in ("/page/", "/page/model"):
        sent = client.get(path, params={"language": f"de{end}"})
        assert "set-cookie" not in sent.headers


def test_texts_of_a_dicom_file_are_shown_nowhere(client: TestClient) -> None:
    frame = np.random.default_rng(0).integers(0, 255, (80, 90), np.uint8)
    named = {"PatientName": f"{SCRIPT}^DOE", "StudyDescription": SCRIPT, "Manufacturer": SCRIPT}
    content = write_dicom(make_dicom([frame], **named))
    case = client.post("/page/cases", files={"files": ("a.dcm", content)})
    assert "/page/cases/" in str(case.url), case.text
    read = client.post(f"{case.url}/read", data={"birads": "2"})
    answer = client.post("/v1/predictions", files={"files": ("a.dcm", content)})
    for sent in (case, read, answer):
        assert sent.status_code == 200
        for text in (SCRIPT, "alert(1)", *SECRETS):
            assert text not in sent.text


def test_a_name_in_json_is_text(client: TestClient) -> None:
    sent = client.post("/v1/predictions", files={"files": (f"{SCRIPT}.png", SCAN)})
    assert sent.headers["content-type"] == "application/json"
    assert sent.headers["x-content-type-options"] == "nosniff"
    policy = sent.headers["content-security-policy"]
    assert policy == "default-src 'none'; frame-ancestors 'none'"
