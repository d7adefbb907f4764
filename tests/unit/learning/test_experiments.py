"""The contract of an experiment: whatever stands in conf/base can be built, registered, cached."""

from functools import cache
from itertools import combinations
from typing import Any

import pytest
from kedro.pipeline import Pipeline

from busi_pipeline.config.schemas import ExperimentSettings, JoinedSettings
from busi_pipeline.learning.features import describe_settings, identify_backbone
from busi_pipeline.learning.folds import list_folds
from busi_pipeline.models.backbones import BACKBONES
from busi_pipeline.pipeline_registry import create_pipelines
from tests.factories import load_parameters

PARAMETERS = load_parameters({"cross_validation": {"folds": 3, "repeats": 2}})
ALL = PARAMETERS["experiments"]
EXPERIMENTS = {name: own for name, own in ALL.items() if isinstance(own, ExperimentSettings)}
JOINED = {name: own for name, own in ALL.items() if isinstance(own, JoinedSettings)}
FOLDS = list(list_folds(PARAMETERS["cross_validation"]))
# What a training is not named by: descriptions, and the input, which names its images.
DESCRIPTION = {"title", "in_default", "baseline_of", "published", "input"}  # decides nothing

every_experiment = pytest.mark.parametrize("name", EXPERIMENTS)


@cache
def get_pipelines() -> dict[str, Pipeline]:
    return create_pipelines(PARAMETERS)


@every_experiment
def test_settings_are_complete(name: str) -> None:
    settings = EXPERIMENTS[name]
    assert ExperimentSettings.model_validate(settings.model_dump()) == settings
    assert settings.title
    assert settings.backbone in BACKBONES
    assert settings.preset is BACKBONES[settings.backbone]
    assert settings.image_size >= settings.preset.minimum_size
    if settings.baseline_of is not None:
        assert EXPERIMENTS[settings.baseline_of].backbone == settings.backbone
        assert not settings.in_default, "a replication is no model of its own"


@every_experiment
def test_it_is_trained_by_a_pipeline_of_its_name(name: str) -> None:
    pipeline = get_pipelines()[f"train_{name}"]
    (node,) = (n for n in pipeline.nodes if n.short_name == "train_model")
    assert node.namespace == name
    assert f"params:experiments.{name}" in node.inputs
    for dataset in ("trained_model", "history", "training_report", "training_tags", "trained_with"):
        assert f"{name}.{dataset}" in node.outputs
    assert {f"{name}.model", f"{name}.metrics", f"{name}.gradcam"} <= pipeline.all_outputs()


@every_experiment
def test_every_fold_is_a_node_of_its_namespace(name: str) -> None:
    pipeline = get_pipelines()[f"cross_validate_{name}"]
    trained = {node.namespace: node for node in pipeline.nodes if node.short_name == "train_fold"}
    assert sorted(trained) == sorted(f"{name}.cross_validation.{f.name}" for f in FOLDS)
    assert len(trained) == 3 * 2
    for namespace, node in trained.items():
        assert f"{namespace}.uncalibrated_predictions" in node.outputs
        assert f"{name}.cross_validation.features" in node.inputs, "computed once for all folds"
        assert f"{namespace.removeprefix(f'{name}.')}.split_manifest" in node.inputs
    assert f"{name}.cross_validation.metrics" in pipeline.all_outputs()
    assert f"{name}.cross_validation.linear_probe_metrics" in pipeline.all_outputs()


@every_experiment
def test_nodes_are_named_once_and_namespaced(name: str) -> None:
    for kind in ("train", "cross_validate"):
        nodes = get_pipelines()[f"{kind}_{name}"].nodes
        names = [node.name for node in nodes]
        assert len(names) == len(set(names))
        others = [other for other in EXPERIMENTS if other != name]
        assert not [n for n in nodes if (n.namespace or "").split(".")[0] in others]


@every_experiment
def test_its_identity_is_of_what_decides_it(name: str) -> None:
    described = describe_settings(EXPERIMENTS[name])
    assert described.keys() == ExperimentSettings.model_fields.keys() - DESCRIPTION
    renamed = EXPERIMENTS[name].updated({"title": "another", "in_default": False})
    assert describe_settings(renamed) == described


@pytest.mark.parametrize("name", JOINED)
def test_what_joins_others_is_made_of_theirs(name: str) -> None:
    pipeline = get_pipelines()[f"train_{name}"]
    (node,) = (n for n in pipeline.nodes if n.short_name == "join_members")
    of_folds = JOINED[name].of_folds
    part = ".bag" if of_folds else ""
    assert {f"{member}{part}.trained_model" for member in JOINED[name].members} <= set(node.inputs)
    assert {f"{name}.model", f"{name}.metrics", f"{name}.model_card"} <= pipeline.all_outputs()
    assert f"{name}.trained_with" in node.outputs
    trained = [n for n in pipeline.nodes if n.short_name in ("train_model", "train_bag")]
    assert len(trained) == len(JOINED[name].members)
    validated = get_pipelines()[f"cross_validate_{name}"]
    assert f"{name}.cross_validation.metrics" in validated.all_outputs()


def test_members_of_the_hold_out_split_are_joined_as_well() -> None:
    members = ["vgg16", "resnet50"]
    two = load_parameters({"experiments": {"two": {"members": members}}})
    pipeline = create_pipelines(two)["train_two"]
    (node,) = (n for n in pipeline.nodes if n.short_name == "join_members")
    assert {f"{member}.trained_model" for member in members} <= set(node.inputs)
    assert "two.model" in pipeline.all_outputs()


def test_a_setting_that_came_later_leaves_the_names_of_trainings() -> None:
    described = describe_settings(EXPERIMENTS["resnet50"])
    assert "scanner_variation" not in described["augmentation"]
    assert "head_learns_from" not in described["training"]
    lesion = describe_settings(EXPERIMENTS["resnet50_lesion"])
    assert lesion["augmentation"]["scanner_variation"] is True
    assert lesion["training"]["head_learns_from"] == "all"


def test_experiments_that_differ_are_trained_apart() -> None:
    for one, other in combinations(EXPERIMENTS.values(), 2):
        settings_differ = [
            getattr(one, key) != getattr(other, key)
            for key in ExperimentSettings.model_fields.keys() - DESCRIPTION
        ]
        assert any(settings_differ) == (describe_settings(one) != describe_settings(other))


def test_the_published_work_is_set_against_models_in_use() -> None:
    replicated = {s.baseline_of for s in EXPERIMENTS.values() if s.baseline_of}
    assert replicated <= {name for name, s in EXPERIMENTS.items() if s.in_default}


def test_an_experiment_more_leaves_the_others_as_they_are() -> None:
    more: Any = {"experiments": {"another": {"backbone": "densenet121"}}}
    extended = load_parameters({"cross_validation": {"folds": 3, "repeats": 2}}, more)
    assert set(extended["experiments"]) == {*ALL, "another"}
    for name, settings in EXPERIMENTS.items():
        assert describe_settings(extended["experiments"][name]) == describe_settings(settings)
        assert identify_backbone(extended["experiments"][name]) == identify_backbone(settings)
    pipelines = create_pipelines(extended)
    for name, pipeline in get_pipelines().items():
        if name.startswith(("train_", "cross_validate_")):
            assert {n.name for n in pipelines[name].nodes} == {n.name for n in pipeline.nodes}
    assert {"train_another", "cross_validate_another"} <= pipelines.keys()
