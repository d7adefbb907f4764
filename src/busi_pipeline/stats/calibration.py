"""Whether a probability of 0.8 is right eight times in ten, and how to make it so."""

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn.metrics import log_loss

_LOG_TEMPERATURES = (-3.0, 3.0)
_SPREAD_OF_LOG_TEMPERATURE, _SPREAD_OF_OFFSET = 1.0, 2.0
_TINY = 1e-7
_TINIEST = 1e-300


class Calibration(NamedTuple):
    """Calibrated probabilities are softmax(log(uncalibrated) / temperature + offsets).

    Attributes:
        temperature: above 1 makes the probabilities less certain.
        offsets: one a class, in nats.
    """

    temperature: float
    offsets: tuple[float, ...]


def fit_calibration(labels: np.ndarray, probabilities: np.ndarray) -> Calibration:
    """Return the calibration that makes the labels most likely, of two numbers.

    Args:
        labels: int (n,), class positions.
        probabilities: float (n, classes), of images the network was not fitted to.

    One is the temperature (Guo et al. 2017, "On calibration of modern neural networks", section
    4.2). The other is how far, from 0 to 1, the frequencies of the classes come back in. Class
    weights teach a network that all classes are equally frequent, and its probabilities have to be
    multiplied by the true frequencies (Saerens et al. 2002, "Adjusting the outputs of a classifier
    to new a priori probabilities"). The likeliest class may become another one.
    """
    positions = list(range(probabilities.shape[1]))
    counts = np.bincount(labels, minlength=len(positions))
    log_shares = np.log(np.maximum(counts, 1) / len(labels))

    def assemble(numbers: np.ndarray) -> Calibration:
        return Calibration(float(np.exp(numbers[0])), tuple((numbers[1] * log_shares).tolist()))

    found = minimize(
        lambda numbers: log_loss(
            labels, apply_calibration(probabilities, assemble(numbers)), labels=positions
        ),
        x0=[0.0, 0.5],
        bounds=[_LOG_TEMPERATURES, (0, 1)],
        method="L-BFGS-B",
    )
    return assemble(found.x)


def fit_site_calibration(labels: np.ndarray, probabilities: np.ndarray) -> Calibration:
    """Return the calibration for another site: a temperature, and a free offset for each class.

    Args:
        labels: int (n,), class positions; a class may be absent.
        probabilities: float (n, classes), of images of the site.

    At another site a network may be wrong about a class by more than its frequency explains, so the
    offsets are free. Few images must not decide too much: the numbers have a normal prior, of
    standard deviation 1 for the log of the temperature and 2 for an offset. Source: Alexandari et
    al. 2020, "Maximum likelihood with bias-corrected calibration is hard-to-beat at label shift
    adaptation" (without a prior).
    """
    logits = np.log(np.clip(probabilities, _TINY, 1.0))
    targets = np.eye(probabilities.shape[1])[labels]

    def measure(numbers: np.ndarray) -> tuple[float, np.ndarray]:
        heat, offsets = np.exp(-numbers[0]), numbers[1:]
        scores = logits * heat + offsets
        log_p = log_softmax(scores, axis=1)
        error = np.exp(log_p) - targets
        value = -(targets * log_p).sum() + ((numbers / spread) ** 2).sum() / 2
        gradient = np.array([-(error * logits).sum() * heat, *error.sum(axis=0)])
        return float(value), gradient + numbers / spread**2

    spread = np.array([_SPREAD_OF_LOG_TEMPERATURE] + [_SPREAD_OF_OFFSET] * probabilities.shape[1])
    found = minimize(measure, np.zeros(len(spread)), jac=True, method="L-BFGS-B")
    return Calibration(float(np.exp(found.x[0])), tuple(found.x[1:].tolist()))


def apply_calibration(
    probabilities: np.ndarray, calibration: Calibration, lowest: float = _TINY
) -> np.ndarray:
    """Return float (n, classes) calibrated probabilities; those below `lowest` count as it."""
    logits = np.log(np.clip(probabilities, lowest, 1.0)) / calibration.temperature
    logits = logits + np.array(calibration.offsets)
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def invert_calibration(probabilities: np.ndarray, calibration: Calibration) -> np.ndarray:
    """Return float (n, classes), the probabilities before `apply_calibration`."""
    logits = np.log(np.clip(probabilities, _TINIEST, 1.0)) - np.array(calibration.offsets)
    return apply_calibration(
        np.exp(logits - logits.max(axis=1, keepdims=True)),
        Calibration(1 / calibration.temperature, (0.0,) * probabilities.shape[1]),
        _TINIEST,
    )


def relate_calibrations(old: Calibration, new: Calibration) -> Calibration:
    """Return the calibration that makes of probabilities calibrated by `old` those by `new`."""
    ratio = old.temperature / new.temperature
    offsets = (n - o * ratio for n, o in zip(new.offsets, old.offsets, strict=True))
    return Calibration(1 / ratio, tuple(offsets))


def measure_calibration_error(correct: np.ndarray, confidence: np.ndarray, bins: int = 10) -> float:
    """Return the expected calibration error: how far confidence and accuracy lie apart on average.

    Args:
        correct: bool (n,).
        confidence: float (n,), the probability of the predicted class.
        bins: of equal width over 0 to 1.

    Source: Guo et al. 2017, section 2.
    """
    of_bin = np.minimum((confidence * bins).astype(int), bins - 1)
    apart = np.bincount(of_bin, weights=correct - confidence, minlength=bins)
    return float(np.abs(apart).sum() / len(correct))
