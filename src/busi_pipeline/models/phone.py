"""From a Keras model to a LiteRT file for phones, with weights of half precision or 8 bits."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from busi_pipeline.errors import BadInputError

if TYPE_CHECKING:
    import keras

# Beyond it, a weight of the head is brought below what half precision holds (65,504).
_LARGEST_WEIGHT = 32_768.0


def export_litert(model: "keras.Model", weights: Literal["half", "int8"]) -> bytes:
    """Return a LiteRT file, by Keras' own export.

    Args:
        model: a classifier as delivered, or a localizer.
        weights: `half`: all in half precision; `int8`: those of convolutions in 8-bit integers, a
            scale each channel, and the heads in single precision. Both compute in single precision
            what the phone cannot do otherwise.
    """
    import keras
    import tensorflow as tf

    # A dense layer would be quantized with one scale for what its inputs are, too; sums are not.
    copy = keras.models.clone_model(model, clone_function=_copy_layer, recursive=True)
    copy.set_weights(model.get_weights())
    types: dict[str, Any] = {"supported_types": [tf.float16] if weights == "half" else []}
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        copy.export(
            path,
            format="litert",
            verbose=False,
            optimizations=[tf.lite.Optimize.DEFAULT],
            target_spec=types,
        )
        return path.read_bytes()


def _copy_layer(layer: "keras.Layer") -> "keras.Layer":
    import keras

    if not isinstance(layer, keras.layers.Dense):
        return layer.__class__.from_config(layer.get_config())
    scale = max(1.0, float(np.abs(np.asarray(layer.kernel)).max()) / _LARGEST_WEIGHT)
    return _make_sum(layer, scale)


def _make_sum(layer: "keras.layers.Dense", scale: float) -> "keras.Layer":
    """Return a layer with the same weights that multiplies and adds."""
    import keras

    class Sum(keras.layers.Dense):
        def call(self, inputs: Any, training: bool | None = None) -> Any:
            products = inputs[:, :, None] * (self.kernel / scale)
            total = keras.ops.sum(products, axis=1) * scale
            return self.activation(total + self.bias)

    return Sum.from_config(layer.get_config())


class LitertClassifier:
    """A classifier in a LiteRT file, computed as a phone would, on one core."""

    def __init__(self, content: bytes):
        """Load it; raises BadInputError where LiteRT is not installed."""
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError:
            raise BadInputError(
                "packaging.phone compares the file with Keras, by LiteRT: "
                'pip install "busi_pipeline[phone]".'
            ) from None
        self._ask = Interpreter(model_content=content, num_threads=1).get_signature_runner()
        (self._input,) = self._ask.get_input_details()

    def classify(self, shown: np.ndarray) -> Mapping[str, np.ndarray]:
        """Return `probabilities`, `positive_score` and `flagged`; see models.reading.Networks."""
        answers = [self._ask(**{self._input: one[None]}) for one in shown]
        return {name: np.concatenate([own[name] for own in answers]) for name in answers[0]}
