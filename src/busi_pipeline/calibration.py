"""Whether a probability of 0.8 is right eight times in ten, and how to make it so."""

import numpy as np
from scipy.optimize import minimize_scalar
from sklearn.metrics import log_loss

_LOG_TEMPERATURES = (-3.0, 3.0)
_TINY = 1e-7


def fit_temperature(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the temperature that makes the labels most likely; above 1 makes less certain.

    Args:
        labels: int (n,), class positions.
        probabilities: float (n, classes), of images the network was not fitted to.

    Source: Guo et al. 2017, "On calibration of modern neural networks", section 4.2. One number for
    all classes, so that the order of the classes, and with it every decision by the highest
    probability, stays as it was.
    """
    positions = list(range(probabilities.shape[1]))
    found = minimize_scalar(
        lambda log: log_loss(
            labels, apply_temperature(probabilities, float(np.exp(log))), labels=positions
        ),
        bounds=_LOG_TEMPERATURES,
        method="bounded",
    )
    return float(np.exp(found.x))


def apply_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Return float (n, classes): softmax of the logarithms divided by the temperature."""
    logits = np.log(np.clip(probabilities, _TINY, 1.0)) / temperature
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def measure_calibration_error(correct: np.ndarray, confidence: np.ndarray, bins: int = 10) -> float:
    """Return the expected calibration error: how far confidence and accuracy lie apart on average.

    Args:
        correct: bool (n,).
        confidence: float (n,), the probability of what was said.
        bins: of equal width over 0 to 1.

    Source: Guo et al. 2017, section 2.
    """
    of_bin = np.minimum((confidence * bins).astype(int), bins - 1)
    apart = np.bincount(of_bin, weights=correct - confidence, minlength=bins)
    return float(np.abs(apart).sum() / len(correct))
