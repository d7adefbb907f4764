"""Grad-CAM maps of the test images, computed once a model."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from busi_pipeline.caching.arrays import StoredArray
from busi_pipeline.caching.cache import Cache
from busi_pipeline.caching.fingerprints import Step, hash_values
from busi_pipeline.config.schemas import ExperimentSettings
from busi_pipeline.progress import track
from busi_pipeline.stats.classes import Classes
from busi_pipeline.stats.scoring import select_test

if TYPE_CHECKING:
    import keras

GRADCAM = Step(
    "gradcam",
    1,
    ("busi_pipeline.models.gradcam:compute_gradcam",),
    ("keras", "numpy", "tensorflow"),
)
_AT_ONCE = 16


def compute_gradcam_maps(
    trained_model: "keras.Model",
    images: StoredArray,
    predictions: pd.DataFrame,
    settings: ExperimentSettings,
    classes: Classes,
    cache: Cache,
) -> StoredArray:
    """Return float32 (n, h, w): the map of the predicted class of every test image.

    See models.gradcam.compute_gradcam.
    """
    from busi_pipeline.models.gradcam import compute_gradcam

    test = select_test(predictions).reset_index(drop=True)
    of_image = images.find_rows(test["image_id"])
    predicted = classes.positions(test["predicted"])

    def compute(positions: np.ndarray) -> Iterator[np.ndarray]:
        starts = range(0, len(positions), _AT_ONCE)
        for start in track(starts, f"Grad-CAM of {settings.title}", "batch"):
            chosen = positions[start : start + _AT_ONCE]
            yield compute_gradcam(trained_model, images.values[of_image[chosen]], predicted[chosen])

    return cache.compute_array(
        # The model's name holds the fingerprint of its training.
        GRADCAM.fingerprint(model=trained_model.name, images=images.fingerprint.digest),
        test[["image_id"]],
        [
            hash_values([images.keys[row], int(position)])
            for row, position in zip(of_image, predicted, strict=True)
        ],
        "float32",
        compute,
    )
