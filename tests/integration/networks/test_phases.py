"""The phases of a training: what each is given, and which weights stay.

Nothing is trained here: what stands for a phase changes the weights by hand.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from busi_pipeline.caching.arrays import StoredArray
from busi_pipeline.learning import device, fitting, training
from busi_pipeline.learning.device import Device
from busi_pipeline.learning.features import build_for_training
from busi_pipeline.learning.fitting import PhaseResult
from busi_pipeline.learning.folds import Fold
from busi_pipeline.learning.training import (
    FittedNetwork,
    assemble_model,
    fit_network,
    fit_probe,
    predict_split,
    predict_with_linear_probe,
    read_rows,
    report_training,
    train_network,
)
from busi_pipeline.learning.training_data import (
    TrainingData,
    find_evaluation_rows,
    is_not_augmented,
    prepare_training_data,
)
from busi_pipeline.models.network import Network
from busi_pipeline.pipelines.preprocessing.nodes import plan_all_images
from busi_pipeline.pipelines.training import nodes
from busi_pipeline.stats.scoring import probability_columns
from tests.factories import CLASSES
from tests.learning_factories import Study

CURVES = {"loss": [1.0, 0.5, 0.25], "val_cross_entropy": [0.9, 0.8, 0.7]}
NO_WEIGHTS = ("tiny", "none")


class Phases:
    """Stands for `fit_phase`; `lean_to` is the class that fine-tuning pulls the answers to."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.lean_to: Callable[[], int | None] = lambda: None

    def fit(
        self,
        name: str,
        model: Any,
        values: Any,
        training_data: TrainingData,
        phase: Any,
        seed: int,
        roll_back: bool = False,
    ) -> PhaseResult:
        self.calls.append(
            {
                "name": name,
                "model": model.name,
                "values": values,
                "training_data": training_data,
                "phase": phase,
                "seed": seed,
                "roll_back": roll_back,
            }
        )
        if name == "fine-tuning" and self.lean_to() is not None:
            *_, bias = model.trainable_variables
            bias.assign(10 * np.eye(bias.shape[0])[self.lean_to()])
        return PhaseResult(CURVES, 2, 1.5)


@pytest.fixture
def study(study_with_features: Study) -> Study:
    return study_with_features


@pytest.fixture
def phases(monkeypatch: pytest.MonkeyPatch) -> Phases:
    phases = Phases()
    monkeypatch.setattr(fitting, "fit_phase", phases.fit)
    return phases


def prepare(study: Study) -> tuple[Network, StoredArray, StoredArray, TrainingData]:
    features = study.extract()
    network = build_for_training(
        study.settings, study.source.choose(*NO_WEIGHTS), 3, Device("cpu", "float32", False)
    )
    data = prepare_training_data(features, study.split, study.settings, CLASSES)
    return network, features, study.pool(features), data


def test_each_phase_is_given_its_part(study: Study, phases: Phases) -> None:
    settings = study.change(
        training={"head_solver": "gradient", "head_phase": {"epochs": 7}, "seed": 5}
    )
    network, features, pooled, data = prepare(study)
    data = data._replace(class_weights=np.array([0.5, 1.0, 4.0]))
    found, pretuned = fit_network(network, features, pooled, data, settings)
    head, tuning = phases.calls
    assert (head["name"], head["model"], head["roll_back"]) == ("head", "head", False)
    assert (tuning["name"], tuning["model"]) == ("fine-tuning", "trainable")
    assert tuning["roll_back"], "the head is worth going back to"
    assert head["values"] is pooled.values
    assert tuning["values"] is features.values
    assert head["phase"] is settings.training.head_phase
    assert tuning["phase"] is settings.training.fine_tuning
    for call in phases.calls:
        assert call["training_data"] is data, "with its class weights"
        assert call["seed"] == 5
    assert list(found) == ["head", "fine_tuning"]
    assert pretuned is None


@pytest.mark.parametrize(
    ("changes", "names", "roll_back"),
    [
        ({"head_solver": "gradient", "head_phase": {"epochs": 0}}, ["fine_tuning"], False),
        ({"average_with_pretuned": True}, ["head", "fine_tuning"], False),
        ({}, ["head", "fine_tuning"], True),
        ({"fine_tuning": {"epochs": 0}, "average_with_pretuned": True}, ["head"], None),
    ],
)
def test_tuning_goes_back_only_to_a_fitted_head(
    study: Study, phases: Phases, changes: Any, names: list[str], roll_back: bool | None
) -> None:
    settings = study.change(training=changes)
    network, features, pooled, data = prepare(study)
    found, _ = fit_network(network, features, pooled, data, settings)
    assert list(found) == names
    assert [call["roll_back"] for call in phases.calls] == [roll_back] * (roll_back is not None)


