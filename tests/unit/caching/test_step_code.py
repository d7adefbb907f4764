"""The digest of a step's code: comments and names leave it, arithmetic changes it."""

from collections.abc import Mapping

import pytest

from tests.unit.caching.step_code import digest_code, find_steps, read_source

TOY = {
    "toy": "",
    "toy.step": '''
"""Module."""
import logging
import numpy as np
from toy.helpers import scale, Point
from .deep import inner
from .deep.inner import LIMIT as HIGHEST

logger = logging.getLogger(__name__)
_OFFSET, _FACTOR = 1, 2.5


def begin(values: "np.ndarray", power: int = 2) -> float:
    """Return something."""
    from toy.late import finish
    total: float = 0.0
    for value in values:
        total += scale(value, by=_FACTOR) - value**power
    if total > HIGHEST:
        raise ValueError(f"too much: {total}")
    logger.info("total %s", total)
    point = Point(total, [inner.turn(v) for v in values if v > _OFFSET])
    return finish(lambda size: np.sqrt(size + point.x))
''',
    "toy.helpers": '''
from typing import NamedTuple


def scale(value, by):
    return value * by


class Point(NamedTuple):
    """Two numbers."""

    x: float
    y: list

    def length(self):
        return self.x + len(self.y)


def unused():
    return 3
''',
    "toy.deep": "",
    "toy.deep.inner": """
import math
LIMIT = 100


def turn(angle):
    try:
        return math.sin(angle) / LIMIT
    except ZeroDivisionError as error:
        return str(error)
""",
    "toy.late": """
def finish(function):
    return function(_start())


def _start():
    return 7
""",
}


def digest(sources: Mapping[str, str] = TOY) -> str:
    return digest_code(("toy.step:begin",), sources.get, "toy")


def change(module: str, old: str, new: str) -> dict[str, str]:
    """Return the toy with the first `old` of a module replaced; it must be there."""
    assert old in TOY[module]
    return TOY | {module: TOY[module].replace(old, new)}


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("toy.step", '"""Return something."""', '"""Return another thing.\n\n    At length."""'),
        ("toy.step", '    """Return something."""\n', ""),
        ("toy.step", "    total:", "    # Sum them up.\n    total:"),
        ("toy.step", "total: float = 0.0", "total = 0.0"),
        ("toy.step", 'values: "np.ndarray"', "values: list[float]"),
        ("toy.step", "total", "whole"),
        ("toy.step", "value in values", "value in (values)"),
        ("toy.step", "lambda size: np.sqrt(size", "lambda extent: np.sqrt(extent"),
        (
            "toy.step",
            "[inner.turn(v) for v in values if v >",
            "[inner.turn(w) for w in values if w >",
        ),
        ("toy.step", "_OFFSET", "_SHIFT"),
        ("toy.step", "HIGHEST", "CEILING"),
        ("toy.step", "too much: {total}", "{total} is above {HIGHEST}"),
        ("toy.step", "total %s", "the total is %s"),
        ("toy.step", '    logger.info("total %s", total)\n', ""),
        ("toy.step", "from .deep import inner", "from toy.deep import inner"),
        ("toy.helpers", "return 3", "return 4"),
        ("toy.helpers", '    """Two numbers."""\n', ""),
        ("toy.helpers", "x: float", "x: int"),
        ("toy.deep.inner", "error", "trouble"),
        ("toy.late", "_start", "_begin"),
        ("toy.late", "def finish(function):", "def apart():\n    pass\n\n\ndef finish(function):"),
    ],
)
def test_what_does_not_count_leaves_the_digest(module: str, old: str, new: str) -> None:
    assert digest(change(module, old, new)) == digest()


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("toy.step", "2.5", "2.6"),
        ("toy.step", "= 1, 2.5", "= 2.5, 1"),
        ("toy.step", "power: int = 2", "power: int = 3"),
        ("toy.step", ") - value**power", ") + value**power"),
        (
            "toy.step",
            "scale(value, by=_FACTOR) - value**power",
            "value**power - scale(value, _FACTOR)",
        ),
        ("toy.step", "v > _OFFSET", "v >= _OFFSET"),
        ("toy.step", "v > _OFFSET", "_OFFSET > v"),
        ("toy.step", "if v > _OFFSET", "if v > _FACTOR"),
        ("toy.step", "np.sqrt", "np.cbrt"),
        ("toy.step", "import numpy as np", "import jax as np"),
        ("toy.step", "ValueError", "TypeError"),
        ("toy.step", "size + point.x", "size + point.y"),
        ("toy.step", "size + point.x", "size"),
        ("toy.step", "LIMIT as HIGHEST", "turn as HIGHEST"),
        ("toy.helpers", "value * by", "by * value"),
        ("toy.helpers", "value * by", "value / by"),
        ("toy.helpers", "    x: float\n    y: list", "    y: list\n    x: float"),
        ("toy.helpers", "self.x + len", "self.x - len"),
        ("toy.deep.inner", "math.sin", "math.cos"),
        ("toy.deep.inner", "LIMIT = 100", "LIMIT = 101"),
        ("toy.deep.inner", "ZeroDivisionError", "OverflowError"),
        ("toy.late", "return 7", "return 8"),
    ],
)
def test_what_counts_changes_the_digest(module: str, old: str, new: str) -> None:
    assert digest(change(module, old, new)) != digest()


