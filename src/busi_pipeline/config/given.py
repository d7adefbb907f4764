"""The parameters of a command, as they may be typed again and shown to others."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

# Parameters that name a place on this machine. Folders are often named after patients.
_PLACES = ("folder", "labels", "model")
_ABSOLUTE = re.compile(r"(/|~|[A-Za-z]:[\\/])")


def list_given(parameters: Mapping[str, Any]) -> list[str]:
    """Return `split.seed=1` for each parameter of a command, for `--params`.

    A place on this machine is `<folder>`, whatever it is called. A list cannot be typed there: it
    is `<list>`.

    Args:
        parameters: nested, as from `--params`.
    """
    return [f"{name}={_write(name, value)}" for name, value in flatten(parameters)]


def flatten(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (`outer.inner`, value) of a nested mapping, depth first."""
    for key, value in record.items():
        name = f"{prefix}.{key}" if prefix else str(key)
        if isinstance(value, Mapping):
            yield from flatten(value, name)
        else:
            yield name, value


def _write(name: str, value: Any) -> str:
    last = name.rpartition(".")[2]
    if isinstance(value, str):
        is_place = last in _PLACES and re.search(r"[/\\]", value)
        return f"<{last}>" if is_place or _ABSOLUTE.match(value) else value
    return "<list>" if isinstance(value, list | tuple) else json.dumps(value)
