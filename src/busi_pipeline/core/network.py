"""One classifier in two pieces that share their layers: what stays frozen and what is trained.

The whole takes raw uint8 RGB and gives probabilities, so that training, evaluation and serving
cannot disagree about preprocessing. As long as a part is frozen, its output for a given view of an
image never changes; cutting the network there lets that output be computed once.
"""

from typing import NamedTuple, Protocol

import keras

from busi_pipeline.backbones import Preprocessing, get_backbone


class HeadShape(Protocol):
    """What the head is made of; `experiments.HeadSettings` fits."""

    @property
    def dense_units(self) -> int: ...

    @property
    def batch_normalization(self) -> bool: ...

    @property
    def dropout(self) -> float: ...


class Network(NamedTuple):
    """Models over the same layers.

    Attributes:
        full: uint8 (n, size, size, 3) RGB, 0-255 -> float32 (n, classes) probabilities.
        frozen: the same images -> features at the cut.
        tail: features at the cut -> float32 (n, channels) pooled features.
        head: pooled features -> probabilities.
        trainable: features at the cut -> probabilities; `tail` and `head` together.
    """

    full: keras.Model
    frozen: keras.Model
    tail: keras.Model
    head: keras.Model
    trainable: keras.Model


def build_network(
    backbone: str,
    image_size: int,
    tail_after: str,
    head: HeadShape,
    classes: int,
    weights: str | None,
) -> Network:
    """Build the network under the current Keras dtype policy.

    Args:
        backbone: a row of `backbones.py`.
        image_size: height and width of the input.
        tail_after: name of the layer at whose output the network is cut.
        head: shape of the classifier on the pooled features.
        classes: number of probabilities.
        weights: `"imagenet"`, the path of a weights file, or None for random weights.

    BatchNormalization of a pretrained base stays in inference mode: some hundred images would
    destroy its statistics (https://keras.io/guides/transfer_learning/). A base without pretrained
    weights has no statistics to protect, so there it learns them.

    Raises ValueError where `tail_after` is no layer, or not the only way through the network.
    """
    row = get_backbone(backbone)
    base = getattr(keras.applications, row.builder)(
        include_top=False, weights=weights, input_shape=(image_size, image_size, 3)
    )
    trunk, base_tail = _cut_base(base, tail_after)
    pretrained = weights is not None
    trunk.trainable = False
    for layer in base_tail.layers:
        if pretrained and isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False

    images = keras.Input((image_size, image_size, 3), dtype="uint8", name="image")
    normalised = _normalise(images, row.preprocessing)
    features = trunk(normalised, training=False)
    frozen = keras.Model(images, features, name="frozen")

    at_cut = keras.Input(base_tail.input.shape[1:], name="features")
    inference = {"training": False} if pretrained else {}
    pooled = keras.layers.GlobalAveragePooling2D(dtype="float32", name="pool")(
        base_tail(at_cut, **inference)
    )
    tail = keras.Model(at_cut, pooled, name="tail_and_pool")
    head_model = _build_head(int(pooled.shape[-1]), head, classes)
    trainable = keras.Model(at_cut, head_model(tail(at_cut)), name="trainable")
    full = keras.Model(images, head_model(tail(features)), name=backbone)
    return Network(full, frozen, tail, head_model, trainable)


def _cut_base(base: keras.Model, tail_after: str) -> tuple[keras.Model, keras.Model]:
    names = [layer.name for layer in base.layers]
    if tail_after not in names:
        raise ValueError(
            f"tail_after must be a layer of {base.name}; got {tail_after!r}. "
            f"Its last layers are {names[-12:]}."
        )
    cut = base.get_layer(tail_after).output
    trunk = keras.Model(base.input, cut, name="trunk")
    try:
        tail = keras.Model(cut, base.output, name="tail")
    except ValueError:
        raise ValueError(
            f"tail_after={tail_after!r} is not the only way through {base.name}: a connection "
            "skips it. Name a layer where branches meet (the output of a block)."
        ) from None
    return trunk, tail


def _normalise(images: keras.KerasTensor, preprocessing: Preprocessing) -> keras.KerasTensor:
    """`preprocess_input` of keras.applications as layers that load without this package."""
    if preprocessing.order == "bgr":
        images = keras.ops.flip(images, axis=-1)
    return keras.layers.Rescaling(
        list(preprocessing.scale), list(preprocessing.offset), dtype="float32", name="normalise"
    )(images)


def _build_head(channels: int, head: HeadShape, classes: int) -> keras.Model:
    vectors = keras.Input((channels,), name="pooled")
    x = vectors
    if head.dense_units:
        x = keras.layers.Dense(head.dense_units, activation="relu", dtype="float32")(x)
    if head.batch_normalization:
        x = keras.layers.BatchNormalization(dtype="float32")(x)
    x = keras.layers.Dropout(head.dropout, dtype="float32")(x)
    probabilities = keras.layers.Dense(
        classes, activation="softmax", dtype="float32", name="probabilities"
    )(x)
    return keras.Model(vectors, probabilities, name="head")