@pytest.mark.parametrize("helps", [True, False])
def test_the_average_with_the_pretuned_must_help(
    study: Study, phases: Phases, helps: bool, caplog: pytest.LogCaptureFixture
) -> None:
    settings = study.change(training={"average_with_pretuned": True})
    # All validation images are of the last class, so it helps to lean to it.
    validation = study.split["split"] == "validation"
    study.split.loc[validation, "label"] = "normal"
    phases.lean_to = lambda: 2 if helps else 0
    network, features, pooled, data = prepare(study)
    before: list[np.ndarray] = []

    def note(*given: Any) -> PhaseResult:
        result = solve(*given)
        before.extend(network.trainable.get_weights())
        return result

    with pytest.MonkeyPatch.context() as patched:
        solve = training._solve_head
        patched.setattr(training, "_solve_head", note)
        found, pretuned = fit_network(network, features, pooled, data, settings)
    now = network.trainable.get_weights()
    assert ("rolled back" in caplog.text) != helps
    own = [record for record in caplog.records if record.name.startswith("busi_pipeline")]
    assert any(record.levelname == "WARNING" for record in own) != helps
    assert found["fine_tuning"].best_epoch == (2 if helps else 0)
    assert found["fine_tuning"].history == CURVES
    if helps:
        assert pretuned is not None
        for kept, was in zip(pretuned, before, strict=True):
            np.testing.assert_array_equal(kept, was)
        assert now[-1].tolist() == [0, 0, 10]
    else:
        assert pretuned is None
        for kept, was in zip(now, before, strict=True):
            np.testing.assert_array_equal(kept, was)


def test_an_average_that_is_no_better_is_rolled_back(study: Study, phases: Phases) -> None:
    settings = study.change(training={"average_with_pretuned": True})
    network, features, pooled, data = prepare(study)
    found, pretuned = fit_network(network, features, pooled, data, settings)
    assert pretuned is None, "the weights are the same before and after"
    assert found["fine_tuning"].best_epoch == 0


def test_the_solved_head_counts_as_one_epoch(study: Study, phases: Phases) -> None:
    settings = study.change(training={"fine_tuning": {"epochs": 0}})
    network, features, pooled, data = prepare(study)
    found, _ = fit_network(network, features, pooled, data, settings)
    head = found["head"]
    assert head.best_epoch == 1
    assert head.seconds > 0
    assert {name: len(curve) for name, curve in head.history.items()} == dict.fromkeys(
        ("loss", "cross_entropy", "accuracy", "val_loss", "val_cross_entropy", "val_accuracy"), 1
    )
    kernel, bias = network.head.get_layer("probabilities").get_weights()
    probe = training.fit_probe(pooled, data, study.settings)
    np.testing.assert_allclose(kernel, probe.kernel)
    np.testing.assert_allclose(bias, probe.bias)


def test_a_report_is_of_the_phases(study: Study) -> None:
    network, _, _, data = prepare(study)
    data = data._replace(class_weights=np.array([0.5, 1.0, 4.0]))
    fitted = FittedNetwork(network, {"head": PhaseResult(CURVES, 2, 1.5)}, None, 2.5)
    report = report_training(fitted, data, CLASSES)
    tuned = sum(int(np.prod(w.shape)) for w in network.trainable.trainable_weights)
    assert report == {
        "seconds": {"fitting": 2.5, "head": 1.5},
        "epochs": {"head": 3},
        "best_epoch": {"head": 2},
        "class_weight": {"benign": 0.5, "malignant": 1.0, "normal": 4.0},
        "fine_tuned_parameters": tuned,
    }


