"""From the trained network to the model that is handed over."""

from collections.abc import Sequence

import keras
import numpy as np

_TINY = 1e-7  # as in calibration.apply_calibration


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
