"""Calibration: a known distortion is found again, the error is what can be counted."""

import numpy as np
import pytest

from busi_pipeline.stats.calibration import (
    Calibration,
    apply_calibration,
    fit_calibration,
    measure_calibration_error,
)

UNCHANGED = (0.0, 0.0, 0.0)


@pytest.fixture
def honest(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Labels that follow the probabilities: nothing is better calibrated."""
    logits = rng.normal([1.5, 0.5, 0.0], 2, (6000, 3))
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    uniform = rng.random((6000, 1))
    return (probabilities.cumsum(axis=1) < uniform).sum(axis=1), probabilities


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
@pytest.mark.parametrize("weighted", [False, True])
def test_temperature_and_frequencies_are_found_again(
    honest: tuple[np.ndarray, np.ndarray], temperature: float, weighted: bool
) -> None:
    labels, probabilities = honest
    shares = np.bincount(labels) / len(labels)
    assert shares.max() > 2 * shares.min(), "with equal shares, weights change nothing"
    seen = probabilities / shares if weighted else probabilities
    sharper = Calibration(1 / temperature, UNCHANGED)
    distorted = apply_calibration(seen / seen.sum(axis=1, keepdims=True), sharper)
    found = fit_calibration(labels, distorted)
    assert found.temperature == pytest.approx(temperature, rel=0.06)
    np.testing.assert_allclose(found.offsets, np.log(shares) * weighted, atol=0.15)
    corrected = apply_calibration(distorted, found)
    np.testing.assert_allclose(corrected, probabilities, atol=0.05)
    np.testing.assert_allclose(corrected.sum(axis=1), 1)


def test_certain_probabilities_and_missing_classes_stay_finite() -> None:
    certain = np.eye(3)[[0, 1, 1, 0]]
    found = fit_calibration(np.array([0, 1, 0, 1]), certain)
    assert np.isfinite([found.temperature, *found.offsets]).all()
    assert np.isfinite(apply_calibration(certain, Calibration(0.05, UNCHANGED))).all()


def test_calibration_error_is_the_distance_of_the_bins() -> None:
    confidence = np.array([0.95] * 10 + [0.55] * 10)
    correct = np.arange(20) % 10 < np.array([8] * 10 + [6] * 10)
    assert measure_calibration_error(correct, confidence) == pytest.approx(0.5 * (0.15 + 0.05))
    assert measure_calibration_error(np.array([True]), np.array([1.0])) == 0


def test_honest_probabilities_have_little_error(honest: tuple[np.ndarray, np.ndarray]) -> None:
    labels, probabilities = honest
    correct = probabilities.argmax(axis=1) == labels
    assert measure_calibration_error(correct, probabilities.max(axis=1)) < 0.03
    overconfident = apply_calibration(probabilities, Calibration(0.3, UNCHANGED))
    assert measure_calibration_error(correct, overconfident.max(axis=1)) > 0.1