@pytest.mark.parametrize("with_pretuned", [False, True])
def test_the_model_is_assembled_in_single_precision(study: Study, with_pretuned: bool) -> None:
    settings = study.change(
        training={"precision": "mixed_bfloat16", "average_with_pretuned": with_pretuned}
    )
    weights = study.source.choose(*NO_WEIGHTS)
    network = build_for_training(settings, weights, 3, Device("cpu", "mixed_bfloat16", False))
    pretuned = network.trainable.get_weights()
    pretuned[-1] = np.array([0.0, 3.0, 0.0], dtype=np.float32)
    fitted = FittedNetwork(network, {}, pretuned if with_pretuned else None, 1.0)
    model = assemble_model(fitted, settings, weights, 3)
    assert {layer.compute_dtype for layer in model.layers[1:]} == {"float32"}
    images = study.images.values[:4]
    alone = np.asarray(network.full(images))
    whole = np.asarray(model(images))
    if with_pretuned:
        bias = network.trainable.trainable_variables[-1]
        bias.assign(pretuned[-1])
        other = np.asarray(network.full(images))
        np.testing.assert_allclose(whole, (alone + other) / 2, atol=0.02)
        assert np.abs(alone - other).max() > 0.1
    else:
        np.testing.assert_allclose(whole, alone, atol=0.02)
    assert model.output_shape == (None, 3)


def test_a_split_is_predicted_by_the_part_that_was_trained(study: Study) -> None:
    network, features, pooled, _ = prepare(study)
    fitted = FittedNetwork(network, {}, None, 1.0)
    validation = study.split[study.split["split"] == "validation"]
    images = study.images.values[study.images.find_rows(validation["image_id"])]
    expected = np.asarray(network.full(images))
    by_tail = predict_split(fitted, features, validation, study.settings)
    np.testing.assert_allclose(by_tail, expected, atol=2e-3)
    settings = study.change(training={"fine_tuning": {"epochs": 0}})
    by_head = predict_split(fitted, pooled, validation, settings)
    np.testing.assert_allclose(by_head, expected, atol=2e-3)


@pytest.mark.parametrize(
    ("devices", "expected"), [("all", ["GPU:0", "GPU:1"]), ("one", [])], ids=["all", "one"]
)
def test_the_fitting_is_spread_over_the_gpus_asked_for(
    study: Study,
    phases: Phases,
    monkeypatch: pytest.MonkeyPatch,
    devices: str,
    expected: list[str],
) -> None:
    asked: list[list[str]] = []

    @contextmanager
    def note(names: list[str]) -> Iterator[None]:
        asked.append(names)
        yield

    monkeypatch.setattr(device, "list_gpus", lambda: ["GPU:0", "GPU:1"])
    monkeypatch.setattr(device, "spread_over", note)
    study.change(training={"devices": devices, "extraction_batch_size": 32})
    features = study.extract()
    fitted = train_network(
        features,
        study.pool(features),
        study.split,
        study.settings,
        study.source.choose(*NO_WEIGHTS),
        CLASSES,
        Device("cpu", "float32", False),
    )
    assert asked == [expected]
    assert list(fitted.phases) == ["head", "fine_tuning"]
    assert fitted.pretuned is None
    assert fitted.seconds > fitted.phases["head"].seconds


@pytest.mark.parametrize("tta_horizontal_flip", [False, True])
def test_the_probe_of_a_fold_predicts_its_other_images(
    study: Study, tta_horizontal_flip: bool
) -> None:
    study.change(training={"tta_horizontal_flip": tta_horizontal_flip})
    study.plan = plan_all_images(study.split, study.settings)
    pooled = study.pool(study.extract())
    found = predict_with_linear_probe(pooled, study.split, study.settings, CLASSES)
    data = prepare_training_data(pooled, study.split, study.settings, CLASSES)
    probe = fit_probe(pooled, data, study.settings)
    assert is_not_augmented(pooled, data.training.rows[0]).sum() == 1 + tta_horizontal_flip
    evaluated = study.split[study.split["split"] != "train"]
    rows = find_evaluation_rows(pooled, evaluated["image_id"], tta_horizontal_flip)
    np.testing.assert_allclose(found, probe.predict(read_rows(pooled, rows)))
    accuracy = (found.argmax(axis=1) == CLASSES.positions(evaluated["label"])).mean()
    assert accuracy > 0.8
    table = nodes.predict_with_linear_probe(
        pooled,
        study.settings,
        CLASSES,
        [Fold(1, 1), Fold(2, 1)],
        repeat_1_fold_1=study.split,
        repeat_2_fold_1=study.split,
    )
    assert table["repeat"].tolist() == [1] * len(evaluated) + [2] * len(evaluated)
    assert set(table["fold"]) == {1}
    columns = probability_columns(CLASSES, uncalibrated=True)
    np.testing.assert_allclose(table[columns], np.concatenate([found, found]))
    assert table["split"].tolist() == evaluated["split"].tolist() * 2
