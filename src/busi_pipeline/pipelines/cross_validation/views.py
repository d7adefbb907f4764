"""By which views an image is judged, and what the network says of them."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from busi_pipeline.arrays import StoredArray
from busi_pipeline.movements import MIRROR_VIEW, PLAIN_VIEW

if TYPE_CHECKING:
    import keras

_AT_ONCE = 32


def find_views(features: StoredArray, image_ids: pd.Series, mirror: bool) -> np.ndarray:
    """Return int (images, views): the rows of the views by which each image is judged."""
    places = pd.MultiIndex.from_frame(features.index[["image_id", "view"]])
    wanted = [PLAIN_VIEW, MIRROR_VIEW] if mirror else [PLAIN_VIEW]
    return np.stack(
        [
            places.get_indexer(pd.MultiIndex.from_product([image_ids, [view]])).astype(np.int64)
            for view in wanted
        ],
        axis=1,
    )


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
