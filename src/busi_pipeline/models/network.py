"""One classifier in two parts that share their layers: what stays frozen and what is trained.

The whole takes raw uint8 RGB and gives probabilities, so that training, evaluation and serving
cannot disagree about preprocessing. As long as a part is frozen, its output for a given augmented
image never changes; cutting the network there lets that output be computed once.
"""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import keras
import numpy as np

from busi_pipeline.errors import BadInputError
from busi_pipeline.models.backbones import Backbone, Preprocessing

from .batch_norm_folding import fold_batch_normalization

# NumPy knows no bfloat16; what it takes is what float16 takes.
_WIDTHS = {"bfloat16": "float16"}
# Keeps the gradient of a standard deviation finite where a channel is silent.
_NO_SPREAD = 1e-6


class HeadShape(Protocol):
    """What the head is made of; `config.schemas.HeadSettings` fits."""

    @property
    def dense_units(self) -> int: ...

    @property
    def batch_normalization(self) -> bool: ...

    @property
    def batch_normalization_momentum(self) -> float: ...

    @property
    def dropout(self) -> float: ...

    @property
    def pool_intermediate(self) -> bool: ...


class Network(NamedTuple):
    """Models over the same layers.

    Attributes:
        full: uint8 (n, size, size, 3) RGB, 0-255 -> float32 (n, classes) probabilities.
        frozen: the same images -> features at the cut.
        tail: features at the cut -> float32 (n, channels) pooled features: the mean of the last
            ones; before it, where the head asks for it, mean and standard deviation of those at
            the cut.
        head: pooled features -> probabilities.
        trainable: features at the cut -> probabilities; `tail` and `head` together.
    """

    full: keras.Model
    frozen: keras.Model
    tail: keras.Model
    head: keras.Model
    trainable: keras.Model


def build_base(backbone: Backbone, weights: str | None, image_size: int) -> keras.Model:
    """Return a backbone of keras.applications without its top.

    Args:
        backbone: which one.
        weights: `"imagenet"`, the path of a weights file, or None for random weights.
        image_size: height and width of its input, in pixels.

    Raises BadInputError, one line, where the file holds the weights of another network.
    """
    try:
        return getattr(keras.applications, backbone.builder)(
            include_top=False, weights=weights, input_shape=(image_size, image_size, 3)
        )
    except (ValueError, KeyError, OSError) as error:
        if weights in (None, "imagenet"):
            raise
        reason = str(error).strip().splitlines()[0]
        raise BadInputError(
            f"{weights} does not hold the weights of {backbone.builder} ({reason}): get the right "
            "file, or choose training.weights 'imagenet' or 'none'."
        ) from None


def build_network(
    name: str,
    backbone: Backbone,
    image_size: int,
    freeze_until: str,
    truncate_at: str | None,
    head: HeadShape,
    classes: int,
    weights: str | None,
) -> Network:
    """Build the network under the current Keras dtype policy.

    Args:
        name: of the network.
        backbone: an entry of `backbones.py`.
        image_size: height and width of the input.
        freeze_until: name of the layer at whose output the network is cut.
        truncate_at: name of the layer whose output is pooled; None for the last.
        head: shape of the classifier on the pooled features.
        classes: number of probabilities.
        weights: `"imagenet"`, the path of a weights file, or None for random weights.

    BatchNormalization of the base stays in inference mode: some hundred images would destroy its
    statistics (https://keras.io/guides/transfer_learning/). In the frozen part it is folded into
    the convolutions.

    Raises BadInputError where `freeze_until` or `truncate_at` is no layer, or `freeze_until` is not
    the only way through the network.
    """
    base = build_base(backbone, weights, image_size)
    if truncate_at is not None:
        base = keras.Model(base.input, _get_layer(base, truncate_at, "truncate_at").output)
    trunk, base_tail = _cut_base(base, freeze_until)
    trunk = fold_batch_normalization(trunk)
    trunk.trainable = False
    for layer in base_tail.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False

    pixels = keras.Input((image_size, image_size, 3), dtype="uint8", name="pixels")
    normalised = normalise_pixels(pixels, backbone.preprocessing)
    frozen = keras.Model(pixels, trunk(normalised, training=False), name="frozen")

    at_cut = keras.Input(base_tail.input.shape[1:], name="features")
    pooled = _pool(at_cut, base_tail(at_cut, training=False), head.pool_intermediate)
    tail = keras.Model(at_cut, pooled, name="tail_and_pool")
    head_model = _build_head(int(pooled.shape[-1]), head, classes)
    trainable = keras.Model(at_cut, head_model(tail(at_cut)), name="trainable")
    images = keras.Input((image_size, image_size, 3), dtype="uint8", name="image")
    full = keras.Model(images, head_model(tail(frozen(images))), name=name)
    return Network(full, frozen, tail, head_model, trainable)


