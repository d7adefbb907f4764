"""Rows of parameters: what they inherit, and how a wrong one is answered."""

from typing import Any

import pytest
import yaml

from busi_pipeline.models.backbones import BACKBONES
from busi_pipeline.errors import BadInputError
from busi_pipeline.config.experiments import load_experiments, merge_settings, resolve_experiment
from tests.conftest import PROJECT


@pytest.fixture
def shared() -> tuple[dict[str, Any], dict[str, Any]]:
    base = PROJECT / "conf/base"
    text = (base / "parameters_training.yml").read_text().replace("${weights_choice:}", "imagenet")
    augmentation = yaml.safe_load((base / "parameters_augmentation.yml").read_text())
    return augmentation["augmentation"], yaml.safe_load(text)["training"]


def test_row_holds_only_what_differs(shared: tuple[dict[str, Any], dict[str, Any]]) -> None:
    row = {"backbone": "resnet50", "training": {"fine_tuning": {"optimizer": {"name": "sgd"}}}}
    settings = resolve_experiment(row, *shared)
    assert settings.training.fine_tuning.optimizer.name == "sgd"
    assert settings.training.head_phase.optimizer.name == "adamw"
    assert settings.image_size == 224
    assert settings.freeze_until == BACKBONES["resnet50"].freeze_until
    assert settings.augmentation.rotation_degrees == shared[0]["rotation_degrees"]


def test_merging_changes_neither_side() -> None:
    below, above = {"a": {"b": 1, "c": 2}}, {"a": {"c": 3}}
    assert merge_settings(below, above) == {"a": {"b": 1, "c": 3}}
    assert below == {"a": {"b": 1, "c": 2}}
    assert above == {"a": {"c": 3}}


@pytest.mark.parametrize(
    ("row", "parts"),
    [
        ({"backbone": "resnet5"}, ["backbone must be one of", "'resnet5'", "backbones.py"]),
        ({}, ["names no backbone"]),
        (
            {"backbone": "vgg16", "augmentation": {"rotation": 3}},
            ["augmentation.rotation", "Allowed:", "rotation_degrees"],
        ),
        (
            {"backbone": "vgg16", "training": {"head_phase": {"optimizer": {"name": "adamm"}}}},
            ["training.head_phase.optimizer.name", "'adamw'", "'adamm'"],
        ),
        ({"backbone": "vgg16", "training": {"weights": "random"}}, ["'imagenet'", "'random'"]),
        ({"backbone": "inception_v3", "image_size": 64}, ["at least 75", "got 64"]),
        (
            {
                "backbone": "vgg16",
                "training": {
                    "head_solver": "gradient",
                    "head_phase": {"epochs": 0},
                    "fine_tuning": {"epochs": 0},
                },
            },
            ["nothing to do"],
        ),
        (
            {
                "backbone": "vgg16",
                "training": {"head_solver": "gradient", "head_phase": {"epochs": 0}},
            },
            ["average_with_pretuned", "head_phase.epochs is 0"],
        ),
        (
            {"backbone": "vgg16", "training": {"head": {"dense_units": 8}}},
            ["without dense_units", "head_solver gradient"],
        ),
    ],
)
def test_wrong_rows_get_one_clear_line(
    shared: tuple[dict[str, Any], dict[str, Any]], row: dict[str, Any], parts: list[str]
) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the parts below are the match
        resolve_experiment(row, *shared)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet50.big", "letters, digits and underscores"),
        ("ensemble", "must differ from .*; rename 'ensemble'"),
        ("evaluation", "must differ from .*; rename 'evaluation'"),
    ],
)
def test_names_become_namespaces(
    shared: tuple[dict[str, Any], dict[str, Any]], name: str, message: str
) -> None:
    augmentation, training = shared
    with pytest.raises(BadInputError, match=message):
        load_experiments(
            {
                "augmentation": augmentation,
                "training": training,
                "experiments": {name: {"backbone": "resnet50"}},
            }
        )
