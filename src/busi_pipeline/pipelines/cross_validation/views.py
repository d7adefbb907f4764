"""What a network says of the views by which an image is judged."""

from typing import TYPE_CHECKING

import numpy as np

from busi_pipeline.arrays import StoredArray

if TYPE_CHECKING:
    import keras

_AT_ONCE = 32


def predict_views(model: "keras.Model", features: StoredArray, views: np.ndarray) -> np.ndarray:
    """Return float64 (images, classes): the mean over the views; rows sum to 1."""
    rows = views.ravel()
    predicted = [
        model.predict_on_batch(features.values[rows[start : start + _AT_ONCE]])
        for start in range(0, len(rows), _AT_ONCE)
    ]
    probabilities = np.concatenate(predicted).astype(np.float64)
    mean = probabilities.reshape(*views.shape, -1).mean(axis=1)
    return mean / mean.sum(axis=1, keepdims=True)  # single precision leaves 1e-7
