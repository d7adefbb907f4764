"""A DICOM node as a process of its own."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.integration.services import WITHOUT

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

    def wait_for(self, message: str, count: int = 1, seconds: float = 150) -> None:
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
    end = time.monotonic() + 150
    while process.poll() is None and time.monotonic() < end:
        for line in log.read_text().splitlines():
            if "listens at" in line and line.endswith("}"):
                return int(json.loads(line)["port"])
        time.sleep(0.05)
    return pytest.fail(f"the node did not start: {log.read_text()}")
