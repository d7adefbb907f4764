"""What importing the package sets and loads, in a process of its own."""

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(("allowed", "backend"), [("", "tensorflow"), ("1", "jax")])
def test_package_forces_its_backend(allowed: str, backend: str) -> None:
    names = "['KERAS_BACKEND', 'TF_USE_LEGACY_KERAS']"
    code = f"import os, busi_pipeline; print(*(os.environ[name] for name in {names}))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ
        | {"KERAS_BACKEND": "jax", "TF_USE_LEGACY_KERAS": "1", "BUSI_ALLOW_BACKEND": allowed},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [backend, "0"]


def test_configuration_does_not_import_tensorflow() -> None:
    code = (
        "import sys, busi_pipeline.settings; "
        "assert not {'tensorflow', 'keras'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def import_tensorflow(level: str | None) -> str:
    """Import the package and TensorFlow in a process; return what stands in its standard error."""
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    if level is not None:
        environment["TF_CPP_MIN_LOG_LEVEL"] = level
    code = (
        "import busi_pipeline, os, sys; os.write(2, b'before\\n'); import tensorflow as tf; "
        "assert tf.__spec__.loader is tf.__loader__; tf.zeros(1); os.write(2, b'after\\n')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    return done.stderr


def test_tensorflow_says_nothing_at_its_start() -> None:
    """The control: asked for, its lines are there."""
    assert import_tensorflow(None) == "before\nafter\n"
    assert "oneDNN" in import_tensorflow("0")


def test_only_the_greeting_is_dropped() -> None:
    code = (
        "import os; from busi_pipeline.quiet_tensorflow import drop_greeting\n"
        "with drop_greeting():\n"
        "    os.write(2, b'WARNING: All log messages before absl::InitializeLog() is called\\n')\n"
        "    os.write(2, b'I0000 00:00:1.2  5 port.cc:153] oneDNN custom operations are on.\\n')\n"
        "    os.write(2, b'E0000 00:00:1.2  5 gpu.cc:1] out of memory\\nTraceback\\n')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "E0000 00:00:1.2  5 gpu.cc:1] out of memory\nTraceback\n"


def test_the_reason_for_an_abort_is_seen() -> None:
    """As where TensorFlow was built for a newer processor: it writes why, and aborts."""
    code = (
        "import os; from busi_pipeline.quiet_tensorflow import drop_greeting\n"
        "with drop_greeting():\n"
        "    os.write(2, b'F0000 00:00:1.2  5 cpu.cc:1] needs AVX\\n')\n"
        "    os.abort()\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert done.stderr == "F0000 00:00:1.2  5 cpu.cc:1] needs AVX\n"
