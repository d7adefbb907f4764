"""What keeps long tests short, and changes nothing of what they find out."""

import gc
from collections.abc import Iterator

import matplotlib
import pytest


@pytest.fixture(scope="session", autouse=True)
def without_waiting() -> None:
    """Plots have few pixels; what is imported is not looked through for garbage each time."""
    import keras  # noqa: F401

    matplotlib.rcParams["savefig.dpi"] = 90
    gc.freeze()


@pytest.fixture(scope="module")
def eager() -> Iterator[None]:
    """Compute step by step: to trace a graph takes longer than a few batches of a tiny network.

    Runs of whole projects that do without it (test_training_run, test_tracking_server,
    test_command_line) compute as users' do.
    """
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)
