"""Grad-CAM: which part of an image raises the score of a class.

Source: Selvaraju et al. 2017, "Grad-CAM: visual explanations from deep networks via gradient-based
localization".
"""

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import keras


def compute_gradcam(model: "keras.Model", images: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return float32 (n, h, w), at the resolution of the frozen features: Grad-CAM of each image.

    All that the head sees is computed from these features.

    Args:
        model: a trained model. Where it averages over the horizontal flip, so does the map; where
            over the network before and after fine-tuning, so does the score.
        images: uint8 (n, size, size, 3); of a model that averages over windows, the one to be
            explained.
        classes: int (n,), position of the class whose score, before the softmax, is explained.
    """
    if len(model.input_shape) > len(images.shape):  # it averages over windows
        (model,) = list_models(model)
    inner = _find_inner(model)
    maps = _compute(inner, images, classes)
    if inner is model:
        return maps
    flipped = _compute(inner, images[:, :, ::-1], classes)
    return (maps + flipped[:, :, ::-1]) / 2


def _find_inner(model: "keras.Model") -> "keras.Model":
    """The model itself, or the one within `average_with_flipped`."""
    if any(layer.name == "frozen" for layer in model.layers):
        return model
    (inner,) = list_models(model)
    return inner


def list_models(model: "keras.Model") -> "list[keras.Model]":
    """Return the models that are layers of a model."""
    import keras

    return [layer for layer in model.layers if isinstance(layer, keras.Model)]


def _compute(inner: "keras.Model", images: np.ndarray, classes: np.ndarray) -> np.ndarray:
    import keras
    import tensorflow as tf

    frozen = inner.get_layer("frozen")
    features = tf.cast(frozen(images, training=False), "float32")
    with tf.GradientTape() as tape:
        tape.watch(features)
        scores = keras.ops.mean([_score(part, features) for part in _list_parts(inner)], axis=0)
        chosen = tf.gather(scores, classes, axis=1, batch_dims=1)
    weights = tf.reduce_mean(tape.gradient(chosen, features), axis=(1, 2), keepdims=True)
    return tf.nn.relu(tf.reduce_sum(weights * features, axis=-1)).numpy()


def _list_parts(inner: "keras.Model") -> "list[keras.Model]":
    """What holds a tail and a head: the model itself, or the two that it averages over."""
    parts = [inner, *list_models(inner)]
    return [model for model in parts if any(layer.name == "head" for layer in model.layers)]


def _score(part: "keras.Model", features: Any) -> Any:
    """Return float (n, classes): the scores of features, before the softmax."""
    import keras

    tail, head = part.get_layer("tail_and_pool"), part.get_layer("head")
    last = head.get_layer("probabilities")
    to_last = keras.Model(head.input, last.input)
    vectors = to_last(tail(features, training=False), training=False)
    return keras.ops.matmul(vectors, last.kernel) + last.bias
