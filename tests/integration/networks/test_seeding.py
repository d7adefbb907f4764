"""What a thread builds depends on its own seed."""

import random
import threading

import keras
import numpy as np
import pytest

from busi_pipeline.models.seeding import seed_thread


def build() -> list[np.ndarray]:
    seed_thread(7)
    model = keras.Sequential(
        [keras.Input((4,)), *(keras.layers.Dense(4) for _ in range(20)), keras.layers.Dropout(0.5)]
    )
    dropout = model.layers[-1].seed_generator
    return [*model.get_weights(), np.asarray(dropout.state)]


def test_others_may_draw_while_a_network_is_built() -> None:
    """As threads of Dask's workers do."""
    keras.utils.set_random_seed(7)
    expected = build()
    done = threading.Event()

    def draw() -> None:
        while not done.is_set():
            random.random()

    other = threading.Thread(target=draw)
    other.start()
    try:
        for _ in range(3):
            for ours, theirs in zip(build(), expected, strict=True):
                np.testing.assert_array_equal(ours, theirs)
    finally:
        done.set()
        other.join()


def test_a_network_is_as_after_the_seed_of_keras(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was trained before stays what it was."""
    from keras.src.random import seed_generator

    ours = build()
    monkeypatch.setattr(seed_generator, "python_random", random)
    monkeypatch.setattr("tests.integration.networks.test_seeding.seed_thread", set_seed_of_keras)
    for own, theirs in zip(ours, build(), strict=True):
        np.testing.assert_array_equal(own, theirs)


def set_seed_of_keras(seed: int) -> None:
    keras.utils.set_random_seed(seed)
