"""The localizer: where in an image the lesion is, and whether there is one.

A small decoder reads features of a frozen pretrained network at three depths (a feature pyramid,
Lin et al. 2017) and draws two maps. The first, learned from images with a lesion alone, says where
the lesion is. The second, learned from all images, says how sure that is. They are two, because a
network that learns from one site's images without a lesion comes to tell its sites apart by them:
elsewhere it finds nothing.

Keras is imported inside the functions: building the pipelines must not wait for TensorFlow.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

from busi_pipeline.errors import BadInputError
from busi_pipeline.imaging.crops import Window, find_lesion_box, place_in_image, show_whole
from busi_pipeline.imaging.decoding import UInt8Array
from busi_pipeline.models.backbones import BACKBONES, Backbone

if TYPE_CHECKING:
    import keras

# Pixels of the input for one of the maps, along a side.
STRIDE = 4
# Of the highest value in the map, from which pixels belong to a lesion where none reaches a half.
_RELATIVE = 0.5
_LIKELY = 0.5
# By which sure pixels count more than likely ones.
_POWER = 3
# Groups of channels that are normalised together.
_GROUPS = 8
# How many pixels are expected to be of a lesion before anything is learned: one in eight.
_FIRST_LOGIT = -2.0


class FoundLesion(NamedTuple):
    """What a localizer says of an image.

    Attributes:
        box: around the lesion, in pixels of the localizer's input.
        confidence: that there is a lesion at all, 0 to 1.
        mask: bool (size, size), the lesion.
    """

    box: Window
    confidence: float
    mask: np.ndarray


def build_pyramid(
    backbone: Backbone, size: int, channels: int, weights: str | None
) -> "keras.Model":
    """Return the frozen part: uint8 (n, size, size) grey -> float16 (n, features), all depths flat.

    Each depth is projected on `channels` random directions, the same for every model of a backbone:
    what a decoder needs is kept (Johnson and Lindenstrauss 1984), and a twentieth of the space.

    Raises BadInputError where the backbone names no layers for it, or the size does not fit.
    """
    import keras

    if backbone.pyramid is None:
        known = ", ".join(name for name, entry in BACKBONES.items() if entry.pyramid)
        raise BadInputError(
            f"localization.backbones must have a pyramid ({known}); got {backbone.builder}."
        )
    if size % 32:
        raise BadInputError(f"localization.image_size must be a multiple of 32; got {size}.")
    from busi_pipeline.models.network import build_base, normalise_pixels

    base = build_base(backbone, weights, size)
    base.trainable = False
    depths = keras.Model(base.input, [base.get_layer(name).output for name in backbone.pyramid])
    grey = keras.Input((size, size), dtype="uint8", name="grey")
    colour = keras.ops.repeat(keras.ops.expand_dims(grey, -1), 3, axis=-1)
    flat = []
    for depth, features in enumerate(depths(normalise_pixels(colour, backbone.preprocessing))):
        projected = keras.layers.Conv2D(
            channels,
            1,
            use_bias=False,
            kernel_initializer=keras.initializers.Orthogonal(seed=depth),
            trainable=False,
            name=f"projection_{depth}",
        )(_normalise_channels(features))
        flat.append(keras.layers.Flatten()(projected))
    joined = keras.layers.Concatenate(dtype="float16", name="pyramid")(flat)
    return keras.Model(grey, joined, name="pyramid")


def _normalise_channels(features: "keras.KerasTensor") -> "keras.KerasTensor":
    import keras

    return keras.layers.LayerNormalization(center=False, scale=False)(features)


def build_decoder(size: int, channels: int, width: int, dropout: float) -> "keras.Model":
    """Return the part that learns: features of `build_pyramid` -> float32 (n, h, w, 2), two maps.

    Height and width of the maps are a fourth of the input's.

    Args:
        size: of the localizer's input.
        channels: of the pyramid, at each depth.
        width: of the decoder, channels; a multiple of 8.
        dropout: share of the pyramid's channels that is left out in training.
    """
    import keras
    from keras import layers

    sides = [size // stride for stride in (8, 16, 32)]
    lengths = [side * side * channels for side in sides]
    flat = keras.Input((sum(lengths),), dtype="float16", name="features")
    values = layers.Identity(dtype="float32")(flat)
    depths = []
    for start, length, side in zip(np.cumsum([0, *lengths]).tolist(), lengths, sides, strict=False):
        depth = layers.Reshape((side, side, channels))(values[:, start : start + length])
        depths.append(_convolve(layers.SpatialDropout2D(dropout)(depth), width, 1))
    below = _convolve(depths[2], width, 3)
    for depth in (depths[1], depths[0]):
        enlarged = layers.UpSampling2D(2, interpolation="bilinear")(below)
        below = _convolve(layers.Add()([depth, enlarged]), width, 3)
    drawn = _convolve(layers.UpSampling2D(2, interpolation="bilinear")(below), width // 2, 3)
    maps = layers.Conv2D(
        2,
        1,
        activation="sigmoid",
        bias_initializer=keras.initializers.Constant(_FIRST_LOGIT),
        name="maps",
    )(drawn)
    return keras.Model(flat, maps, name="decoder")


def _convolve(values: "keras.KerasTensor", width: int, kernel: int) -> "keras.KerasTensor":
    from keras import layers

    drawn = layers.Conv2D(width, kernel, padding="same", use_bias=False)(values)
    return layers.Activation("relu")(layers.GroupNormalization(_GROUPS)(drawn))


def join_localizer(
    parts: "Sequence[tuple[keras.Model, Sequence[keras.Model]]]",
) -> "keras.Model":
    """Return the whole: uint8 (n, size, size) grey -> float32 (n, size / 4, size / 4, 2).

    Args:
        parts: pyramids of several backbones, each with its decoders, as many as the others.

    The maps are the mean over the decoders, and over the image and its horizontal flip.
    """
    import keras

    grey = keras.Input(parts[0][0].input_shape[1:], dtype="uint8", name="grey")
    flipped_grey = keras.ops.flip(grey, axis=2)
    maps = []
    for place, (pyramid, decoders) in enumerate(parts):
        pyramid.name = f"pyramid_{place}"
        for number, decoder in enumerate(decoders):
            decoder.name = f"decoder_{place}_{number}"
        as_it_is, flipped = pyramid(grey), pyramid(flipped_grey)
        maps += [decoder(as_it_is) for decoder in decoders]
        maps += [keras.ops.flip(decoder(flipped), axis=2) for decoder in decoders]
    mean = keras.layers.Average(name="mean_maps", dtype="float32")(maps)
    return keras.Model(grey, mean, name="localizer")


def measure_loss(drawn: "keras.KerasTensor", maps: "keras.KerasTensor") -> "keras.KerasTensor":
    """Return the loss of maps (n, h, w, 2) against the lesions drawn by readers (n, h, w, 1).

    The first map: cross-entropy and one minus Dice's coefficient, over the images with a lesion.
    The second: cross-entropy over all images.
    """
    import keras
    from keras import ops

    drawn = ops.cast(drawn, "float32")
    where, sure = maps[..., :1], maps[..., 1:]
    has_lesion = ops.cast(ops.max(drawn, axis=(1, 2, 3)) > 0, "float32")
    entropy = ops.mean(keras.losses.binary_crossentropy(drawn, where), axis=(1, 2))
    common = ops.sum(drawn * where, axis=(1, 2, 3))
    total = ops.sum(drawn, axis=(1, 2, 3)) + ops.sum(where, axis=(1, 2, 3))
    of_lesions = entropy + 1 - (2 * common + 1) / (total + 1)
    mean = ops.sum(has_lesion * of_lesions) / ops.maximum(ops.sum(has_lesion), 1.0)
    return mean + ops.mean(keras.losses.binary_crossentropy(drawn, sure))


def find_lesion(maps: np.ndarray) -> FoundLesion:
    """Return the likeliest lesion in float (h, w, 2) of a localizer.

    The mean of both maps is enlarged to the input's size, linearly. Of the connected pixels above a
    half (or above half of the highest value, where none is), those whose third powers have the
    highest sum are the lesion: a small part that is sure counts more than a large one that is not.
    The highest value of the second map is the confidence.
    """
    small, sure = maps.mean(axis=-1).astype(np.float32), maps[..., 1]
    height, width = (STRIDE * side for side in small.shape)
    where = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    likely = (where >= min(_LIKELY, _RELATIVE * where.max())).astype(np.uint8)
    count, parts = cv2.connectedComponents(likely, connectivity=8)
    sums = np.bincount(parts.ravel(), weights=where.ravel() ** _POWER, minlength=count)
    mask = parts == 1 + int(np.argmax(sums[1:]))
    box = find_lesion_box(mask)
    assert box is not None, "the highest pixel is always likely"
    return FoundLesion(box, float(sure.max()), mask)


def average_flipped(maps: np.ndarray, flipped: np.ndarray) -> np.ndarray:
    """Return the mean of maps (n, h, w, 2) and of those of the horizontally flipped images."""
    return (maps + flipped[:, :, ::-1]) / 2


def locate_lesion(
    draw_maps: Callable[[UInt8Array], np.ndarray], size: int, pixels: UInt8Array
) -> tuple[Window, float]:
    """Return the box of the likeliest lesion, and the confidence that there is one.

    Args:
        draw_maps: uint8 (n, size, size) -> maps, as the model of `join_localizer` does.
        size: of what it sees.
        pixels: uint8 (h, w, 3) RGB.

    The box is in pixels of the image.
    """
    shown, window = show_whole(pixels, size)
    found = find_lesion(np.asarray(draw_maps(shown[None]))[0])
    return place_in_image(found.box, window, size), found.confidence
