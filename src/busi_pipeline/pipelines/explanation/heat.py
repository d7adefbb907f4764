"""Grad-CAM: which part of the image spoke for the class.

Source: Selvaraju et al. 2017, "Grad-CAM: visual explanations from deep networks via gradient-based
localization".
"""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import keras


def trace_heat(network: "keras.Model", images: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return float32 (n, h, w), at the resolution of the cut: Grad-CAM of each image.

    All that the head sees comes from the features at the cut, by one way or two.

    Args:
        network: as `train_model` hands it over. Where it averages over the mirror image, so does
            the heat.
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

    if any(layer.name == "head" for layer in network.layers):
        return network
    (inner,) = (layer for layer in network.layers if isinstance(layer, keras.Model))
    return inner


def _trace(inner: "keras.Model", images: np.ndarray, classes: np.ndarray) -> np.ndarray:
    import keras
    import tensorflow as tf

    frozen, tail, head = (inner.get_layer(name) for name in ("frozen", "tail_and_pool", "head"))
    last = head.get_layer("probabilities")
    to_last = keras.Model(head.input, last.input)

    features = tf.cast(frozen(images, training=False), "float32")
    with tf.GradientTape() as tape:
        tape.watch(features)
        vectors = to_last(tail(features, training=False), training=False)
        scores = tf.matmul(vectors, last.kernel) + last.bias
        chosen = tf.gather(scores, classes, axis=1, batch_dims=1)
    weights = tf.reduce_mean(tape.gradient(chosen, features), axis=(1, 2), keepdims=True)
    return tf.nn.relu(tf.reduce_sum(weights * features, axis=-1)).numpy()
