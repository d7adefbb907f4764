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
