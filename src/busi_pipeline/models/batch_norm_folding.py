"""Frozen batch normalisation taken into the convolution before it: same output, less work."""

from typing import Any

import keras
import numpy as np


def fold_batch_normalization(model: keras.Model) -> keras.Model:
    """Return a functional model that computes the same without its foldable BatchNormalization.

    A BatchNormalization that follows nothing but a linear Conv2D, which nothing else reads, is one
    multiplication and one addition a channel as long as its statistics do not move: both go into
    the kernel and the bias of the convolution, and an Identity stands in its place. Any other stays
    as it is. On a CPU reading and writing the activations once more costs a good part of the
    convolution. `model` is not changed; what comes back is meant for inference alone.

    Source: Jacob et al. 2018, "Quantization and training of neural networks for efficient
    integer-arithmetic-only inference", section 3.2.
    """
    folded = dict(_find_pairs(model))
    of_convolution = {convolution: name for name, convolution in folded.items()}

    def clone(layer: keras.Layer) -> keras.Layer:
        if layer.name in folded:
            return keras.layers.Identity(name=layer.name, dtype=layer.dtype_policy.name)
        config = layer.get_config()
        if layer.name in of_convolution:
            config |= {"use_bias": True}
        return layer.__class__.from_config(config)

    def call(layer: keras.Layer, *tensors: keras.KerasTensor, **options: Any) -> Any:
        # A normalisation is called with a mask, which an Identity does not take.
        return layer(*tensors) if layer.name in folded else layer(*tensors, **options)

    result = keras.models.clone_model(model, clone_function=clone, call_function=call)
    for layer in model.layers:
        weights = layer.get_weights()
        if layer.name in folded or not weights:  # an input layer may have another name
            continue
        if layer.name in of_convolution:
            weights = _fold(weights, model.get_layer(of_convolution[layer.name]))
        result.get_layer(layer.name).set_weights(weights)
    return result


def _find_pairs(model: keras.Model) -> list[tuple[str, str]]:
    """Return the names (normalisation, convolution) of what can be folded."""
    readers: dict[str, list[keras.Layer]] = {}
    for layer in model.layers:
        for maker in _find_makers(layer):
            readers.setdefault(maker.name, []).append(layer)
    outputs = {tensor._keras_history.operation.name for tensor in model.outputs}
    return [
        (layer.name, maker.name)
        for layer in model.layers
        if isinstance(layer, keras.layers.BatchNormalization)
        for maker in _find_makers(layer)
        if type(maker) is keras.layers.Conv2D
        and maker.activation is keras.activations.linear
        and maker.data_format == "channels_last"
        and len(readers[maker.name]) == 1
        and maker.name not in outputs
    ]


def _find_makers(layer: keras.Layer) -> list[keras.Layer]:
    return [
        tensor._keras_history.operation
        for node in layer._inbound_nodes
        for tensor in node.input_tensors
    ]


def _fold(
    weights: list[np.ndarray], normalization: keras.layers.BatchNormalization
) -> list[np.ndarray]:
    kernel, bias = (*weights, 0.0)[:2]
    mean, variance = (
        np.asarray(v) for v in (normalization.moving_mean, normalization.moving_variance)
    )
    factor = 1.0 / np.sqrt(variance + normalization.epsilon)
    if normalization.scale:
        factor = factor * np.asarray(normalization.gamma)
    shift = np.asarray(normalization.beta) if normalization.center else 0.0
    return [kernel * factor, (bias - mean) * factor + shift]
