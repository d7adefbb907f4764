"""How far the frozen base alone gets: logistic regression on its pooled features.

The head of a network is initialised from it, and fine-tuning has to beat it. A head that is fitted
by gradient on thousands of features of a few hundred images ends far from this optimum, or beyond
it (docs/experiment-log.md). Source of the two steps: Kumar et al. 2022, "Fine-tuning can distort
pretrained features and underperform out-of-distribution".
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from busi_pipeline.learning.training_data import measure_cross_entropy

# What a bias audit asks of it.
VISIBLE, OCCLUDED = "linear probe, lesion visible", "linear probe, lesion occluded"
BOUNDING_BOX = "bounding box of the lesion alone"


class PooledRows(NamedTuple):
    """Labelled images, each in one or more augmentations.

    Attributes:
        vectors: float32 (images, augmentations, channels), pooled features.
        labels: int (images,), class positions.
        weights: float (images,), in the loss beside those of the classes; None where all are 1.
        sites: int (images,), of validation images where the worst site chooses; else None.
    """

    vectors: np.ndarray
    labels: np.ndarray
    weights: np.ndarray | None = None
    sites: np.ndarray | None = None


class LinearProbe(NamedTuple):
    """A linear classifier of pooled features.

    Attributes:
        kernel: float32 (channels, classes).
        bias: float32 (classes,).
        strength: inverse of the penalty, as `C` of scikit-learn, chosen on validation images.
    """

    kernel: np.ndarray
    bias: np.ndarray
    strength: float

    def predict(self, vectors: np.ndarray) -> np.ndarray:
        """Return float64 (images, classes), the mean over augmentations.

        Args:
            vectors: float (images, augmentations, channels).
        """
        scores = vectors.astype(np.float64) @ self.kernel + self.bias
        mean: np.ndarray = softmax(scores, axis=-1).mean(axis=1)
        return mean


def fit_linear_probe(
    training: PooledRows,
    validation: PooledRows,
    class_weights: Sequence[float],
    strengths: Sequence[float],
) -> LinearProbe:
    """Fit on standardised features with the penalty under which the validation loss is lowest.

    Args:
        training: all augmentations are learned from.
        validation: an image is evaluated by the mean over its augmentations.
        class_weights: float (classes,), of the training images.
        strengths: inverses of the penalty to choose from.
    """
    augmentations = training.vectors.shape[1]
    vectors = training.vectors.reshape(-1, training.vectors.shape[2])
    labels = np.repeat(training.labels, augmentations)
    weights = dict(enumerate(class_weights))
    sample_weights = (
        None if training.weights is None else np.repeat(training.weights, augmentations)
    )
    scaler = StandardScaler().fit(vectors)
    standardised = scaler.transform(vectors)
    probes = []
    for strength in strengths:
        # Augmentations of one image are no new images.
        regression = LogisticRegression(
            C=strength / augmentations, class_weight=weights, max_iter=1000
        )
        probes.append(
            _unfold(scaler, regression.fit(standardised, labels, sample_weights), strength)
        )
    losses = [
        measure_cross_entropy(
            validation.labels, probe.predict(validation.vectors), validation.sites
        )
        for probe in probes
    ]
    return probes[int(np.argmin(losses))]


def _unfold(scaler: StandardScaler, regression: LogisticRegression, strength: float) -> LinearProbe:
    """Take the standardisation into the classifier."""
    coefficients, intercept = regression.coef_, regression.intercept_
    if len(coefficients) == 1:  # of two classes, scikit-learn keeps the second's alone
        coefficients = np.concatenate([-coefficients, coefficients]) / 2
        intercept = np.concatenate([-intercept, intercept]) / 2
    kernel = coefficients.T / scaler.scale_[:, None]
    bias = intercept - scaler.mean_ @ kernel
    return LinearProbe(
        np.asarray(kernel, dtype=np.float32), np.asarray(bias, dtype=np.float32), strength
    )
