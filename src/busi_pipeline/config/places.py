"""Where in the files a setting stands, and what is wrong with a file that cannot be read."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from omegaconf import OmegaConf

from .experiments import SHARED_GROUPS


def list_origins(path: str) -> list[str]:
    """Return the settings that give a setting its value: itself, then the shared one behind it.

    `experiments.vgg16.training.weights` is often `training.weights`.
    """
    first, *below = path.split(".")
    if first == "experiments" and len(below) > 1 and below[1] in SHARED_GROUPS:
        return [path, ".".join(below[1:])]
    return [path]


def has_setting(values: Any, path: str) -> bool:
    """Return whether nested values hold a setting, also where it is null."""
    for part in path.split("."):
        if not isinstance(values, Mapping) or part not in values:
            return False
        values = values[part]
    return True


def find_line(text: str, path: str) -> int | None:
    """Return the line of a YAML text in which a setting's name stands, from 1; None for none.

    A name may have dots in it, as those of datasets have.
    """
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        return None
    rest: str = path
    while isinstance(node, yaml.MappingNode):
        pairs = {str(key.value): (key.start_mark.line + 1, value) for key, value in node.value}
        if rest in pairs:
            return pairs[rest][0]
        first, _, rest = rest.partition(".")
        if first not in pairs:
            return None
        node = pairs[first][1]
    return None


def list_parents(path: str) -> Sequence[str]:
    """Return what a setting stands under, the nearest first."""
    parts = path.split(".")
    return [".".join(parts[:length]) for length in range(len(parts) - 1, 0, -1)]


def find_fault(content: bytes) -> str | None:
    """Say what is wrong with a file's content, with the line before it; None where nothing is."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        return f", line {line}: this is no text in UTF-8. Save it as UTF-8."
    try:
        # Kedro reads with OmegaConf, which refuses names that stand twice.
        OmegaConf.create(text)
        values = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        return _describe_mark(error, last=len(text.splitlines()))
    except yaml.YAMLError as error:
        return f": this is no YAML: {_join_lines(error)}. Correct it there."
    if values is None or isinstance(values, Mapping):
        return None
    return f": this must be a mapping of names to values; got {str(values)[:40]!r}."


def _describe_mark(error: yaml.MarkedYAMLError, last: int) -> str:
    mark, around = error.problem_mark or error.context_mark, error.context_mark
    line = f", line {min(mark.line + 1, last)}" if mark else ""  # what is missing at the end
    problem = _join_lines(error.problem or error.context)
    if error.problem and error.context:
        since = f" that begins in line {min(around.line + 1, last)}" if around else ""
        problem += f" {_join_lines(error.context)}{since}"
    return f"{line}: this is no YAML: {problem}. Correct it there."


def _join_lines(text: Any) -> str:
    return " ".join(str(text).split())
