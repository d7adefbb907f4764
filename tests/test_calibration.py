"""Calibration: the temperature that was put in comes out, the error is what can be counted."""

import numpy as np
import pytest

from busi_pipeline.calibration import (
    apply_temperature,
    fit_temperature,
    measure_calibration_error,
)


@pytest.fixture
def honest(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Labels that are drawn from the probabilities: nothing is better calibrated."""
    logits = rng.normal(0, 2, (6000, 3))
    probabilities = apply_temperature(np.exp(logits) / np.exp(logits).sum(1, keepdims=True), 1.0)
    draws = rng.random((6000, 1))
    return (probabilities.cumsum(axis=1) < draws).sum(axis=1), probabilities


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_temperature_is_found_again(
    honest: tuple[np.ndarray, np.ndarray], temperature: float
) -> None:
    labels, probabilities = honest
    spoiled = apply_temperature(probabilities, 1 / temperature)
    found = fit_temperature(labels, spoiled)
    assert found == pytest.approx(temperature, rel=0.06)
    mended = apply_temperature(spoiled, found)
    np.testing.assert_allclose(mended, probabilities, atol=0.03)
    np.testing.assert_array_equal(mended.argmax(axis=1), spoiled.argmax(axis=1))
    np.testing.assert_allclose(mended.sum(axis=1), 1)


def test_certain_probabilities_stay_finite() -> None:
    certain = np.eye(3)[[0, 1, 2, 0]]
    assert np.isfinite(fit_temperature(np.array([0, 1, 2, 1]), certain))
    assert np.isfinite(apply_temperature(certain, 0.05)).all()


def test_calibration_error_is_the_distance_of_the_bins() -> None:
    confidence = np.array([0.95] * 10 + [0.55] * 10)
    correct = np.arange(20) % 10 < np.array([8] * 10 + [6] * 10)
    assert measure_calibration_error(correct, confidence) == pytest.approx(0.5 * (0.15 + 0.05))
    assert measure_calibration_error(np.array([True]), np.array([1.0])) == 0


def test_honest_probabilities_have_little_error(honest: tuple[np.ndarray, np.ndarray]) -> None:
    labels, probabilities = honest
    correct = probabilities.argmax(axis=1) == labels
    assert measure_calibration_error(correct, probabilities.max(axis=1)) < 0.03
    boasting = apply_temperature(probabilities, 0.3)
    assert measure_calibration_error(correct, boasting.max(axis=1)) > 0.1
