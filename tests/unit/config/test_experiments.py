"""Experiments: what an entry inherits, and what of the command line wins over it."""

import logging
from typing import Any

import pytest

from busi_pipeline.config.experiments import (
    SHARED_GROUPS,
    TAKEN_NAMES,
    gather_experiments,
    load_experiments,
    name_item,
    resolve_experiment,
)
from busi_pipeline.config.schemas import merge_settings
from busi_pipeline.errors import BadInputError
from busi_pipeline.models.backbones import BACKBONES

RATE = {"fine_tuning": {"optimizer": {"learning_rate": 7e-6}}}


def load_with(parameters: dict[str, Any], command_line: dict[str, Any]) -> dict[str, Any]:
    """Load as Kedro does: what comes from the command line is merged into the parameters."""
    return load_experiments(merge_settings(parameters, command_line), command_line)


def list_shared(parameters: dict[str, Any]) -> dict[str, Any]:
    return {group: parameters[group] for group in SHARED_GROUPS}


def rate_of(experiment: Any) -> float:
    return experiment.training.fine_tuning.optimizer.learning_rate


def test_entry_holds_only_what_differs(parameters: dict[str, Any]) -> None:
    entry = {"backbone": "resnet50", "training": {"fine_tuning": {"optimizer": {"name": "sgd"}}}}
    settings = resolve_experiment(entry, list_shared(parameters))
    assert settings.training.fine_tuning.optimizer.name == "sgd"
    assert settings.training.head_phase.optimizer.name == "adamw"
    assert settings.title == "resnet50"
    assert settings.augmentation.rotation_degrees == 15


@pytest.mark.parametrize("name", sorted(BACKBONES))
def test_backbone_fills_in_its_own(parameters: dict[str, Any], name: str) -> None:
    settings = resolve_experiment({"backbone": name}, list_shared(parameters))
    assert settings.image_size == BACKBONES[name].image_size
    assert settings.freeze_until == BACKBONES[name].freeze_until
    assert settings.preset is BACKBONES[name]
    assert settings.fine_tunes


def test_merging_changes_no_layer() -> None:
    below, above = {"a": {"b": 1, "c": 2}}, {"a": {"c": 3}, "d": None}
    assert merge_settings(below, above) == {"a": {"b": 1, "c": 3}, "d": None}
    assert below == {"a": {"b": 1, "c": 2}}
    assert above == {"a": {"c": 3}, "d": None}


