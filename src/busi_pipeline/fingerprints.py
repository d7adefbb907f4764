"""What a computed value depends on, as a hash: the ground on which nothing is computed twice.

A value may be kept and used again only while everything that decides it is the same: its inputs,
its settings, the code that makes it and the libraries below that code.
"""

import ast
import hashlib
import importlib.util
import json
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

_PACKAGE = __name__.partition(".")[0]


def hash_values(values: Any) -> str:
    """Return the SHA-256 of JSON-like values; the order of a mapping's keys does not matter."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def describe_code(*modules: str, libraries: tuple[str, ...] = ()) -> dict[str, str]:
    """Return what identifies the code of a step: its source and the versions it stands on.

    Args:
        modules: full names of the package's modules that do the work. Every module of the package
            which they import, directly or not, counts as well: rather one computation too many
            than a stale value.
        libraries: names of the distributions that decide the result.
    """
    digest = hashlib.sha256()
    for name, path in sorted(_collect_sources(modules).items()):
        digest.update(f"{name}\n".encode() + path.read_bytes())
    return {"code_sha256": digest.hexdigest()} | {name: version(name) for name in libraries}


def _collect_sources(modules: tuple[str, ...]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        source = _find_source(name)
        if source is None:  # `from module import name`, where the name is no module
            continue
        found[name] = source
        waiting += _list_imports(name, source)
    missing = sorted(set(modules) - set(found))
    if missing:
        raise ValueError(f"no module of {_PACKAGE}: {missing}")
    return found


@cache
def _find_source(name: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError:
        return None
    return Path(spec.origin) if spec is not None and spec.origin else None


def _list_imports(module: str, source: Path) -> Iterator[str]:
    """Yield what of this package the module imports, anywhere in it."""
    package = module if source.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(source.read_bytes())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = importlib.util.resolve_name("." * node.level + base, package)
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        else:
            continue
        yield from (name for name in names if name.partition(".")[0] == _PACKAGE)
