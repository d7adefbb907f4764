"""An experiment is one entry of parameters: what it inherits, and how it is completed and checked.

Shared values stand under `augmentation` and `training`; an entry under `experiments` holds only
what differs. What comes from the command line wins over both.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from busi_pipeline.errors import BadInputError, BadSettingError
from busi_pipeline.models.backbones import BACKBONES, get_backbone

from .messages import check_settings, describe_unknown
from .schemas import ExperimentSettings, JoinedSettings, ModelSettings, merge_settings

logger = logging.getLogger(__name__)

ENSEMBLE = "ensemble"
# The part of a namespace that is about the mean of the networks of all folds.
BAG = "bag"
# The part of a namespace that is about a site which no model has seen.
EXTERNAL = "external"
SHARED_GROUPS = ("input", "augmentation", "training")
# Names that stand beside those of experiments: in the catalog, on disk, as namespaces, in MLflow.
TAKEN_NAMES = frozenset(
    {
        ENSEMBLE,
        *SHARED_GROUPS,
        "adaptation",
        BAG,
        "bias_audit",
        "classes",
        "cross_validation",
        "dask",
        "dataset",
        "deduplication",
        "duplicates",
        "evaluation",
        "experiments",
        "external",
        "external_validation",
        "images",
        "ingestion",
        "leakage",
        "leave_one_site_out",
        "lesion_free_classes",
        "lesion_boxes",
        "localization",
        "localizer",
        "model_comparison",
        "monitoring",
        "positive_classes",
        "prediction",
        "preprocessing",
        "privacy",
        "promotion",
        "random_folds",
        "reporting",
        "seconds",
        "sites",
        "split",
        "splitting",
        "test",
        "validation",
        "within_site",
    }
)
# What an entry with `members` may say; the rest is that of its members.
_OF_JOINED = ("title", "members", "of_folds")
_SEPARATOR = "__"


def load_experiments(
    parameters: Mapping[str, Any], command_line: Mapping[str, Any] | None = None
) -> dict[str, ExperimentSettings | JoinedSettings]:
    """Complete and check every entry of `experiments`, of one network or joining others.

    Args:
        parameters: the merged parameters, of which `experiments` and SHARED_GROUPS are read; they
            hold what came from the command line already.
        command_line: what came from there alone (`--params`). Its SHARED_GROUPS win over an entry's
            own values, its `experiments.<name>` over everything.

    Raises BadSettingError, one line, where an entry or its name is wrong.
    """
    command_line = command_line or {}
    entries = parameters["experiments"]
    if not isinstance(entries, Mapping) or not entries:
        raise BadSettingError(
            f"experiments must be a mapping with one or more entries; got {entries!r}.",
            "experiments",
        )
    for name in entries:
        _check_name(name)
    overrides = {group: command_line[group] for group in SHARED_GROUPS if group in command_line}
    own = command_line.get("experiments") or {}
    single: dict[str, ExperimentSettings] = {}
    for name, entry in entries.items():
        if not isinstance(entry, Mapping):
            raise BadSettingError(
                f"experiments.{name} must be a mapping of settings; got {entry!r}.",
                f"experiments.{name}",
            )
        if "members" in entry:
            continue
        if "backbone" not in entry and name in own:
            raise describe_unknown(f"experiments.{name}", set(entries) - {name})
        single[name] = resolve_experiment(
            entry,
            {group: parameters[group] for group in SHARED_GROUPS},
            name=name,
            command_line=merge_settings(overrides, own.get(name) or {}),
        )
    experiments: dict[str, ExperimentSettings | JoinedSettings] = {}
    for name, entry in entries.items():
        settings = single.get(name) or join_experiments(name, entry, single)
        if settings is not None:
            experiments[name] = settings
    for name, settings in experiments.items():
        if settings.baseline_of is not None and settings.baseline_of not in experiments:
            raise BadSettingError(
                f"experiments.{name}.baseline_of must be an experiment, one of "
                f"{', '.join(experiments)}; got {settings.baseline_of!r}.",
                f"experiments.{name}.baseline_of",
            )
    _log_overridden(entries, overrides, own)
    return experiments


def resolve_experiment(
    entry: Mapping[str, Any],
    shared: Mapping[str, Any],
    *,
    name: str = "experiment",
    command_line: Mapping[str, Any] | None = None,
) -> ExperimentSettings:
    """Lay an entry over the shared settings, fill in the backbone's own, and check all of it.

    Args:
        entry: what differs; `backbone` it must have.
        shared: the shared values, SHARED_GROUPS.
        name: of the experiment, for messages.
        command_line: laid over everything.

    Raises BadSettingError in one line: the setting, what it may be, what came.
    """
    if "backbone" not in entry:
        for setting in entry:
            if setting not in ExperimentSettings.model_fields:  # `backbon`, say
                raise describe_unknown(
                    f"experiments.{name}.{setting}", ExperimentSettings.model_fields
                )
        raise BadSettingError(
            f"experiments.{name} names no backbone: add `backbone: <one of "
            f"{', '.join(BACKBONES)}>`.",
            f"experiments.{name}",
        )
    try:
        backbone = get_backbone(str(entry["backbone"]))
    except BadInputError as error:
        raise BadSettingError(
            f"experiments.{name}: {error}", f"experiments.{name}.backbone"
        ) from None
    defaults = {
        "title": entry["backbone"],
        "image_size": backbone.image_size,
        "freeze_until": backbone.freeze_until,
        **shared,
    }
    complete = merge_settings(defaults, entry, command_line or {})
    return check_settings(ExperimentSettings, complete, f"experiments.{name}")


def join_experiments(
    name: str, entry: Mapping[str, Any], single: Mapping[str, ExperimentSettings]
) -> JoinedSettings | None:
    """Check an entry with `members`, and add the input that these have in common.

    Returns None, with a warning, where the members see different things: whoever changes one of
    them may still run it.

    Args:
        name: of the entry, for messages.
        entry: `title`, `members`, `of_folds`.
        single: the experiments of one network.

    Raises BadSettingError in one line where the entry has another setting, or a member is none of
    `single`, or is named twice.
    """
    for setting in entry:
        if setting not in _OF_JOINED:
            raise describe_unknown(f"experiments.{name}.{setting}", _OF_JOINED)
    members = entry["members"]
    if isinstance(members, str) or not isinstance(members, Sequence):
        members = [members]
    for member in members:
        if not isinstance(member, str) or member not in single:
            raise BadSettingError(
                f"experiments.{name}.members must be experiments of one network each, of "
                f"{', '.join(single)}; got {member!r}.",
                f"experiments.{name}.members",
            )
    fewest, in_words = (1, "one") if entry.get("of_folds") else (2, "two")
    if len(members) < fewest or len(set(members)) < len(members):
        raise BadSettingError(
            f"experiments.{name}.members must be {in_words} or more different experiments; got "
            f"{', '.join(members) or 'none'}.",
            f"experiments.{name}.members",
        )
    first = single[members[0]]
    for member in members[1:]:
        other = single[member]
        if (other.input, other.image_size) != (first.input, first.image_size):
            logger.warning(
                "experiments.%s is left out: its members must see the same, but input and "
                "image_size of %s differ from those of %s",
                *(name, member, members[0]),
            )
            return None
    title = " and ".join(single[member].title for member in members)
    complete = {
        "title": f"{title}, all folds" if entry.get("of_folds") else title,
        "image_size": first.image_size,
        "input": first.input.model_dump(mode="json"),
        "batch_size": first.extraction_batch_size,
        **entry,
        "members": list(members),
    }
    return check_settings(JoinedSettings, complete, f"experiments.{name}")


def name_input(
    what: str, experiment: str, settings: ModelSettings, evaluation: str | None = None
) -> str:
    """Return the dataset of what an experiment's network sees.

    Args:
        what: `images`, `masks` or `occluded_images`.
        experiment: its name.
        settings: of it.
        evaluation: `cross_validation`, `external`; None for the hold-out split. The whole image is
            the same in all of them but for other sites; where the lesion is found, is not.
    """
    if settings.input.is_plain:
        outside = f"{EXTERNAL}." if evaluation == EXTERNAL else ""
        return f"{outside}{what}_{settings.image_size}"
    return f"{experiment}.{evaluation}.{what}" if evaluation else f"{experiment}.{what}"


def name_item(experiment: str, item: str) -> str:
    """Return the name of a node's argument that is an item of one of many experiments."""
    return f"{experiment}{_SEPARATOR}{item}"