def count_operations(model: keras.Model) -> int:
    """Return the floating-point operations for one image, forward, a multiplication and an addition
    counting as two.

    Of convolutions and dense layers; everything else is below a hundredth of them.
    """
    return sum(
        2 * int(np.prod(layer.output.shape[1:])) * int(np.prod(layer.kernel.shape[:-1]))
        for layer in _list_layers(model)
        if isinstance(layer, keras.layers.Conv2D | keras.layers.Dense)
    )


def count_activations(model: keras.Model) -> int:
    """Return the bytes that all outputs of the layers take together for one image."""
    return sum(
        int(np.prod(output.shape[1:])) * np.dtype(_WIDTHS.get(output.dtype, output.dtype)).itemsize
        for layer in _list_layers(model)
        for output in keras.tree.flatten(layer.output)
    )


def _list_layers(model: keras.Model) -> Iterator[keras.Layer]:
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _list_layers(layer)
        else:
            yield layer


def _get_layer(base: keras.Model, name: str, setting: str) -> keras.Layer:
    names = [layer.name for layer in base.layers]
    if name not in names:
        raise BadInputError(
            f"{setting} must be a layer of the base; got {name!r}. "
            f"Its last layers are {names[-12:]}."
        )
    return base.get_layer(name)


def _cut_base(base: keras.Model, freeze_until: str) -> tuple[keras.Model, keras.Model]:
    cut = _get_layer(base, freeze_until, "freeze_until").output
    trunk = keras.Model(base.input, cut, name="trunk")
    try:
        tail = keras.Model(cut, base.output, name="tail")
    except ValueError:
        raise BadInputError(
            f"freeze_until={freeze_until!r} is not the only way through {base.name}: a connection "
            "skips it. Name a layer where branches meet (the output of a block)."
        ) from None
    return trunk, tail


def normalise_pixels(images: keras.KerasTensor, preprocessing: Preprocessing) -> keras.KerasTensor:
    """Apply `preprocess_input` of keras.applications, as layers that load without this package."""
    if preprocessing.order == "bgr":
        images = keras.ops.flip(images, axis=-1)
    return keras.layers.Rescaling(
        list(preprocessing.scale), list(preprocessing.offset), dtype="float32", name="normalise"
    )(images)


def _pool(
    at_cut: keras.KerasTensor, last: keras.KerasTensor, pool_intermediate: bool
) -> keras.KerasTensor:
    """Mean of the last features; with mean and spread of those at the cut, if it is asked for."""
    mean = keras.layers.GlobalAveragePooling2D(dtype="float32", name="pool")(last)
    if not pool_intermediate:
        return mean
    cut = keras.layers.Identity(dtype="float32", name="cut")(at_cut)  # casts
    cut_mean = keras.layers.GlobalAveragePooling2D(dtype="float32", name="pool_intermediate")(cut)
    spread = keras.ops.sqrt(keras.ops.var(cut, axis=(1, 2)) + _NO_SPREAD)
    return keras.layers.Concatenate(dtype="float32", name="pooled")([cut_mean, spread, mean])


def _build_head(channels: int, head: HeadShape, classes: int) -> keras.Model:
    vectors = keras.Input((channels,), name="pooled")
    x = vectors
    if head.dense_units:
        x = keras.layers.Dense(head.dense_units, activation="relu", dtype="float32")(x)
    if head.batch_normalization:
        x = keras.layers.BatchNormalization(
            momentum=head.batch_normalization_momentum, dtype="float32"
        )(x)
    x = keras.layers.Dropout(head.dropout, dtype="float32")(x)
    probabilities = keras.layers.Dense(
        classes, activation="softmax", dtype="float32", name="probabilities"
    )(x)
    return keras.Model(vectors, probabilities, name="head")
