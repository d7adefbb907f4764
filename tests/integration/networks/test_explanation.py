"""Grad-CAM maps of the test images: of the predicted class, computed once a model."""

from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest

from busi_pipeline.caching.arrays import StoredArray
from busi_pipeline.caching.cache import Cache
from busi_pipeline.models.gradcam import compute_gradcam
from busi_pipeline.pipelines.explanation.gradcam_nodes import compute_gradcam_maps
from busi_pipeline.stats.classes import Classes
from tests.factories import CLASSES, make_settings, store_array
from tests.learning_factories import build_tiny_network, draw_pictures

IDS = [f"i{number:02}" for number in range(20)]


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return build_tiny_network().full


@pytest.fixture
def predictions() -> pd.DataFrame:
    """Out of the images' order; the first is for validation."""
    table = pd.DataFrame({"image_id": IDS[::-1], "split": "test"})
    table["predicted"] = [CLASSES.names[number % 3] for number in range(20)]
    table.loc[0, "split"] = "validation"
    return table


@pytest.fixture(scope="module")
def images() -> StoredArray:
    return store_array(IDS, draw_pictures(20))


def compute(
    model: keras.Model,
    images: StoredArray,
    predictions: pd.DataFrame,
    folder: Path,
    classes: Classes = CLASSES,
) -> StoredArray:
    return compute_gradcam_maps(
        model, images, predictions, make_settings("tiny"), classes, Cache(folder)
    )


def test_maps_are_of_the_predicted_class_of_test_images(
    model: keras.Model, images: StoredArray, predictions: pd.DataFrame, tmp_path: Path
) -> None:
    maps = compute(model, images, predictions, tmp_path)
    assert maps.index["image_id"].tolist() == IDS[::-1][1:]
    assert maps.values.dtype == np.float32
    positions = np.arange(1, 20) % 3
    expected = compute_gradcam(model, images.values[::-1][1:], positions)
    np.testing.assert_allclose(maps.values[range(19)], expected, rtol=1e-4, atol=1e-6)


def test_maps_are_computed_once_a_model_and_class(
    model: keras.Model, images: StoredArray, predictions: pd.DataFrame, tmp_path: Path
) -> None:
    assert compute(model, images, predictions, tmp_path).metadata["computed"] == 19
    assert compute(model, images, predictions, tmp_path).metadata["computed"] == 0
    predictions.loc[4, "predicted"] = "normal"
    assert compute(model, images, predictions, tmp_path).metadata["computed"] == 1
    other = keras.Model(model.input, model.output, name="another_training")
    assert other.name != model.name
    fingerprints = {m.name: compute_name(m, images, predictions, tmp_path) for m in (model, other)}
    assert len(set(fingerprints.values())) == 2


def compute_name(
    model: keras.Model, images: StoredArray, predictions: pd.DataFrame, folder: Path
) -> str:
    """Return the fingerprint of the maps of the first test image."""
    return compute(model, images, predictions.head(2), folder).fingerprint.digest
