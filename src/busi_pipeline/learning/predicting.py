"""Probabilities of images whose features were computed before."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from busi_pipeline.caching.arrays import StoredArray
from busi_pipeline.progress import track

if TYPE_CHECKING:
    import keras

_AT_ONCE = 32


def read_inputs(
    images: StoredArray, image_ids: Sequence[str], batch_size: int, title: str
) -> Iterator[np.ndarray]:
    """Yield batches of what a model takes: uint8 (n, size, size, 3), of several windows
    (n, windows, size, size, 3).

    Args:
        images: of these images, at every window.
        image_ids: in the order of the batches.
        batch_size: images of one window that fit the memory.
        title: of the experiment, for the log.
    """
    windows = images.windows
    rows = np.stack([images.find_rows(image_ids, window) for window in range(windows)], axis=1)
    step = max(1, batch_size // windows)
    for start in track(range(0, len(rows), step), f"predictions of {title}", "batch"):
        own = rows[start : start + step]
        pixels = images.values[own.ravel()]
        yield pixels if windows == 1 else pixels.reshape(*own.shape, *pixels.shape[1:])


def predict_rows(
    model: "keras.Model",
    pretuned: list[np.ndarray] | None,
    features: StoredArray,
    rows: np.ndarray,
) -> np.ndarray:
    """Return float64 (images, classes): the mean over the rows of each image; rows sum to 1.

    Args:
        model: features -> probabilities. It keeps its weights.
        pretuned: weights of the model before it was fine-tuned, over which the mean is taken as
            well; or None.
        features: the rows to predict from.
        rows: int (images, rows an image).
    """
    if pretuned is None:
        return _predict(model, features, rows)
    return predict_before_and_after(model, pretuned, features, rows)[1]


def predict_before_and_after(
    model: "keras.Model", pretuned: list[np.ndarray], features: StoredArray, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the probabilities under the pre-fine-tuning weights, and the mean of these and those
    under the present ones; see `predict_rows`."""
    after = _predict(model, features, rows)
    tuned = model.get_weights()
    model.set_weights(pretuned)
    before = _predict(model, features, rows)
    model.set_weights(tuned)
    return before, (after + before) / 2


def _predict(model: "keras.Model", features: StoredArray, rows: np.ndarray) -> np.ndarray:
    flat = rows.ravel()
    predicted = [
        model.predict_on_batch(features.values[flat[start : start + _AT_ONCE]])
        for start in range(0, len(flat), _AT_ONCE)
    ]
    probabilities = np.concatenate(predicted).astype(np.float64)
    mean = probabilities.reshape(*rows.shape, -1).mean(axis=1)
    return mean / mean.sum(axis=1, keepdims=True)  # single precision leaves 1e-7
