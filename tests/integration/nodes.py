"""A DICOM node as a process of its own, and a scanner that sends to it."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from ssl import SSLContext
from typing import Any, NamedTuple

import pytest
from pydicom import Dataset
from pynetdicom import AE
from pynetdicom.sop_class import Verification

from tests.integration.services import WITHOUT

NODE = "BUSI_PIPELINE"
# Nor is what the HTTP service needs.
WITHOUT_MORE = (*WITHOUT, "fastapi", "starlette", "uvicorn", "prometheus_client")


class StartedNode(NamedTuple):
    """Attributes: `port`, `process`, the file of its `log`."""

    port: int
    process: "subprocess.Popen[bytes]"
    log: Path

    def read_log(self) -> list[dict[str, Any]]:
        """Return the lines so far; one that is not finished is left out."""
        text = self.log.read_text()
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    def count_lines(self, message: str) -> int:
        """Return how many lines begin like this."""
        return sum(line["message"].startswith(message) for line in self.read_log())

    def wait_for(self, message: str, count: int = 1, seconds: float = 60) -> None:
        """Wait for so many lines; the test fails where they do not come."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.count_lines(message) >= count:
                return
            time.sleep(0.05)
        pytest.fail(f"{message!r} does not come: {self.log.read_text()}")


@contextmanager
def start_node(
    models: Path, spool: Path, to: str, *options: str, **variables: str
) -> Iterator[StartedNode]:
    """Start a node at a free port, and kill it at the end."""
    code = (
        "import runpy, sys\n"
        f"sys.modules.update(dict.fromkeys({WITHOUT_MORE!r}))\n"
        "runpy.run_module('busi_pipeline', run_name='__main__')\n"
    )
    command = [sys.executable, "-c", code, "dicom-node", "--models", str(models), "--to", to]
    command += ["--spool", str(spool), "--port", "0", "--free-bytes", "1000", *options]
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "log").open("wb") as log:
        process = subprocess.Popen(command, stderr=log, env={**os.environ, **variables})
        try:
            yield StartedNode(_wait_for(process, Path(log.name)), process, Path(log.name))
        finally:
            process.kill()
            process.wait()


def _wait_for(process: "subprocess.Popen[bytes]", log: Path) -> int:
    end = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < end:
        for line in log.read_text().splitlines():
            if "listens at" in line and line.endswith("}"):
                return int(json.loads(line)["port"])
        time.sleep(0.05)
    return pytest.fail(f"the node did not start: {log.read_text()}")


def send(
    port: int,
    images: Sequence[Dataset],
    calling: str = "SCANNER",
    called: str = NODE,
    tls: SSLContext | None = None,
) -> list[int | None]:
    """Send images as a scanner does, and return their status; None where there was no answer."""
    entity = AE(calling)
    entity.dimse_timeout = entity.acse_timeout = 30
    for image in images:
        if image.SOPClassUID not in {own.abstract_syntax for own in entity.requested_contexts}:
            entity.add_requested_context(image.SOPClassUID, image.file_meta.TransferSyntaxUID)
    association = entity.associate(
        "127.0.0.1", port, ae_title=called, tls_args=None if tls is None else (tls, "localhost")
    )
    assert association.is_established
    try:
        return [association.send_c_store(image).get("Status") for image in images]
    finally:
        association.release()


def ask_to_echo(
    port: int, calling: str = "SCANNER", called: str = NODE, tls: SSLContext | None = None
) -> tuple[int, int, int] | int | None:
    """Return the status of a C-ECHO, or result, source and reason of a rejection, or None."""
    entity = AE(calling)
    entity.acse_timeout = entity.connection_timeout = 10
    entity.add_requested_context(Verification)
    association = entity.associate(
        "127.0.0.1", port, ae_title=called, tls_args=None if tls is None else (tls, "localhost")
    )
    if association.is_established:
        status = int(association.send_c_echo().Status)
        association.release()
        return status
    answer = association.acceptor.primitive
    if association.is_rejected and answer is not None:
        return answer.result, answer.result_source, answer.diagnostic
    return None