def test_command_line_wins_over_entries(
    parameters: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    before = load_experiments(parameters)
    assert rate_of(before["vgg16"]) != rate_of(before["resnet50"]), "vgg16 has one of its own"
    with caplog.at_level(logging.INFO, logger="busi_pipeline"):
        after = load_with(parameters, {"training": RATE, "augmentation": {"zoom": 0.3}})
    assert {rate_of(settings) for settings in after.values()} == {7e-6}
    assert {settings.augmentation.zoom for settings in after.values()} == {0.3}
    assert after["vgg16"].training.head.dropout == before["vgg16"].training.head.dropout
    (line,) = caplog.messages
    assert "training.fine_tuning.optimizer.learning_rate of vgg16, inceptionv3" in line
    assert "augmentation.zoom of replication_vgg16" in line
    assert " resnet50" not in line


def test_one_experiment_can_be_set_alone(
    parameters: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    own = {"experiments": {"vgg16": {"training": RATE}}}
    with caplog.at_level(logging.INFO, logger="busi_pipeline"):
        experiments = load_with(parameters, own)
    assert rate_of(experiments["vgg16"]) == 7e-6
    assert rate_of(experiments["resnet50"]) == 1e-4
    assert not caplog.messages


def test_own_command_line_value_wins_over_shared(parameters: dict[str, Any]) -> None:
    other = {"fine_tuning": {"optimizer": {"learning_rate": 3e-3}}}
    both = {"training": RATE, "experiments": {"vgg16": {"training": other}}}
    experiments = load_with(parameters, both)
    assert rate_of(experiments["vgg16"]) == 3e-3
    assert rate_of(experiments["resnet50"]) == 7e-6


def test_same_value_is_not_reported(
    parameters: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="busi_pipeline"):
        load_with(parameters, {"training": {"head": {"dropout": 0.1}}})
    assert "of replication_vgg16" in caplog.text
    assert " vgg16" not in caplog.text


def test_misspelt_experiment_names_the_nearest(parameters: dict[str, Any]) -> None:
    with pytest.raises(BadInputError, match=r"Did you mean experiments\.resnet50\?"):
        load_with(parameters, {"experiments": {"resnet5": {"title": "x"}}})


def test_entry_without_backbone_says_so(parameters: dict[str, Any]) -> None:
    parameters["experiments"]["mine"] = {"title": "Mine"}
    with pytest.raises(BadInputError, match=r"experiments\.mine names no backbone"):
        load_experiments(parameters)


@pytest.mark.parametrize("name", sorted(TAKEN_NAMES))
def test_names_of_the_project_are_refused(parameters: dict[str, Any], name: str) -> None:
    parameters["experiments"] = {name: {"backbone": "vgg16"}}
    with pytest.raises(BadInputError, match=f"must differ from .*; rename '{name}'"):
        load_experiments(parameters)


@pytest.mark.parametrize("name", ["resnet50.big", "res net", "50", ""])
def test_names_must_be_identifiers(parameters: dict[str, Any], name: str) -> None:
    parameters["experiments"] = {name: {"backbone": "vgg16"}}
    with pytest.raises(BadInputError, match="letters, digits and underscores"):
        load_experiments(parameters)


def test_members_are_joined_with_what_they_share(parameters: dict[str, Any]) -> None:
    both = load_with(parameters, {"experiments": {"both": {"members": ["vgg16", "resnet50"]}}})[
        "both"
    ]
    assert both.members == ("vgg16", "resnet50")
    assert both.title == "VGG16 and ResNet50"
    assert (both.image_size, both.in_default) == (224, False)
    assert both.input == load_with(parameters, {})["vgg16"].input
    assert both.of_folds is False


def test_folds_of_one_experiment_make_a_bag(parameters: dict[str, Any]) -> None:
    entry = {"members": ["vgg16"], "of_folds": True}
    bag = load_with(parameters, {"experiments": {"folds_of_vgg16": entry}})["folds_of_vgg16"]
    assert bag.of_folds
    assert bag.title == "VGG16, all folds"
    with pytest.raises(BadInputError, match="must be one or more different experiments; got none"):
        load_with(parameters, {"experiments": {"nothing": {"members": [], "of_folds": True}}})


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"members": ["vgg16"]}, r"both\.members must be two or more different.*got vgg16"),
        ({"members": []}, "got none"),
        ({"members": ["vgg16", "vgg16"]}, "two or more different experiments"),
        ({"members": ["vgg16", "vgg19"]}, r"of vgg16, resnet50, .*; got 'vgg19'"),
        ({"members": "vgg16"}, "two or more different"),
        ({"members": [{"vgg16": 1}, "resnet50"]}, "got {'vgg16': 1}"),
        ({"members": ["vgg16", "both"]}, "got 'both'"),
        ({"members": ["vgg16", "resnet50"], "input": {"grey": True}}, r"both\.input is no setting"),
    ],
)
def test_members_that_cannot_be_joined_are_named(
    parameters: dict[str, Any], entry: dict[str, Any], expected: str
) -> None:
    with pytest.raises(BadInputError, match=expected) as caught:
        load_with(parameters, {"experiments": {"both": entry}})
    assert "\n" not in str(caught.value)


def test_members_that_see_different_things_leave_their_sum_out(
    parameters: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever changes one of them may still run it, and the others."""
    entry = {"members": ["vgg16", "inceptionv3"]}
    experiments = load_with(parameters, {"experiments": {"both": entry}})
    assert set(experiments) == set(parameters["experiments"])
    assert "experiments.both is left out" in caplog.text
    assert "image_size of inceptionv3 differ from those of vgg16" in caplog.text


def test_arguments_are_gathered_by_experiment() -> None:
    arguments = {
        name_item("vgg16", "metrics"): 1,
        name_item("vgg16", "settings"): 2,
        name_item("my_own_", "metrics"): 3,
        "classes": 4,
    }
    assert gather_experiments(arguments) == {
        "vgg16": {"metrics": 1, "settings": 2},
        "my_own_": {"metrics": 3},
    }
