"""Predictions from features: means over rows and over two sets of weights, in order."""

from typing import Any

import numpy as np
import pandas as pd

from busi_pipeline.learning.predicting import predict_before_and_after, predict_rows
from busi_pipeline.learning.training_data import find_evaluation_rows
from tests.learning_factories import store_features


class Echo:
    """A model that answers with its input; its weight is added to the first class."""

    def __init__(self) -> None:
        self._weights = [np.zeros(1)]
        self.batches: list[int] = []

    def get_weights(self) -> list[np.ndarray]:
        return self._weights

    def set_weights(self, weights: list[np.ndarray]) -> None:
        self._weights = weights

    def predict_on_batch(self, values: np.ndarray) -> np.ndarray:
        self.batches.append(len(values))
        return np.asarray(values + self._weights[0] * np.eye(3)[0], dtype=np.float32)


IDS = [f"i{n}" for n in range(50)]
VALUES = np.eye(3)[np.arange(50) % 3]


def test_an_image_is_predicted_from_original_and_flip() -> None:
    features = store_features(IDS, VALUES)
    model: Any = Echo()
    rows = find_evaluation_rows(features, pd.Series(IDS), flip=True)
    predicted = predict_rows(model, None, features, rows)
    np.testing.assert_allclose(predicted, (VALUES + 0.25) / 1.75, rtol=1e-6)
    assert predicted.dtype == np.float64
    np.testing.assert_allclose(predicted.sum(axis=1), 1, rtol=1e-12)
    assert max(model.batches) <= 32
    assert sum(model.batches) == 100
    alone = predict_rows(model, None, features, rows[:, :1])
    np.testing.assert_allclose(alone, VALUES)


def test_the_mean_with_the_pretuned_weights_is_taken() -> None:
    features = store_features(IDS, VALUES)
    model: Any = Echo()
    rows = find_evaluation_rows(features, pd.Series(IDS), flip=True)
    after = predict_rows(model, None, features, rows)
    pretuned = [np.array([1e9])]
    mean = predict_rows(model, pretuned, features, rows)
    np.testing.assert_allclose(mean, (after + np.eye(3)[0]) / 2, atol=1e-6)
    assert model.get_weights() == [0], "its weights came back"
    before, same = predict_before_and_after(model, pretuned, features, rows)
    np.testing.assert_allclose(before, np.tile(np.eye(3)[0], (50, 1)), atol=1e-6)
    np.testing.assert_allclose(same, mean)
