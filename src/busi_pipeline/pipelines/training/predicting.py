"""What a network says of the views by which an image is judged."""

from typing import TYPE_CHECKING

import numpy as np

from busi_pipeline.arrays import StoredArray

if TYPE_CHECKING:
    import keras

_AT_ONCE = 32


def predict_views(
    model: "keras.Model",
    start: list[np.ndarray] | None,
    features: StoredArray,
    views: np.ndarray,
) -> np.ndarray:
    """Return float64 (images, classes): the mean over the views; rows sum to 1.

    Where `start` is given, weights of the model before it was fine-tuned, the mean is over what it
    says with either weights, too. It is left with those it came with.
    """
    if start is None:
        return _predict(model, features, views)
    return predict_ends(model, start, features, views)[1]


def predict_ends(
    model: "keras.Model", start: list[np.ndarray], features: StoredArray, views: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return what the model says with the weights it had at the start, and the mean of that and
    what it says now; each as `predict_views` does."""
    said = _predict(model, features, views)
    tuned = model.get_weights()
    model.set_weights(start)
    begun = _predict(model, features, views)
    model.set_weights(tuned)
    return begun, (said + begun) / 2


def _predict(model: "keras.Model", features: StoredArray, views: np.ndarray) -> np.ndarray:
    rows = views.ravel()
    predicted = [
        model.predict_on_batch(features.values[rows[start : start + _AT_ONCE]])
        for start in range(0, len(rows), _AT_ONCE)
    ]
    probabilities = np.concatenate(predicted).astype(np.float64)
    mean = probabilities.reshape(*views.shape, -1).mean(axis=1)
    return mean / mean.sum(axis=1, keepdims=True)  # single precision leaves 1e-7
