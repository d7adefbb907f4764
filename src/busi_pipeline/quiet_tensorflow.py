"""TensorFlow's import without its greeting.

Before its logging begins, TensorFlow's C++ code writes a dozen lines to the standard error that no
setting holds back: which optimisations are on, that there is no CUDA. They would stand between the
project's own lines in every run.
"""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_NAME = "tensorflow"
_STDERR = 2
# Information and warnings; an error of TensorFlow begins with E or F.
_GREETING = r"WARNING: All log messages before absl::InitializeLog|[IW]\d{4} .*\] "
_PASS_ON = f"""
import re, sys
for line in sys.stdin.buffer:
    if not re.match(rb"{_GREETING}", line):
        sys.stderr.buffer.write(line)
        sys.stderr.buffer.flush()
"""


def hush_tensorflow() -> None:
    """Let the next import of TensorFlow in this process write errors alone.

    Nothing is held back where TensorFlow is imported already, or where TF_CPP_MIN_LOG_LEVEL asks
    for information (0) or warnings (1).
    """
    if _NAME not in sys.modules and os.environ.get("TF_CPP_MIN_LOG_LEVEL", "3") not in ("0", "1"):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Finds TensorFlow where it is, once, and wraps its loader."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _NAME:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _Quiet(spec.loader)
        return spec


class _Quiet(Loader):
    """Another loader's work, without the greeting."""

    def __init__(self, loader: Any):
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        with drop_greeting():
            self._loader.exec_module(module)


@contextmanager
def drop_greeting() -> Iterator[None]:
    """Let a process of its own pass on what is written to the standard error and is no greeting.

    It outlives this one: where TensorFlow aborts in its import, the reason is still seen.
    """
    sys.stderr.flush()
    try:
        kept = os.dup(_STDERR)
    except OSError:  # a process without a standard error
        yield
        return
    command = [sys.executable, "-I", "-S", "-c", _PASS_ON]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as passing_on:  # noqa: S603 - fixed
        assert passing_on.stdin is not None
        os.dup2(passing_on.stdin.fileno(), _STDERR)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, _STDERR)
            os.close(kept)
