"""Breast-ultrasound classification by transfer learning, as a Kedro project."""

import os

# The libraries read these variables when they are imported, so they are set before anything else.
# A hospital's machine reports to nobody unless somebody decides so.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("KEDRO_DISABLE_TELEMETRY", "true")
# TensorFlow's start-up messages hide the project's own lines; its errors still show.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# The project is written for Keras 3 on TensorFlow, whatever else on the machine is not.
if os.environ.get("BUSI_ALLOW_BACKEND") != "1":
    os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["TF_USE_LEGACY_KERAS"] = "0"

__version__ = "0.3.0"
