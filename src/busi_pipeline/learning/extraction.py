"""Run the frozen part of a network over batches of images."""

from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np


def compute_features(frozen: keras.Model, batches: Iterable[Any]) -> Iterator[np.ndarray]:
    """Yield float16 features (n, ...) for each batch, an array or a tensor of the backend.

    Raises OverflowError where a feature does not fit float16 (above 65504).
    """
    for batch in batches:
        features = np.asarray(frozen.predict_on_batch(batch)).astype(np.float16)
        if not np.isfinite(features).all():
            raise OverflowError(f"features of {frozen.name} do not fit float16")
        yield features
