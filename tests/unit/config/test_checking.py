"""Parameters: what is refused, in which words, and what becomes of the right ones."""

import copy
import pickle
from typing import Any

import pytest
from pydantic import ValidationError

from busi_pipeline.config.checking import ALL_GROUPS, check_parameters
from busi_pipeline.config.loader import LOADER_ARGUMENTS, ProjectConfigLoader
from busi_pipeline.config.messages import describe_allowed
from busi_pipeline.config.schemas import EvaluationSettings, TrainingSettings
from busi_pipeline.errors import BadInputError
from busi_pipeline.stats.classes import Classes
from tests.factories import PROJECT


def refuse(parameters: dict[str, Any], path: str, value: Any) -> str:
    """Set one parameter, and return the one line by which it is refused."""
    *above, last = path.split(".")
    group = parameters
    for part in above:
        group = group.setdefault(part, {})
    group[last] = value
    with pytest.raises(BadInputError) as caught:
        check_parameters(parameters)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_parameters_become_frozen_objects(parameters: dict[str, Any]) -> None:
    checked = check_parameters(parameters)
    assert set(checked) == set(ALL_GROUPS) - {"positive_classes", "lesion_free_classes"}
    names = ("benign", "malignant", "normal")
    assert checked["classes"] == Classes(names, ("malignant",), ("normal",))
    assert checked["split"].method == "grouped"
    with pytest.raises(ValidationError, match="frozen"):
        checked["split"].seed = 1  # type: ignore[misc]
    vgg16 = checked["experiments"]["vgg16"]
    assert hash(vgg16) == hash(copy.deepcopy(vgg16))


def test_objects_survive_copies_and_pickles(parameters: dict[str, Any]) -> None:
    checked = check_parameters(parameters)
    assert copy.deepcopy(checked) == checked
    assert pickle.loads(pickle.dumps(checked)) == checked


@pytest.mark.parametrize(
    ("path", "nearest"),
    [
        ("trainng.weights", "training"),
        ("clases", "classes"),
        ("split.metod", "split.method"),
        ("evaluation.resamples", "evaluation.n_resamples"),
        (
            "training.fine_tuning.optimizer.learningrate",
            "training.fine_tuning.optimizer.learning_rate",
        ),
        ("experiments.vgg16.training.head.drop_out", "experiments.vgg16.training.head.dropout"),
        ("experiments.vgg16.published.acuracy", "experiments.vgg16.published.accuracy"),
    ],
)
def test_unknown_key_names_the_nearest(parameters: dict[str, Any], path: str, nearest: str) -> None:
    message = refuse(parameters, path, 1)
    unknown = path.split(".", maxsplit=1)[0] if nearest in ALL_GROUPS else path
    assert message.startswith(f"{unknown} is no setting.")
    assert f"Did you mean {nearest}?" in message
    assert "Allowed here: " in message


def test_key_like_no_other_lists_the_allowed(parameters: dict[str, Any]) -> None:
    message = refuse(parameters, "split.zzz", 1)
    assert "Did you mean" not in message
    assert message.endswith("Allowed here: method, mixed_labels, seed, test, validation.")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("judging", "evaluation"),
        ("judging.draws", "evaluation.n_resamples"),
        ("judging.seed", "evaluation.seed"),
        ("evaluation.draws", "evaluation.n_resamples"),
        ("copies.keypoints", "deduplication.keypoints"),
        ("copies.own_groups", "deduplication.patient_groups"),
        ("copies.mirrored_candidates", "deduplication.flipped_candidates"),
        ("deduplication.own_groups", "deduplication.patient_groups"),
        ("augmentation.views", "augmentation.per_image"),
        ("training.average_mirror", "training.tta_horizontal_flip"),
        ("training.average_start", "training.average_with_pretuned"),
        ("training.move_views_on", "training.augment_on"),
        ("training.head.pool_cut", "training.head.pool_intermediate"),
        ("training.head_phase.views_per_epoch", "training.head_phase.augmented_per_epoch"),
        ("training.fine_tuning.views_per_epoch", "training.fine_tuning.augmented_per_epoch"),
        ("experiments.vgg16.tail_after", "experiments.vgg16.freeze_until"),
        ("experiments.vgg16.base_end", "experiments.vgg16.truncate_at"),
        ("experiments.vgg16.augmentation.views", "experiments.vgg16.augmentation.per_image"),
        (
            "experiments.vgg16.training.head.pool_cut",
            "experiments.vgg16.training.head.pool_intermediate",
        ),
    ],
)
def test_old_name_is_answered_with_the_new(parameters: dict[str, Any], old: str, new: str) -> None:
    assert f"{old} is now {new}" in refuse(parameters, old, 1)


