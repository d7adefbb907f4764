"""Augment a batch of images at once, on the device the network computes on."""

from typing import Any

import keras
import numpy as np


def apply_affine_batch(images: np.ndarray, inverses: np.ndarray, brightness: np.ndarray) -> Any:
    """Return uint8 (n, h, w, 3), on the device: what `apply_affine` makes of each image.

    Equal to it up to rounding; OpenCV weighs neighbours in steps of a thirty-second of a pixel.

    Args:
        images: uint8 (n, h, w, 3).
        inverses: float (n, 6), see `imaging.affine.invert_affine`.
        brightness: float (n,), the factor of each image.
    """
    a, b, c, d, e, f = np.asarray(inverses, dtype=np.float64).T
    none = np.zeros_like(a)
    transforms = np.stack([a, b, c, d, e, f, none, none], axis=1)
    moved = keras.ops.image.affine_transform(
        keras.ops.cast(images, "float32"),
        keras.ops.cast(transforms, "float32"),
        interpolation="bilinear",
        fill_mode="reflect",
        data_format="channels_last",
    )
    factors = keras.ops.cast(np.asarray(brightness)[:, None, None, None], "float32")
    brightened = keras.ops.round(keras.ops.round(moved) * factors)
    return keras.ops.cast(keras.ops.clip(brightened, 0.0, 255.0), "uint8")
