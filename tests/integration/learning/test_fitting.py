"""One phase of training: the loss it minimises, the epoch it keeps, the rate it learns at.

A network of one layer, so that NumPy can say what has to come out.
"""

import logging
from typing import Any

import keras
import numpy as np
import pytest

from busi_pipeline.learning.batches import FeatureBatches, as_keras_input
from busi_pipeline.learning.fitting import (
    NotFiniteError,
    PhaseResult,
    evaluate_phase,
    fit_phase,
)
from busi_pipeline.learning.training_data import (
    LabelledRows,
    TrainingData,
    measure_cross_entropy,
)
from tests.learning_factories import make_phase, make_training_data

WEIGHTS = [0.5, 3.0, 1.0, 2.0]
every_number_of_classes = pytest.mark.parametrize("classes", [2, 3, 4])


def make_model(classes: int = 3) -> keras.Model:
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(classes, activation="softmax")], name="one_layer"
    )


def answer(weights: list[np.ndarray], values: np.ndarray) -> np.ndarray:
    """Return float64 (n, classes): what `make_model` answers with these weights."""
    kernel, bias = (w.astype(np.float64) for w in weights)
    scores = np.exp(values.astype(np.float64) @ kernel + bias)
    return scores / scores.sum(axis=1, keepdims=True)


def measure(
    weights: list[np.ndarray], values: np.ndarray, part: LabelledRows, data: TrainingData, of: str
) -> dict[str, float]:
    """Return loss, cross-entropy and accuracy, of training images with the weights of classes."""
    classes = len(data.class_weights)
    predicted = answer(weights, values[part.rows[:, 0]])
    one_hot = np.eye(classes)[part.labels]
    smoothed = one_hot * (1 - data.label_smoothing) + data.label_smoothing / classes
    weight = data.class_weights[part.labels] if of == "training" else np.ones(len(part.labels))
    return {
        "loss": float((weight * -(smoothed * np.log(predicted)).sum(axis=1)).mean()),
        "cross_entropy": float(-(one_hot * np.log(predicted)).sum(axis=1).mean()),
        "accuracy": float((predicted.argmax(axis=1) == part.labels).mean()),
    }


@every_number_of_classes
def test_curves_are_those_of_the_formulas(classes: int) -> None:
    values, data = make_training_data(classes, class_weights=WEIGHTS[:classes], label_smoothing=0.2)
    model = make_model(classes)
    found = evaluate_phase(model, values, data, make_phase(batch_size=7))
    expected = measure(model.get_weights(), values, data.training, data, "training")
    validation = measure(model.get_weights(), values, data.validation, data, "validation")
    expected |= {f"val_{key}": value for key, value in validation.items()}
    assert found.keys() == expected.keys()
    assert found == pytest.approx(expected, rel=1e-5)


def step(
    weights: list[np.ndarray], values: np.ndarray, data: TrainingData, rate: float
) -> list[np.ndarray]:
    """Return the weights after one step of gradient descent on all training images."""
    classes = len(data.class_weights)
    seen, labels = values[data.training.rows[:, 0]].astype(np.float64), data.training.labels
    smoothed = np.eye(classes)[labels] * (1 - data.label_smoothing) + data.label_smoothing / classes
    error = data.class_weights[labels][:, None] * (answer(weights, seen) - smoothed) / len(labels)
    return [weights[0] - rate * seen.T @ error, weights[1] - rate * error.sum(axis=0)]


@every_number_of_classes
@pytest.mark.parametrize("label_smoothing", [0.0, 0.3])
def test_class_weights_and_smoothing_reach_the_gradient(
    classes: int, label_smoothing: float
) -> None:
    """Replaced by ones in the fitting code, class weights left all tests green once."""
    values, data = make_training_data(
        classes, class_weights=WEIGHTS[:classes], label_smoothing=label_smoothing
    )
    model = make_model(classes)
    expected = step(model.get_weights(), values, data, 0.5)
    without = step(model.get_weights(), values, data._replace(class_weights=np.ones(classes)), 0.5)
    phase = make_phase(name="sgd", learning_rate=0.5, epochs=1, batch_size=1000)
    fit_phase("head", model, values, data, phase, seed=0)
    for found, wanted, other in zip(model.get_weights(), expected, without, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-5)
        assert np.abs(found - other).max() > 1e-3


@every_number_of_classes
def test_classes_that_can_be_learned_are_learned(classes: int) -> None:
    values, data = make_training_data(classes, per_class=30)
    model = make_model(classes)
    result = fit_phase("head", model, values, data, make_phase(epochs=20), seed=0)
    assert result.history["val_accuracy"][result.best_epoch - 1] > 0.7
    assert result.history["loss"][-1] < result.history["loss"][0]
    curves = {"loss", "accuracy", "cross_entropy"}
    assert result.history.keys() == curves | {f"val_{name}" for name in curves}
    assert result.seconds > 0


