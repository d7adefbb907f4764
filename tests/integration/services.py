"""A service as a process of its own."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

# None of these is there for the service.
WITHOUT = ("tensorflow", "keras", "kedro", "mlflow", "sklearn", "onnx", "matplotlib")


class Started(NamedTuple):
    """Attributes: `address` of the service, its `process`, the file of its `log`."""

    address: str
    process: subprocess.Popen[bytes]
    log: Path

    def read_log(self) -> list[dict[str, Any]]:
        """Return the lines so far."""
        return read_lines(self.log)


@contextmanager
def start(models: Path, *options: str) -> Iterator[Started]:
    """Start a service at a free port, and kill it at the end."""
    arguments = ["serve", "--models", str(models), "--port", "0", *options]
    with run_without(WITHOUT, arguments, "running on") as (process, log, line):
        yield Started(str(line["message"].split()[3]), process, log)


@contextmanager
def run_without(
    modules: Sequence[str], arguments: Sequence[str], ready: str, **variables: str
) -> Iterator["tuple[subprocess.Popen[bytes], Path, dict[str, Any]]"]:
    """Run `python -m busi_pipeline` where some modules are not there, and kill it at the end.

    Yield the process, the file of its log, and the line that says that it is ready.
    """
    code = (
        "import runpy, sys\n"
        f"sys.modules.update(dict.fromkeys({modules!r}))\n"
        "runpy.run_module('busi_pipeline', run_name='__main__')\n"
    )
    command = [sys.executable, "-c", code, *arguments]
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "log").open("wb") as log:
        process = subprocess.Popen(command, stderr=log, env={**os.environ, **variables})
        try:
            yield process, Path(log.name), _wait_for(process, Path(log.name), ready)
        finally:
            process.kill()
            process.wait()


def _wait_for(process: "subprocess.Popen[bytes]", log: Path, ready: str) -> dict[str, Any]:
    end = time.monotonic() + 150
    while process.poll() is None and time.monotonic() < end:
        for line in _list_finished(log):
            if ready in line:
                return dict(json.loads(line))
        time.sleep(0.05)
    return pytest.fail(f"it did not start: {log.read_text()}")


def read_lines(log: Path) -> list[dict[str, Any]]:
    """Return the lines of a log so far; one that is not finished is left out."""
    return [json.loads(line) for line in _list_finished(log)]


def _list_finished(log: Path) -> list[str]:
    text = log.read_text()
    return text[: text.rfind("\n") + 1].splitlines()
