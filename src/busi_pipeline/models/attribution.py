"""Which places of an image speak for a positive class, and which against it.

Source: Draelos and Carin 2020, "Use HiResCAM instead of Grad-CAM for faithful explanations of
convolutional neural networks". What a linear head reads of pooled features splits into a share of
each place, without a gradient: the shares add up to what the features do to the score. Of two
classes that is the log odds but for a constant; of more, to first order.
"""

from collections.abc import Iterator, Sequence
from itertools import product

import keras
import numpy as np

from busi_pipeline.models.gradcam import list_models
from busi_pipeline.models.onnx_networks import ATTRIBUTION

# A class may be that unlikely beside another of its side.
_TINY = 1e-30


def has_linear_heads(model: keras.Model) -> bool:
    """Return whether all heads of a delivered model are linear, as `add_attribution` needs."""
    heads = list(list_heads(model))
    return bool(heads) and all(map(_is_linear, heads))


def list_heads(model: keras.Model) -> Iterator[keras.Model]:
    """Yield the heads of a delivered model, those of its first member first."""
    for layer in list_models(model):
        if _is_head(layer):
            yield layer
        else:
            yield from list_heads(layer)


def add_attribution(model: keras.Model, positive: Sequence[int]) -> keras.Model:
    """Return a delivered model with a further output, `attribution`.

    float32 (images x windows, h, w), at the resolution of the finest features that a head reads.
    The mean over a map is what the image adds to the log odds of the positive classes, before
    calibration, to first order: above 0 a place speaks for them, below 0 against. Of a model that
    averages over several networks or over the flip, the mean of theirs, each counting the same.

    Args:
        model: uint8 images -> {`probabilities`, `positive_score`, `flagged`}, as delivered; its
            heads must be linear. Its layers are shared.
        positive: positions of the positive classes.
    """
    images = keras.Input(model.input_shape[1:], dtype="uint8", name="image")
    answer = dict(model(images))
    is_positive = np.zeros(answer["probabilities"].shape[-1], dtype="float32")
    is_positive[list(positive)] = 1
    maps = _draw(model, is_positive)(images)
    outputs = answer | {ATTRIBUTION: keras.layers.Identity(name=ATTRIBUTION)(maps)}
    return keras.Model(images, outputs, name=model.name)


def _draw(model: keras.Model, is_positive: np.ndarray) -> keras.Model:
    """Return a model uint8 images -> float32 (images x windows, h, w).

    At each depth a model of its own, since layers of two members have the same names.
    """
    images = keras.Input(model.input_shape[1:], dtype="uint8")
    return keras.Model(images, _draw_of(model, images, is_positive))


def _draw_of(
    model: keras.Model, images: keras.KerasTensor, is_positive: np.ndarray
) -> keras.KerasTensor:
    if any(layer.name == "frozen" for layer in model.layers):
        features = model.get_layer("frozen")(images)
        return _average([draw(features) for draw in _list_networks(model, features, is_positive)])
    inner = list_models(model)
    if len(inner) > 1:  # members of an ensemble
        return _average([_draw(member, is_positive)(images) for member in inner])
    (only,) = inner
    draw = _draw(only, is_positive)
    if len(only.input_shape) < len(images.shape):  # it averages over windows
        return draw(keras.ops.reshape(images, (-1, *images.shape[2:])))
    if not any(layer.name == "mean_with_flipped" for layer in model.layers):
        return draw(images)
    flipped = draw(keras.ops.flip(images, axis=2))
    return _average([draw(images), keras.ops.flip(flipped, axis=2)])


def _list_networks(
    model: keras.Model, features: keras.KerasTensor, is_positive: np.ndarray
) -> Iterator[keras.Model]:
    """Yield of each tail and head that the model averages over: features at the cut -> map."""
    for part in (model, *list_models(model)):
        tails = [layer for layer in part.layers if layer.name.startswith("tail_and_pool")]
        heads = [layer for layer in part.layers if _is_head(layer)]
        for tail, head in product(tails, heads):
            at_cut = keras.Input(features.shape[1:])
            yield keras.Model(at_cut, _explain(tail, head, at_cut, is_positive))


def _explain(
    tail: keras.Model, head: keras.Model, at_cut: keras.KerasTensor, is_positive: np.ndarray
) -> keras.KerasTensor:
    """Return float32 (n, h, w): the share of each place, times the number of places."""
    ops, kernel = keras.ops, np.asarray(head.get_layer("probabilities").kernel)
    read = keras.Model(tail.input, [tail.get_layer("pool").input, tail.output])
    last, pooled = read(at_cut)
    probabilities = head(pooled)
    # The gradient of the log odds by the logits, then by what is pooled.
    of_positive, of_others = probabilities * is_positive, probabilities * (1 - is_positive)
    by_feature = ops.matmul(_normalise(of_positive) - _normalise(of_others), kernel.T)
    of_last = int(last.shape[-1])
    maps = _weigh(last, by_feature[:, -of_last:])
    if int(pooled.shape[-1]) == of_last:
        return maps
    channels = int(at_cut.shape[-1])
    mean, spread = pooled[:, :channels], pooled[:, channels : 2 * channels]
    cut = ops.cast(at_cut, "float32")
    by_mean, by_spread = by_feature[:, :channels], by_feature[:, channels : 2 * channels]
    # A place moves the spread by its distance from the mean.
    by_square = by_spread / spread
    of_cut = _weigh(cut * cut, by_square) + _weigh(cut, by_mean - by_square * mean)
    return _resize(maps, of_cut.shape[1:]) + of_cut


def _average(maps: Sequence[keras.KerasTensor]) -> keras.KerasTensor:
    finest = max((own.shape[1:] for own in maps), key=lambda shape: int(np.prod(shape)))
    return sum(_resize(own, finest) for own in maps) / len(maps)


def _normalise(shares: keras.KerasTensor) -> keras.KerasTensor:
    total = keras.ops.sum(shares, axis=-1, keepdims=True)
    return shares / keras.ops.maximum(total, _TINY)


def _weigh(features: keras.KerasTensor, weights: keras.KerasTensor) -> keras.KerasTensor:
    """Return (n, h, w): the sum over the channels of (n, h, w, channels), weighed (n, channels)."""
    return keras.ops.squeeze(keras.ops.matmul(features, weights[:, None, :, None]), axis=-1)


def _resize(maps: keras.KerasTensor, shape: Sequence[int]) -> keras.KerasTensor:
    """Return maps (n, h, w) on another grid."""
    if tuple(maps.shape[1:]) == tuple(shape):
        return maps
    resized = keras.ops.image.resize(maps[..., None], tuple(shape), interpolation="bilinear")
    return resized[..., 0]


def _is_head(layer: keras.Layer) -> bool:
    return isinstance(layer, keras.Model) and layer.name.startswith("head")


def _is_linear(head: keras.Model) -> bool:
    kinds = (keras.layers.InputLayer, keras.layers.Dropout)
    return all(isinstance(layer, kinds) or layer.name == "probabilities" for layer in head.layers)