class Spoiling:
    """Rows that become nan once a number of them was read."""

    def __init__(self, values: np.ndarray, after: int):
        self._values, self._left = values, after
        self.shape, self.dtype = values.shape, values.dtype

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, rows: Any) -> np.ndarray:
        self._left -= np.size(rows)
        return self._values[rows] * (1 if self._left >= 0 else np.nan)


def test_a_loss_that_is_no_number_stops_at_its_batch_and_keeps_the_best_weights() -> None:
    values, data = make_training_data(3, per_class=30)
    model = make_model(3)
    rows = len(data.training.rows) + len(data.validation.rows)
    phase = make_phase(epochs=20, patience=20)
    with pytest.raises(NotFiniteError, match=r"head, epoch [2-9], batch \d+: the loss") as caught:
        fit_phase("head", model, Spoiling(values, 5 * rows), data, phase, seed=0)
    assert caught.value.model is model
    for found, initial in zip(model.get_weights(), make_model(3).get_weights(), strict=True):
        assert np.isfinite(found).all()
        assert np.abs(found - initial).max() > 0, "those of an epoch"


def test_a_loss_that_is_no_number_from_the_start_leaves_the_initial_weights() -> None:
    values, data = make_training_data(3)
    model = make_model(3)
    start = model.get_weights()
    with pytest.raises(NotFiniteError, match="epoch 1, batch 1: the loss"):
        fit_phase("head", model, values * np.nan, data, make_phase(epochs=3), seed=0)
    for found, before in zip(model.get_weights(), start, strict=True):
        np.testing.assert_array_equal(found, before)


def mislead(data: TrainingData) -> TrainingData:
    """Let validation labels be wrong, so that each epoch is worse than the one before."""
    wrong = (data.validation.labels + 1) % len(data.class_weights)
    return data._replace(validation=data.validation._replace(labels=wrong))


def measure_validation(model: keras.Model, values: np.ndarray, data: TrainingData) -> float:
    found = measure(model.get_weights(), values, data.validation, data, "validation")
    return found["cross_entropy"]


@pytest.mark.parametrize("ema_momentum", [0.0, 0.5])
def test_training_stops_and_the_best_epoch_comes_back(ema_momentum: float) -> None:
    values, data = make_training_data()
    data = mislead(data)
    model = make_model()
    phase = make_phase(epochs=9, patience=3, ema_momentum=ema_momentum)
    result = fit_phase("head", model, values, data, phase, seed=0)
    curve = result.history["val_cross_entropy"]
    assert len(curve) == 1 + 3, "the first epoch is best, and three more are waited for"
    assert result.best_epoch == 1
    assert curve == sorted(curve)
    assert measure_validation(model, values, data) == pytest.approx(curve[0], rel=1e-5)


def test_the_best_epoch_comes_back_where_none_is_missing() -> None:
    values, data = make_training_data()
    model = make_model()
    phase = make_phase(epochs=8, patience=8, learning_rate=0.6, batch_size=4)
    result = fit_phase("head", model, values, mislead_half(data), phase, seed=0)
    curve = result.history["val_cross_entropy"]
    assert len(curve) == 8
    assert result.best_epoch == int(np.argmin(curve)) + 1 < 8
    found = measure_validation(model, values, mislead_half(data))
    assert found == pytest.approx(min(curve), rel=1e-4)


def mislead_half(data: TrainingData) -> TrainingData:
    """Let one validation label in two be wrong: certain answers cost, whatever they are."""
    labels = data.validation.labels.copy()
    labels[::2] = (labels[::2] + 1) % len(data.class_weights)
    return data._replace(validation=data.validation._replace(labels=labels))


def test_epochs_are_chosen_without_smoothing_or_weights() -> None:
    values, data = make_training_data(class_weights=[0.1, 5.0, 1.0], label_smoothing=0.4)
    model = make_model()
    result = fit_phase("head", model, values, data, make_phase(epochs=12, patience=12), seed=0)
    best = result.history["val_cross_entropy"][result.best_epoch - 1]
    assert best == min(result.history["val_cross_entropy"])
    assert result.history["val_loss"] != result.history["val_cross_entropy"]
    assert measure_validation(model, values, data) == pytest.approx(best, rel=1e-5)


