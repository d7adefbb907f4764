"""What is wrong with a parameter, said in one line: the setting, what is allowed, what came."""

import types
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from busi_pipeline.errors import BadInputError, BadSettingError

S = TypeVar("S", bound=BaseModel)

_RENAMED_GROUPS = {"copies": "deduplication", "judging": "evaluation"}
_RENAMED = {
    "deduplication.own_groups": "deduplication.patient_groups",
    "deduplication.mirrored_candidates": "deduplication.flipped_candidates",
    "evaluation.draws": "evaluation.n_resamples",
    "augmentation.views": "augmentation.per_image",
    "training.average_mirror": "training.tta_horizontal_flip",
    "training.average_start": "training.average_with_pretuned",
    "training.move_views_on": "training.augment_on",
    "training.head.pool_cut": "training.head.pool_intermediate",
    "training.head_phase.views_per_epoch": "training.head_phase.augmented_per_epoch",
    "training.fine_tuning.views_per_epoch": "training.fine_tuning.augmented_per_epoch",
}
_NOUNS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    dict: "a mapping from class to a whole number",
    type(None): "null",
}
_PLURALS = {int: "whole numbers", float: "numbers", str: "texts"}
_RENAMED_IN_EXPERIMENT = {
    "tail_after": "freeze_until",
    "base_end": "truncate_at",
    "published.malignant_sensitivity": "published.positive_sensitivity",
}


def check_settings(schema: type[S], value: Any, path: str) -> S:
    """Return `value` as a settings object; raises BadSettingError for one under `path`."""
    try:
        return schema.model_validate(value)
    except ValidationError as error:
        raise _describe(error, schema, path) from None


def describe_unknown(path: str, allowed: Iterable[str]) -> BadSettingError:
    """Say that `path` is no setting, which name is nearest to its last part, and which exist."""
    *above, name = path.split(".")
    names = sorted(allowed)
    meant = suggest(name, names, "".join(f"{part}." for part in above))
    return BadSettingError(f"{path} is no setting.{meant} Allowed here: {', '.join(names)}.", path)


def suggest(name: str, names: Iterable[str], start: str = "", most: int = 1) -> str:
    """Return ` Did you mean this or that?`, nearest first; an empty text where none is near.

    Args:
        name: what was written.
        names: what could have been meant.
        start: stands before each of them.
        most: how many are named.
    """
    near = [start + name for name in get_close_matches(name, list(names), n=most)]
    return f" Did you mean {' or '.join(near)}?" if near else ""


def refuse_renamed(parameters: Mapping[str, Any]) -> None:
    """Raise BadInputError where a parameter still has an old name, with the new one."""
    found = {path: new for path in _list_paths(parameters) if (new := _rename(path)) != path}
    if found:
        pairs = ", ".join(f"{old} is now {new}" for old, new in sorted(found.items()))
        raise BadInputError(f"some parameters have new names: {pairs}. Please rename them.")


def describe_allowed(field: FieldInfo) -> str:
    """Say in words what a field of a schema may hold, such as `a whole number, at least 1`."""
    return _describe_type(field.annotation, field.metadata)


def _list_paths(value: Any, path: str = "") -> Iterator[str]:
    """Yield the dotted paths of all leaves; an empty mapping is a leaf."""
    if not isinstance(value, Mapping) or (path and not value):
        yield path
        return
    for key, below in value.items():
        yield from _list_paths(below, f"{path}.{key}" if path else str(key))


def _rename(path: str) -> str:
    first, *below = path.split(".")
    if first == "experiments" and len(below) > 1:
        name, *within = below
        inner = ".".join(within)
        return f"experiments.{name}.{_RENAMED_IN_EXPERIMENT.get(inner) or _rename(inner)}"
    path = ".".join([_RENAMED_GROUPS.get(first, first), *below])
    return _RENAMED.get(path, path)


def _describe(error: ValidationError, schema: type[BaseModel], path: str) -> BadSettingError:
    # A misspelt key comes with a missing one: the misspelt one is what the user sees.
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    above, field = _find_field(schema, first["loc"])
    where = ".".join([path, *above])
    if first["type"] == "extra_forbidden":
        model = _unwrap_model(field.annotation) if field else schema
        assert model is not None
        return describe_unknown(f"{where}.{first['loc'][-1]}", model.model_fields)
    if first["type"] == "value_error":
        return BadSettingError(f"{where}: {first['msg'].removeprefix('Value error, ')}.", where)
    allowed = describe_allowed(field) if field else "a mapping of settings"
    if first["type"] == "missing":
        return BadSettingError(f"{where} is missing; it must be {allowed}.", where)
    got = _find_input(first, above)
    return BadSettingError(f"{where} must be {allowed}; got {got!r}.", where)


def _find_field(
    schema: type[BaseModel], location: tuple[int | str, ...]
) -> tuple[list[str], FieldInfo | None]:
    """Return the part of a location that names settings, and the field it ends in."""
    names: list[str] = []
    field: FieldInfo | None = None
    model: type[BaseModel] | None = schema
    for part in location:
        if model is None or part not in model.model_fields:
            break  # a branch of a union, an item of a list, or the unknown key itself
        field = model.model_fields[str(part)]
        names.append(str(part))
        model = _unwrap_model(field.annotation)
    return names, field


def _find_input(error: Any, above: list[str]) -> Any:
    value = error["input"]
    inside = [part for part in error["loc"][len(above) :] if isinstance(part, int)]
    return [value] if inside else value


def _unwrap_model(annotation: Any) -> type[BaseModel] | None:
    for part in (annotation, *get_args(annotation)):
        if isinstance(part, type) and issubclass(part, BaseModel):
            return part
    return None


def _describe_type(annotation: Any, metadata: Iterable[Any] = ()) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        inner = [m for a in arguments[1:] for m in getattr(a, "metadata", [a])]
        return _describe_type(arguments[0], [*inner, *metadata])
    if origin in (Union, types.UnionType):
        return " or ".join(_describe_type(part) for part in arguments)
    if origin is Literal:
        return " or ".join(map(str, arguments))
    if origin is tuple:
        noun = f"a list of {_PLURALS[_unwrap(arguments[0])]}"
    else:
        noun = _NOUNS.get(origin or annotation, "a mapping of settings")
    bounds = " and ".join(_describe_bounds(metadata))
    return f"{noun}, {bounds}" if bounds else noun


def _unwrap(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _describe_bounds(metadata: Iterable[Any]) -> Iterator[str]:
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    for item in metadata:
        for key, word in words.items():
            if getattr(item, key, None) is not None:
                yield f"{word} {getattr(item, key)}"
