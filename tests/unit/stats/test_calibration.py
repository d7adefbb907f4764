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


@pytest.mark.parametrize(("confidence", "expected"), [(0.36, np.exp(-3)), (0.999, np.exp(3))])
def test_the_temperature_stays_within_its_bounds(confidence: float, expected: float) -> None:
    """Always right calls for no doubt, never better than chance for nothing else."""
    labels = np.arange(60) % 3
    always_right = expected < 1
    seen = labels if always_right else np.repeat([0, 1, 2], 20)
    probabilities = np.full((60, 3), (1 - confidence) / 2)
    probabilities[np.arange(60), seen] = confidence
    found = fit_calibration(labels, probabilities)
    assert found.temperature == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(("power", "expected"), [(1, 0.0), (-2, 1.0)])
def test_frequencies_come_in_once_at_most(
    honest: tuple[np.ndarray, np.ndarray], power: int, expected: float
) -> None:
    """They are neither taken out, where they are in twice, nor brought in twice."""
    labels, probabilities = honest
    shares = np.bincount(labels) / len(labels)
    seen = probabilities * shares**power
    found = fit_calibration(labels, seen / seen.sum(axis=1, keepdims=True))
    np.testing.assert_allclose(found.offsets, expected * np.log(shares), atol=1e-6)


def test_a_class_of_one_image_has_its_own_frequency() -> None:
    labels = np.array([0] * 9 + [1])
    found = fit_calibration(labels, np.full((10, 2), 0.5))
    assert found.offsets == pytest.approx((np.log(0.9), np.log(0.1)), rel=0.02)


def test_ten_bins_are_of_equal_width() -> None:
    correct = np.array([True, False])
    # One bin from 0.9 to 1: what is too much here makes up for what is too little there.
    assert measure_calibration_error(correct, np.array([1.0, 0.95])) == pytest.approx(0.475)
    # 0.85 and 0.95, 0.89 and 0.91 are of two bins, whatever lies between.
    for low, high in ((0.85, 0.95), (0.89, 0.91)):
        found = measure_calibration_error(correct, np.array([low, high]))
        assert found == pytest.approx(((1 - low) + high) / 2)