def test_averaged_weights_are_evaluated_and_kept() -> None:
    values, data = make_training_data()
    model = make_model()
    rate, momentum, epochs = 0.5, 0.75, 3
    weights = model.get_weights()
    averaged = [w.astype(np.float64) for w in weights]
    for number in range(epochs):
        weights = step(weights, values, data, rate)
        # Keras begins the average with the weights after the first step.
        share = 0.0 if number == 0 else momentum
        averaged = [share * a + (1 - share) * w for a, w in zip(averaged, weights, strict=True)]
    phase = make_phase(
        name="sgd", learning_rate=rate, ema_momentum=momentum, epochs=epochs, batch_size=1000
    )
    result = fit_phase("head", model, values, data, phase, seed=0)
    assert result.best_epoch == epochs
    for found, wanted, last in zip(model.get_weights(), averaged, weights, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-4)
        assert np.abs(wanted - last).max() > 1e-3
    kept = measure_validation(model, values, data)
    assert result.history["val_cross_entropy"][-1] == pytest.approx(kept, rel=1e-5)


def fit_well(model: keras.Model, values: np.ndarray, data: TrainingData) -> PhaseResult:
    return fit_phase("head", model, values, data, make_phase(epochs=30, patience=30), seed=0)


@pytest.mark.parametrize(
    ("learning_rate", "kept"), [(50.0, 0), (1e-12, 0), (1e-3, None)], ids=["worse", "same", "good"]
)
def test_weights_come_back_unless_an_epoch_is_better(
    learning_rate: float, kept: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    values, data = make_training_data()
    model = make_model()
    if kept == 0:
        fit_well(model, values, data)
    before, loss = model.get_weights(), measure_validation(model, values, data)
    # Without a weighted or smoothed loss to hide behind: these are not what counts.
    given = data._replace(class_weights=np.array([1.0, 1.0, 2.0]), label_smoothing=0.1)
    phase = make_phase(name="sgd", learning_rate=learning_rate, epochs=3)
    result = fit_phase("fine-tuning", model, values, given, phase, seed=0, roll_back=True)
    rolled_back = "fine-tuning: no epoch has a lower validation cross-entropy" in caplog.text
    assert rolled_back == (kept == 0)
    assert len(result.history["loss"]) == 3
    if kept == 0:
        assert result.best_epoch == 0
        for now, then in zip(model.get_weights(), before, strict=True):
            np.testing.assert_array_equal(now, then)
    else:
        assert result.best_epoch > 0
        assert measure_validation(model, values, data) < loss


def of_sites(data: TrainingData, hard: int) -> TrainingData:
    """Let the first `hard` validation images be a site of their own, with wrong labels."""
    labels = data.validation.labels.copy()
    labels[:hard] = (labels[:hard] + 1) % len(data.class_weights)
    sites = np.repeat([0, 1], [hard, len(labels) - hard])
    return data._replace(validation=data.validation._replace(labels=labels, sites=sites))


@pytest.mark.parametrize("ema_momentum", [0.0, 0.5])
def test_epochs_are_chosen_by_the_worst_site(ema_momentum: float) -> None:
    values, data = make_training_data()
    data = of_sites(data, hard=4)
    model = make_model()
    phase = make_phase(epochs=9, patience=3, ema_momentum=ema_momentum)
    result = fit_phase("head", model, values, data, phase, seed=0)
    of_all = result.history["val_cross_entropy"]
    curve = result.history["val_worst_site_cross_entropy"]
    assert of_all[-1] < of_all[0], "over all images, later epochs are better"
    assert (len(curve), result.best_epoch) == (1 + 3, 1)
    probabilities = model.predict(values[data.validation.rows[:, 0]], verbose=0)
    found = measure_cross_entropy(data.validation.labels, probabilities, data.validation.sites)
    assert found == pytest.approx(curve[0], rel=1e-4)


def test_weights_come_back_where_the_worst_site_loses() -> None:
    values, data = make_training_data()
    data = of_sites(data, hard=4)
    model = make_model()
    phase = make_phase(epochs=2)
    result = fit_phase("fine-tuning", model, values, data, phase, seed=0, roll_back=True)
    assert result.best_epoch == 0
    alone = data._replace(validation=data.validation._replace(sites=None))
    assert fit_phase("fine-tuning", make_model(), values, alone, phase, 0, True).best_epoch > 0


def test_without_rolling_back_a_worse_epoch_is_kept() -> None:
    values, data = make_training_data()
    model = make_model()
    fit_well(model, values, data)
    before = measure_validation(model, values, data)
    phase = make_phase(name="sgd", learning_rate=50.0, epochs=2)
    result = fit_phase("fine-tuning", model, values, data, phase, seed=0)
    assert result.best_epoch > 0
    assert measure_validation(model, values, data) > before


@pytest.mark.parametrize(("patience", "expected"), [(1, 0.05 / 2**3), (2, 0.05 / 2)])
def test_the_rate_falls_where_validation_stands_still(patience: int, expected: float) -> None:
    values, data = make_training_data()
    model = make_model()
    phase = make_phase(schedule="plateau", plateau_patience=patience, epochs=4, patience=4)
    fit_phase("head", model, values, mislead(data), phase, seed=0)
    assert float(model.optimizer.learning_rate) == pytest.approx(expected)


def test_a_constant_rate_does_not_fall() -> None:
    values, data = make_training_data()
    model = make_model()
    fit_phase("head", model, values, mislead(data), make_phase(epochs=4), seed=0)
    assert float(model.optimizer.learning_rate) == pytest.approx(0.05)


def test_a_cosine_takes_as_many_steps_as_the_phase_has() -> None:
    values, data = make_training_data()
    model = make_model()
    phase = make_phase(schedule="cosine", epochs=4, batch_size=6)
    fit_phase("head", model, values, data, phase, seed=0)
    steps = 4 * int(np.ceil(len(data.training.labels) / 6))
    schedule = model.optimizer._learning_rate
    assert schedule.warmup_steps + schedule.decay_steps == steps == int(model.optimizer.iterations)


def test_the_seed_decides_the_order_of_images() -> None:
    values, data = make_training_data()
    curves = [
        fit_phase("head", make_model(), values, data, make_phase(batch_size=4), seed=seed).history
        for seed in (3, 3, 4)
    ]
    np.testing.assert_allclose(curves[0]["loss"], curves[1]["loss"], rtol=1e-6)
    assert np.abs(np.subtract(curves[0]["loss"], curves[2]["loss"])).max() > 1e-4


class Recorder:
    """Features that remember which rows were read, epoch by epoch."""

    def __init__(self, rows: int):
        self.shown: list[list[int]] = [[]]
        self._rows = rows

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, row: int) -> np.ndarray:
        self.shown[-1].append(int(row))
        return np.zeros(2, dtype=np.float16)