def name_items(names: Iterable[str], items: Mapping[str, str]) -> dict[str, str]:
    """Return {argument of a node: dataset} of the same items of many experiments, folds or members.

    Args:
        names: of the experiments.
        items: {item: dataset}, in which `{}` stands for the name.
    """
    return {
        name_item(name, item): dataset.format(name)
        for name in names
        for item, dataset in items.items()
    }


def gather_experiments(arguments: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return {experiment: {item: value}} of all arguments that `name_item` named."""
    gathered: dict[str, dict[str, Any]] = {}
    for name, value in arguments.items():
        experiment, separator, item = name.rpartition(_SEPARATOR)
        if separator:
            gathered.setdefault(experiment, {})[item] = value
    return gathered


def _check_name(name: Any) -> None:
    if not isinstance(name, str) or not name.isidentifier():
        raise BadSettingError(
            f"experiment names may hold letters, digits and underscores; got {name!r}. "
            "The name becomes the pipeline train_<name> and a Kedro namespace.",
            f"experiments.{name}",
        )
    if name in TAKEN_NAMES:
        raise BadSettingError(
            f"experiment names must differ from {', '.join(sorted(TAKEN_NAMES))}, which the "
            f"project uses itself; rename {name!r}.",
            f"experiments.{name}",
        )


def _log_overridden(
    entries: Mapping[str, Any], overrides: Mapping[str, Any], own: Mapping[str, Any]
) -> None:
    """Say which entries have values of their own that the command line's shared ones replace."""
    replaced: dict[str, list[str]] = {}
    for path, value in _list_leaves(overrides):
        for name, entry in entries.items():
            before = _find(entry, path)
            if before is not None and before != value and _find(own.get(name), path) is None:
                replaced.setdefault(".".join(path), []).append(name)
    if replaced:
        parts = "; ".join(f"{path} of {', '.join(names)}" for path, names in replaced.items())
        logger.info("--params replaces what experiments set themselves: %s", parts)


def _list_leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, Mapping):
        for key, below in value.items():
            yield from _list_leaves(below, (*path, key))
    else:
        yield path, value


def _find(value: Any, path: tuple[str, ...]) -> Any:
    for part in path:
        if not isinstance(value, Mapping) or part not in value:
            return None
        value = value[part]
    return value
