"""A service as a process of its own."""

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

# None of these is there for the service.
WITHOUT = ("tensorflow", "keras", "kedro", "mlflow", "sklearn", "onnx", "matplotlib")


class Started(NamedTuple):
    """Attributes: `address` of the service, its `process`, the file of its `log`."""

    address: str
    process: subprocess.Popen[bytes]
    log: Path

    def read_log(self) -> list[dict[str, Any]]:
        """Return the lines so far."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@contextmanager
def start(models: Path, *options: str) -> Iterator[Started]:
    """Start a service at a free port, and kill it at the end."""
    code = (
        "import runpy, sys\n"
        f"sys.modules.update(dict.fromkeys({WITHOUT!r}))\n"
        "runpy.run_module('busi_pipeline', run_name='__main__')\n"
    )
    command = [sys.executable, "-c", code, "serve", "--models", str(models), "--port", "0"]
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "log").open("wb") as log:
        process = subprocess.Popen([*command, *options], stderr=log, env=dict(os.environ))
        try:
            yield Started(_wait_for(process, Path(log.name)), process, Path(log.name))
        finally:
            process.kill()
            process.wait()


def _wait_for(process: "subprocess.Popen[bytes]", log: Path) -> str:
    end = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < end:
        for line in log.read_text().splitlines():
            if "running on" in line:
                return str(json.loads(line)["message"].split()[3])
        time.sleep(0.05)
    return pytest.fail(f"the service did not start: {log.read_text()}")
