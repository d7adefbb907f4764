"""From the trained network to the model that is handed over."""

from collections.abc import Sequence

import keras
import numpy as np

from .network import Network

_TINY = 1e-7  # as in calibration.apply_calibration


def average_start(tuned: Network, start: Network) -> keras.Model:
    """Return a model that averages what `tuned` and `start` say of an image.

    Fine-tuning on a few hundred images gains something and forgets something; the mean of both
    sides ranks better than either (docs/results.md). Source: Wortsman et al. 2022, "Robust
    fine-tuning of zero-shot models", output-space ensembling.

    Args:
        tuned, start: the same network after and before its fine-tuning. Their frozen parts are
            equal: that of `tuned` computes the features at the cut for both. Layers are shared.

    Returns uint8 (n, size, size, 3) -> float32 (n, classes).
    """
    start.trainable.name = "start"
    images = keras.Input(tuned.full.input_shape[1:], dtype="uint8", name="image")
    features = tuned.frozen(images)
    probabilities = keras.layers.Average(name="mean_with_start", dtype="float32")(
        [tuned.trainable(features), start.trainable(features)]
    )
    return keras.Model(images, probabilities, name=f"{tuned.full.name}_and_start")


def calibrate(network: keras.Model, temperature: float, offsets: Sequence[float]) -> keras.Model:
    """Return the network with its probabilities calibrated inside.

    Args:
        network: uint8 (n, size, size, 3) -> float32 (n, classes) probabilities; its layers are
            shared, not copied.
        temperature, offsets: see calibration.Calibration.
    """
    images = keras.Input(network.input_shape[1:], dtype="uint8", name="image")
    logits = keras.ops.log(keras.ops.clip(network(images), _TINY, 1.0)) / temperature
    logits = logits + np.array(offsets, dtype="float32")
    probabilities = keras.layers.Softmax(dtype="float32", name="calibrated")(logits)
    return keras.Model(images, probabilities, name=f"{network.name}_calibrated")
