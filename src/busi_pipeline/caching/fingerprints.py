"""What decides a computed value, as a hash: the name under which the cache keeps it."""

import hashlib
import json
import os
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

# Environment variables that change what a library computes, if only in the last digits.
_DECIDING = {
    "tensorflow": (
        "TF_CUDNN_DETERMINISTIC",
        "TF_CUDNN_USE_AUTOTUNE",
        "TF_DETERMINISTIC_OPS",
        "TF_ENABLE_ONEDNN_OPTS",
        "TF_SET_ONEDNN_FPMATH_MODE",
        "TF_XLA_FLAGS",
        "XLA_FLAGS",
        "DNNL_DEFAULT_FPMATH_MODE",
        "DNNL_MAX_CPU_ISA",
        "ONEDNN_DEFAULT_FPMATH_MODE",
        "ONEDNN_MAX_CPU_ISA",
        "NVIDIA_TF32_OVERRIDE",
    ),
}


def hash_values(values: Any) -> str:
    """Return the SHA-256 of JSON-like values; the order of a mapping's keys does not matter."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Fingerprint:
    """The name of a value.

    Attributes:
        step: what computes the value; letters, digits and underscores.
        values: all that decides it, JSON-like: inputs, resolved settings, version of the step,
            versions of the libraries. Two values of one fingerprint are the same.
    """

    step: str
    values: dict[str, Any]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of step and values."""
        return hash_values([self.step, self.values])

    def describe(self) -> dict[str, Any]:
        """Return step and values, for a file beside the value."""
        return {"step": self.step, "values": self.values}


@dataclass(frozen=True)
class Step:
    """A computation whose results are cached.

    Raise `version` whenever the arithmetic changes. Comments, docstrings and names do not count:
    the unit test of the steps compares the code that a step reaches with what was recorded for its
    version, and fails where the code differs and the version does not.

    Attributes:
        name: see Fingerprint.step.
        version: counts from 1.
        code: where the arithmetic begins: `module:function` within this package. What these reach
            within the package belongs to the step, too.
        libraries: distributions that decide the values.
    """

    name: str
    version: int
    code: tuple[str, ...]
    libraries: tuple[str, ...] = ()

    def fingerprint(self, **values: Any) -> Fingerprint:
        """Return the name of what this step makes of `values` (inputs and settings, JSON-like).

        Environment variables that change what one of the libraries computes are part of it where
        they are set.
        """
        libraries = {name: version(name) for name in self.libraries}
        named = {**values, "step_version": self.version, "libraries": libraries}
        variables = {
            variable: os.environ[variable]
            for name in self.libraries
            for variable in _DECIDING.get(name, ())
            if os.environ.get(variable)
        }
        return Fingerprint(self.name, {**named, "variables": variables} if variables else named)