def test_a_fit_shows_each_epoch_its_own_augmentations() -> None:
    """Whatever Keras reads ahead or on trial, an epoch's batches are those of that epoch."""
    images, augmentations, epochs = 6, 3, 3
    recorder = Recorder(images * augmentations)
    batches = FeatureBatches(
        recorder,
        np.arange(images * augmentations).reshape(images, augmentations),
        np.eye(images, dtype=np.float32),
        np.ones(images, dtype=np.float32),
        batch_size=4,
        seed=5,
    )

    def begin(epoch: int, _: Any) -> None:
        recorder.shown.append([])
        batches.begin_epoch(epoch)

    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(images)])
    model.compile(optimizer="sgd", loss="mse")
    callback = keras.callbacks.LambdaCallback(on_epoch_begin=begin)
    model.fit(
        as_keras_input(batches), epochs=epochs, shuffle=False, callbacks=[callback], verbose=0
    )
    per_epoch = recorder.shown[-epochs:]
    for rows in per_epoch:
        assert sorted(row // augmentations for row in rows) == list(range(images))
    assert sorted(row for rows in per_epoch for row in rows) == list(range(images * augmentations))


def test_a_phase_shows_all_augmentations_and_first_rows_of_validation() -> None:
    recorder = Recorder(30)
    rows = np.arange(30).reshape(10, 3)
    data = TrainingData(
        LabelledRows(rows[:6], np.arange(6) % 2),
        LabelledRows(rows[6:], np.arange(4) % 2),
        np.ones(2),
        0.0,
    )
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, activation="softmax")])
    phase = make_phase(epochs=3, batch_size=4, augmented_per_epoch=1)
    fit_phase("head", model, recorder, data, phase, seed=0)
    (shown,) = recorder.shown
    training = [row for row in shown if row < 18]
    assert set(training) == set(range(18)), "three epochs, three augmentations"
    assert {row for row in shown if row >= 18} == {18, 21, 24, 27}


def test_each_epoch_is_a_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    values, data = make_training_data()
    result = fit_phase("head", make_model(), values, data, make_phase(epochs=2), seed=0)
    lines = [record.getMessage() for record in caplog.records]
    curves = result.history
    for epoch in range(2):
        numbers = [curves[key][epoch] for key in ("cross_entropy", "accuracy")]
        validation = [curves[f"val_{key}"][epoch] for key in ("cross_entropy", "accuracy")]
        expected = (
            f"head, epoch {epoch + 1} of 2: cross-entropy {numbers[0]:.3f}, accuracy "
            f"{numbers[1]:.3f}; validation {validation[0]:.3f}, {validation[1]:.3f} ("
        )
        assert any(line.startswith(expected) for line in lines), expected
    assert any(line.endswith("at most 0 s left)") for line in lines)
    assert any(line.startswith(f"head: best epoch {result.best_epoch}, ") for line in lines)
