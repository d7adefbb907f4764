"""Breast-ultrasound classification by transfer learning, as a Kedro project."""

import os

from busi_pipeline.quiet_tensorflow import hush_tensorflow


def switch_off_telemetry() -> None:
    """Let Kedro, Kedro-Viz and MLflow report to nobody, here and in processes started from here.

    A variable that is set already stays: a hospital's machine reports if somebody decides so. Kedro
    calls this in any folder, in one without a project as well: see `kedro.init` in pyproject.toml.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("KEDRO_DISABLE_TELEMETRY", "true")


# The libraries read these variables when they are imported, so they are set before anything else.
switch_off_telemetry()
# MLflow draws a bar while it copies the few files of a package.
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
# TensorFlow's messages hide the project's own lines, those of its errors included: that there is no
# CUDA, say. What fails raises an exception as well.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
hush_tensorflow()
# The project is written for Keras 3 on TensorFlow, whatever else on the machine is not.
if os.environ.get("BUSI_ALLOW_BACKEND") != "1":
    os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["TF_USE_LEGACY_KERAS"] = "0"

__version__ = "0.3.0"