@pytest.mark.parametrize(
    ("path", "value", "allowed"),
    [
        ("split.seed", "abc", "a whole number, at least 0"),
        ("split.seed", -1, "at least 0"),
        ("split.seed", 1.5, "a whole number"),
        ("split.seed", True, "a whole number"),
        ("split.method", "blind", "grouped or random"),
        ("split.test", 0, "a number, above 0 and below 1"),
        ("cross_validation.folds", 1, "at least 2"),
        ("cross_validation.repeats", 0, "at least 1"),
        ("evaluation.n_resamples", 0, "at least 10"),
        ("evaluation.target_sensitivity", 1.5, "above 0 and at most 1"),
        ("evaluation.target_sensitivity", 0.0, "above 0 and at most 1"),
        ("evaluation.prevalence", 5, "above 0 and below 1"),
        ("evaluation.prevalence", float("nan"), "a number"),
        ("evaluation.threshold_rule", None, "conformal or empirical"),
        ("deduplication.same_frame", 1.2, "at most 1"),
        ("deduplication.min_inliers", 2, "at least 3"),
        ("deduplication.min_shared", 1.5, "at most 1"),
        ("ingestion.min_side", 0, "at least 1"),
        ("augmentation.zoom", 1.0, "below 1"),
        ("augmentation.horizontal_flip", "yes", "true or false"),
        ("augmentation.horizontal_flip", 1, "true or false"),
        ("training.extraction_batch_size", 0, "a whole number, at least 1 or auto"),
        ("training.fine_tuning.optimizer.learning_rate", 0, "above 0"),
        ("training.fine_tuning.optimizer.learning_rate", float("inf"), "above 0"),
        ("training.fine_tuning.optimizer.name", "adamm", "adamw or adam or rmsprop or sgd"),
        ("dataset.facts", "one sentence", "a list of texts"),
        ("input.margin", [0.2, -1.0], "a number, at least 0 or a list of numbers"),
        ("input.margin", [], "a number, at least 0 or a list of numbers"),
        ("training.head_learns_from", "augmented", "originals or all"),
        ("dataset.images", {"benign": -1}, "a mapping from class to a whole number or null"),
        ("dataset.synthetic", "no", "true or false"),
        ("split", 5, "a mapping of settings"),
        ("experiments.vgg16.training", None, "a mapping of settings"),
        ("experiments.vgg16.image_size", "big", "a whole number, at least 1"),
    ],
)
def test_impossible_value_is_refused(
    parameters: dict[str, Any], path: str, value: Any, allowed: str
) -> None:
    message = refuse(parameters, path, value)
    assert message.startswith(f"{path} must be ")
    assert allowed in message
    assert "; got " in message


@pytest.mark.parametrize(
    ("path", "value", "part"),
    [
        ("split.validation", 0.85, "validation and test must leave images for training"),
        ("cross_validation.validation", 0.8, "be below 0.80 with 5 folds"),
        ("deduplication.neighbouring_frame", 0.95, "must not be above same_frame"),
        ("deduplication.min_inliers", 301, "must not be above keypoints"),
        ("training.head.dense_units", 8, "take head_solver gradient"),
        ("augmentation.scanner_variation", True, "set input.grey to true"),
        ("experiments.inceptionv3.image_size", 64, "image_size must be at least 75"),
        ("experiments.vgg16.backbone", "resnet5", "'resnet5'"),
        ("experiments.vgg16.backbone", ["vgg16"], "backbone"),
        ("experiments.vgg16.baseline_of", "vgg61", "must be an experiment, one of vgg16"),
        ("experiments.vgg16", None, "must be a mapping of settings"),
        ("experiments", None, "one or more entries"),
        ("positive_classes", ["cancer"], "positive_classes"),
        ("positive_classes", [], "positive_classes"),
        ("lesion_free_classes", ["malignant"], "is one of positive_classes, too"),
        ("lesion_free_classes", "normal", "lesion_free_classes must be a list"),
        ("classes", ["benign"], "two or more"),
        ("classes", "benign", "list"),
    ],
)
def test_values_that_do_not_fit_are_refused(
    parameters: dict[str, Any], path: str, value: Any, part: str
) -> None:
    assert part in refuse(parameters, path, value)


