"""Folding: what follows nothing but a linear convolution goes, all else stays."""

import keras
import numpy as np

from busi_pipeline.models.batch_norm_folding import fold_batch_normalization
from tests.learning_factories import build_tiny_base, disturb_statistics


def test_all_that_follow_a_convolution_are_folded(rng: np.random.Generator) -> None:
    base = build_tiny_base(False, None, (32, 32, 3))
    disturb_statistics(base, rng)
    folded = fold_batch_normalization(base)
    assert not any(isinstance(y, keras.layers.BatchNormalization) for y in folded.layers)
    values = rng.normal(size=(2, 32, 32, 3)).astype(np.float32)
    np.testing.assert_allclose(folded(values), base(values), rtol=1e-4, atol=1e-5)


def test_a_folded_layer_keeps_bias_scale_and_shift(rng: np.random.Generator) -> None:
    images = keras.Input((4, 4, 2))
    x = keras.layers.Conv2D(3, 1, use_bias=True, bias_initializer="ones")(images)
    x = keras.layers.BatchNormalization(scale=False)(x)
    x = keras.layers.Conv2D(3, 1, use_bias=False)(x)
    x = keras.layers.BatchNormalization(center=False, epsilon=0.5)(x)
    model = keras.Model(images, x)
    disturb_statistics(model, rng)
    folded = fold_batch_normalization(model)
    assert not any(isinstance(y, keras.layers.BatchNormalization) for y in folded.layers)
    values = rng.normal(size=(3, 4, 4, 2)).astype(np.float32)
    np.testing.assert_allclose(folded(values), model(values), atol=1e-5)


def test_what_something_else_reads_is_not_folded(rng: np.random.Generator) -> None:
    images = keras.Input((4, 4, 2))
    seen = keras.layers.Conv2D(3, 1, name="seen")(images)
    normal = keras.layers.BatchNormalization(name="of_seen")(seen)
    curved = keras.layers.Conv2D(3, 1, activation="relu", name="curved")(images)
    after = keras.layers.BatchNormalization(name="of_curved")(curved)
    shown = keras.layers.Conv2D(3, 1, name="shown")(images)
    last = keras.layers.BatchNormalization(name="of_shown")(shown)
    model = keras.Model(images, [keras.layers.Add()([seen, normal, after, last]), shown])
    disturb_statistics(model, rng)
    folded = fold_batch_normalization(model)
    kept = {y.name for y in folded.layers if isinstance(y, keras.layers.BatchNormalization)}
    assert kept == {"of_seen", "of_curved", "of_shown"}
    values = rng.normal(size=(3, 4, 4, 2)).astype(np.float32)
    for ours, theirs in zip(folded(values), model(values), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
