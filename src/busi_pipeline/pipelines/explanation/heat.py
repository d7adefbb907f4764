"""Grad-CAM: which part of the image spoke for the class.

Source: Selvaraju et al. 2017, "Grad-CAM: visual explanations from deep networks via gradient-based
localization".
"""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import keras


def trace_heat(network: "keras.Model", images: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return float32 (n, h, w), at the resolution of the last features: Grad-CAM of each image.

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

    tail, head = inner.get_layer("tail_and_pool"), inner.get_layer("head")
    # Up to the last features: the layers before the tail, which follow one another, then the tail
    # without its pooling.
    pixels = keras.Input(inner.input_shape[1:], dtype="uint8")
    x = pixels
    for layer in inner.layers[1 : inner.layers.index(tail)]:
        x = layer(x)
    (base_tail,) = (layer for layer in tail.layers if isinstance(layer, keras.Model))
    to_features = keras.Model(pixels, base_tail(x, training=False))
    last = head.get_layer("probabilities")
    to_last = keras.Model(head.input, last.input)

    features = tf.cast(to_features(images, training=False), "float32")
    with tf.GradientTape() as tape:
        tape.watch(features)
        vectors = to_last(tf.reduce_mean(features, axis=(1, 2)), training=False)
        scores = tf.matmul(vectors, last.kernel) + last.bias
        chosen = tf.gather(scores, classes, axis=1, batch_dims=1)
    weights = tf.reduce_mean(tape.gradient(chosen, features), axis=(1, 2), keepdims=True)
    return tf.nn.relu(tf.reduce_sum(weights * features, axis=-1)).numpy()