def test_nothing_to_train_is_refused(parameters: dict[str, Any]) -> None:
    parameters["training"] |= {"head_solver": "gradient", "average_with_pretuned": False}
    parameters["training"]["head_phase"]["epochs"] = 0
    assert "nothing to do" in refuse(parameters, "training.fine_tuning.epochs", 0)


def test_average_needs_a_model_before_fine_tuning(parameters: dict[str, Any]) -> None:
    parameters["training"]["head_solver"] = "gradient"
    message = refuse(parameters, "training.head_phase.epochs", 0)
    assert "set average_with_pretuned to false" in message


@pytest.mark.parametrize("group", ALL_GROUPS)
def test_missing_group_is_named(parameters: dict[str, Any], group: str) -> None:
    del parameters[group]
    with pytest.raises(BadInputError, match=f"lack the group {group}:"):
        check_parameters(parameters)


def test_missing_setting_says_what_it_may_be(parameters: dict[str, Any]) -> None:
    del parameters["split"]["method"]
    with pytest.raises(BadInputError, match=r"^split.method is missing; it must be grouped or ran"):
        check_parameters(parameters)


def test_other_classes_are_a_matter_of_parameters(parameters: dict[str, Any]) -> None:
    parameters |= {"classes": ["b", "m", "s", "n"], "positive_classes": ["s", "m"]}
    assert check_parameters(parameters)["classes"].positive == ("s", "m")


def test_whole_numbers_do_for_shares(parameters: dict[str, Any]) -> None:
    parameters["evaluation"]["target_sensitivity"] = 1
    target = check_parameters(parameters)["evaluation"].target_sensitivity
    assert target == 1.0
    assert isinstance(target, float)


def test_changed_copy_is_checked(parameters: dict[str, Any]) -> None:
    training = check_parameters(parameters)["training"]
    changed = training.updated({"fine_tuning": {"epochs": 2}})
    assert (changed.fine_tuning.epochs, training.fine_tuning.epochs) == (2, 10)
    assert changed.fine_tuning.optimizer == training.fine_tuning.optimizer
    with pytest.raises(ValidationError):
        training.updated({"fine_tuning": {"epochs": -1}})


def test_schemas_describe_their_settings() -> None:
    assert "bootstrap" in (EvaluationSettings.model_fields["n_resamples"].description or "").lower()
    batch = TrainingSettings.model_fields["extraction_batch_size"]
    assert describe_allowed(batch) == "a whole number, at least 1 or auto"


@pytest.mark.parametrize("env", ["base", "demo"])
def test_every_experiment_of_the_project_is_whole(env: str) -> None:
    loader = ProjectConfigLoader(PROJECT / "conf", env=env, **LOADER_ARGUMENTS)
    experiments = loader["parameters"]["experiments"]
    for experiment in experiments.values():
        assert experiment.title
        for one in getattr(experiment, "members", None) or [experiment]:
            preset = experiments.get(one, one).preset
            assert experiment.image_size >= preset.minimum_size


def test_demo_poses_as_nothing_but_synthetic() -> None:
    conf = PROJECT / "conf"
    checked = ProjectConfigLoader(conf, env="demo", **LOADER_ARGUMENTS)["parameters"]
    assert checked["dataset"].synthetic
    assert not checked["dataset"].facts
    assert not checked["dataset"].limitations
    assert checked["dataset"].images is None
    assert not any(e.published for e in checked["experiments"].values())


def test_experiment_tags_suit_an_mlflow_server() -> None:
    """TRAP: a comma in a flow mapping makes a second tag without a value, which is refused."""
    config = ProjectConfigLoader(
        PROJECT / "conf", env="demo", config_patterns={"mlflow": ["mlflow*"]}, **LOADER_ARGUMENTS
    )["mlflow"]
    tags = config["tracking"]["experiment"]["create_experiment_kwargs"]["tags"]
    assert set(tags) == {"purpose"}
    assert "," not in tags["purpose"]
