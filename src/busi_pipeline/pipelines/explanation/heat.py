"""Grad-CAM: which part of the image spoke for the class.

Source: Selvaraju et al. 2017, "Grad-CAM: visual explanations from deep networks via gradient-based
localization".
"""

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import keras


def trace_heat(network: "keras.Model", images: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return float32 (n, h, w), at the resolution of the cut: Grad-CAM of each image.

    All that the head sees comes from the features at the cut, by one way or two.

    Args:
        network: as `train_model` hands it over. Where it averages over the mirror image, so does
            the heat; where over the network before and after fine-tuning, so does the score.
        images: uint8 (n, size, size, 3).
        classes: int (n,), position of the class whose score is traced, before the softmax.
    """
    inner = _find_inner(network)
    heat = _trace(inner, images, classes)
    if inner is network:
        return heat
    mirrored = _trace(inner, images[:, :, ::-1], classes)
    return (heat + mirrored[:, :, ::-1]) / 2


def _find_inner(network: "keras.Model") -> "keras.Model":
    """The network itself, or the one within `average_mirror`."""
    import keras

    if any(layer.name == "frozen" for layer in network.layers):
        return network
    (inner,) = (layer for layer in network.layers if isinstance(layer, keras.Model))
    return inner


def _trace(inner: "keras.Model", images: np.ndarray, classes: np.ndarray) -> np.ndarray:
    import keras
    import tensorflow as tf

    frozen = inner.get_layer("frozen")
    features = tf.cast(frozen(images, training=False), "float32")
    with tf.GradientTape() as tape:
        tape.watch(features)
        scores = keras.ops.mean(
            [_score(pieces, features) for pieces in _list_pieces(inner)], axis=0
        )
        chosen = tf.gather(scores, classes, axis=1, batch_dims=1)
    weights = tf.reduce_mean(tape.gradient(chosen, features), axis=(1, 2), keepdims=True)
    return tf.nn.relu(tf.reduce_sum(weights * features, axis=-1)).numpy()


def _list_pieces(inner: "keras.Model") -> "list[keras.Model]":
    """What holds a tail and a head: the network itself, or the two that it averages over."""
    import keras

    pieces = [inner, *(layer for layer in inner.layers if isinstance(layer, keras.Model))]
    return [model for model in pieces if any(layer.name == "head" for layer in model.layers)]


def _score(pieces: "keras.Model", features: Any) -> Any:
    """Return (n, classes): what the head says of the features at the cut, before the softmax."""
    import keras

    tail, head = pieces.get_layer("tail_and_pool"), pieces.get_layer("head")
    last = head.get_layer("probabilities")
    to_last = keras.Model(head.input, last.input)
    vectors = to_last(tail(features, training=False), training=False)
    return keras.ops.matmul(vectors, last.kernel) + last.bias
