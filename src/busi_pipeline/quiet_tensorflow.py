"""TensorFlow's import without its greeting.

Before its logging begins, TensorFlow's C++ code writes a dozen lines to the standard error that no
setting holds back: which optimisations are on, that there is no CUDA. They would stand between the
project's own lines in every run.
"""

import importlib.util
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_NAME = "tensorflow"
_STDERR = 2
# Information and warnings; an error of TensorFlow begins with E or F.
_GREETING = re.compile(rb"WARNING: All log messages before absl::InitializeLog|[IW]\d{4} .*\] ")


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
    """Hold back what is written to the standard error, and pass on what is no greeting."""
    sys.stderr.flush()
    try:
        kept = os.dup(_STDERR)
    except OSError:  # a process without a standard error
        yield
        return
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), _STDERR)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, _STDERR)
            os.close(kept)
            held.seek(0)
            for line in held:
                if not _GREETING.match(line):
                    os.write(_STDERR, line)
