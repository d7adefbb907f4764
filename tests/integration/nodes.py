"""A DICOM node as a process of its own."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.integration.services import WITHOUT, read_lines, run_without

# Nor is what the HTTP service needs.
WITHOUT_MORE = (*WITHOUT, "fastapi", "starlette", "uvicorn", "prometheus_client")


class StartedNode(NamedTuple):
    """Attributes: `port`, `process`, the file of its `log`."""

    port: int
    process: "subprocess.Popen[bytes]"
    log: Path

    def read_log(self) -> list[dict[str, Any]]:
        """Return the lines so far; one that is not finished is left out."""
        return read_lines(self.log)

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
    arguments = ["dicom-node", "--models", str(models), "--to", to, "--spool", str(spool)]
    arguments += ["--port", "0", "--free-bytes", "1000", *options]
    with run_without(WITHOUT_MORE, arguments, "listens at", **variables) as (process, log, line):
        yield StartedNode(int(line["port"]), process, log)
