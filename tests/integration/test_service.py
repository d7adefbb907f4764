"""The service as a process of its own: slow, damaged and many requests, exchange, stop."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from busi_pipeline.models.ledger import CHAMPION, PREVIOUS
from tests.integration.services import start
from tests.serving_factories import SCAN, THRESHOLDS, give_roles, write_model


def post(address: str, **options: Any) -> httpx.Response:
    return httpx.post(
        f"{address}/v1/predictions", files={"files": ("a.png", SCAN)}, timeout=30, **options
    )


@pytest.fixture(scope="module")
def address(models: Path) -> Iterator[str]:
    limits = ["--header-seconds", "1", "--body-seconds", "1.5", "--max-bytes", "200000"]
    with start(models, *limits) as service:
        yield service.address


def connect(address: str) -> socket.socket:
    host, port = address.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=10)
    return connection


def read_all(connection: socket.socket) -> bytes:
    received = b""
    while part := connection.recv(65_536):
        received += part
    return received


def test_it_answers_without_what_training_needs(address: str) -> None:
    answer = post(address)
    assert answer.status_code == 200
    assert answer.json()["predictions"][0]["error"] is None
    assert "server" not in answer.headers


@pytest.mark.parametrize("sent", [b"", b"GET /healthz HTTP/1.1\r\nHost: [::1]\r\nX-Slow: "])
def test_headers_that_do_not_come_end_the_connection(sent: bytes, address: str) -> None:
    with connect(address) as connection:
        connection.sendall(sent)
        begun = time.monotonic()
        assert read_all(connection) == b""
        assert 0.5 < time.monotonic() - begun < 8


def test_slow_headers_after_an_answer_end_the_connection(address: str) -> None:
    with connect(address) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: [::1]\r\n\r\n")
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200")
        connection.sendall(b"GET /heal")
        assert b"HTTP/1.1 200" not in read_all(connection)


def test_a_body_that_comes_slowly_is_given_up(address: str) -> None:
    with connect(address) as connection:
        connection.sendall(
            b"POST /v1/predictions HTTP/1.1\r\nHost: [::1]\r\nContent-Length: 1000\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x"
        )
        assert read_all(connection).startswith(b"HTTP/1.1 408")


def test_a_refusal_does_not_wait_for_the_rest_of_the_body(address: str) -> None:
    with connect(address) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: [::1]\r\nContent-Length: 1000\r\n\r\na")
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200")
        with suppress(OSError):
            connection.sendall(b"b")
            assert read_all(connection) == b"", "closed"


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /none HTTP/1.1\r\nHost: [::1]\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        b"GET /no HTTP/1.1\r\nHost: [::1]\r\nX-Request-ID: a\r\n b: c\r\nConnection: close\r\n\r\n",
        b"POST /v1/predictions HTTP/1.1\r\nHost: [::1]\r\nContent-Length: 5\r\n"
        b"Content-Length: 6\r\n\r\nabcdef",
        b"POST /v1/predictions HTTP/1.1\r\nHost: [::1]\r\nContent-Length: 99999999999\r\n\r\n",
    ],
)
def test_damaged_requests_are_refused_and_harm_nobody(sent: bytes, address: str) -> None:
    with connect(address) as connection:
        connection.sendall(sent)
        answer = connection.recv(65_536)
        assert answer.startswith(b"HTTP/1.1 4")
        assert b"\r\nb: c" not in answer.lower()
    assert post(address).status_code == 200


def test_what_was_accepted_is_answered_before_the_end(models: Path) -> None:
    with start(models) as service, ThreadPoolExecutor(12) as pool:
        waiting = [pool.submit(post, service.address) for _ in range(12)]
        while not any(future.done() for future in waiting):
            time.sleep(0.01)
        service.process.send_signal(signal.SIGTERM)
        statuses = []
        for future in waiting:
            with suppress(httpx.NetworkError):  # one that the service did not accept any more
                statuses.append(future.result().status_code)
        # The signal is raised again once all is answered.
        assert service.process.wait(30) == -signal.SIGTERM
        log = service.read_log()
    accepted = [line["status"] for line in log if line["message"] == "request"]
    assert accepted == statuses
    assert set(accepted) == {200}


def test_an_exchange_loses_no_request(tmp_path: Path) -> None:
    versions = {role: write_model(tmp_path, THRESHOLDS[role]) for role in (CHAMPION, PREVIOUS)}
    one, other = versions[CHAMPION], versions[PREVIOUS]
    give_roles(tmp_path, champion=one, previous=other)
    with start(tmp_path) as service, ThreadPoolExecutor(4) as pool:

        def ask_many() -> list[tuple[int, str]]:
            with httpx.Client(timeout=30) as client:
                answers = [
                    client.post(
                        f"{service.address}/v1/predictions", files={"files": ("a.png", SCAN)}
                    )
                    for _ in range(60)
                ]
            return [(own.status_code, own.json().get("model_version", "")) for own in answers]

        asked = [pool.submit(ask_many) for _ in range(4)]
        while not all(future.done() for future in asked):
            one, other = other, one
            give_roles(tmp_path, champion=one, previous=other)
            time.sleep(0.4)
        answers = [answer for future in asked for answer in future.result()]
    assert len(answers) == 240
    assert {status for status, _ in answers} == {200}
    assert {version for _, version in answers} == set(versions.values())


def test_a_wrong_setting_ends_it_in_one_line(models: Path) -> None:
    command = [sys.executable, "-m", "busi_pipeline", "serve", "--models", str(models)]
    finished = subprocess.run(
        [*command, "--host", "0.0.0.0"], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 1
    assert finished.stderr.startswith("Error: --host 0.0.0.0 can be reached from elsewhere")
    assert finished.stderr.count("\n") == 1