def test_a_renamed_function_leaves_the_digest() -> None:
    renamed = {name: source.replace("scale", "stretch") for name, source in TOY.items()}
    assert digest(renamed) == digest()


def test_a_renamed_parameter_leaves_the_digest() -> None:
    renamed = {name: source.replace("by", "factor") for name, source in TOY.items()}
    assert digest(renamed) == digest()


def test_a_moved_function_leaves_the_digest() -> None:
    moved = change("toy.step", "from toy.late import finish", "from toy.elsewhere import finish")
    assert digest(moved | {"toy.elsewhere": TOY["toy.late"], "toy.late": ""}) == digest()


def test_a_nested_name_hides_no_function() -> None:
    """A parameter of a lambda is not the function of that name that is called beside it."""
    shadowed = change("toy.step", "lambda size: np.sqrt(size", "lambda scale: np.sqrt(scale")
    assert digest(shadowed) == digest()
    changed = shadowed | {"toy.helpers": TOY["toy.helpers"].replace("value * by", "value / by")}
    assert digest(changed) != digest(shadowed)


def test_a_function_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match=r"toy\.step:start is no function"):
        digest_code(("toy.step:start",), TOY.get, "toy")


BACKBONES_MODULE = "busi_pipeline.models.backbones"


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        (
            BACKBONES_MODULE,
            "BACKBONES: dict[str, Backbone] = {",
            'BACKBONES: dict[str, Backbone] = {\n    "new": Backbone("New", 9, 9, TF, "a", "b"),',
        ),
        ("busi_pipeline.errors", "import click", "import click  # a comment"),
        ("busi_pipeline.progress", "tqdm(items", "tqdm(list(items)"),
        ("busi_pipeline.config.schemas", "Count = ", "Number = Count = "),
    ],
    ids=["backbone", "comment", "progress", "settings"],
)
def test_no_step_changes_with_a_backbone_or_comment(module: str, old: str, new: str) -> None:
    source = read_source(module)
    assert source is not None
    assert old in source
    changed = source.replace(old, new, 1)
    steps = find_steps().values()
    before = [digest_code(step.code) for step in steps]
    assert before == [
        digest_code(step.code, lambda m: changed if m == module else read_source(m))
        for step in steps
    ]


def test_the_digest_reaches_what_training_calls() -> None:
    """Guards the walk itself: a constant four calls away counts."""
    module, old = "busi_pipeline.models.network", "_NO_SPREAD = 1e-6"
    source = read_source(module)
    assert source is not None
    changed = source.replace(old, "_NO_SPREAD = 1e-5")
    assert changed != source
    code = find_steps()["features"].code
    assert digest_code(code) != digest_code(
        code, lambda m: changed if m == module else read_source(m)
    )
