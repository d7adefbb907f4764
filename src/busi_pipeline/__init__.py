"""Breast-ultrasound classification by transfer learning, as a Kedro project."""

import os

# A hospital's machine reports to nobody unless somebody decides so: the libraries read these
# variables when they are imported, so they are set before anything else happens.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("KEDRO_DISABLE_TELEMETRY", "true")
# TensorFlow's start-up chatter hides the project's own lines; its errors still show.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

__version__ = "0.1.0"
