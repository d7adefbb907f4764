"""Settings of Keras that come from elsewhere on the machine and would change every result."""

import os

from busi_pipeline.errors import BadInputError

# Nodes with these tags compute with Keras.
KERAS_STAGES = frozenset(
    {
        "feature_extraction",
        "training",
        "evaluation",
        "explanation",
        "cross_validation",
        "leakage",
        "bias_audit",
        "external_validation",
        "adaptation",
    }
)


def check_keras() -> None:
    """Give Keras the settings that this project is written for, whatever keras.json says.

    Channels come last, numbers are float32, epsilon is 1e-7, no epoch or step is cut off
    (KERAS_MAX_EPOCHS). Call it before any network is built. Imports Keras.

    Raises BadInputError, one line, where Keras computes with another library than TensorFlow.
    `BUSI_ALLOW_BACKEND=1` allows it, for the benchmark of one training on other backends.
    """
    import keras

    backend = keras.config.backend()
    if backend != "tensorflow" and os.environ.get("BUSI_ALLOW_BACKEND") != "1":
        raise BadInputError(
            f"Keras must run on TensorFlow; it was loaded with {backend!r} before this project. "
            "Import busi_pipeline before keras, or unset KERAS_BACKEND."
        )
    keras.config.set_image_data_format("channels_last")
    keras.config.set_floatx("float32")
    keras.config.set_epsilon(1e-7)
    keras.config.set_max_epochs(None)
    keras.config.set_max_steps_per_epoch(None)
