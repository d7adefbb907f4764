"""What a thread builds depends on its own seed."""

import json
import random
import subprocess
import sys
import threading

import keras
import numpy as np

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


def test_a_network_is_as_after_the_seed_of_keras() -> None:
    """What was trained before stays what it was: Keras alone, in a process of its own."""
    ours = build()
    alone = "; ".join(
        (
            "import json, keras",
            "keras.utils.set_random_seed(7)",
            "layers = [keras.layers.Dense(4) for _ in range(20)]",
            "model = keras.Sequential([keras.Input((4,)), *layers, keras.layers.Dropout(0.5)])",
            "print(json.dumps([w.tolist() for w in model.get_weights()]))",
        )
    )
    done = subprocess.run([sys.executable, "-c", alone], capture_output=True, text=True, check=True)
    theirs = json.loads(done.stdout.splitlines()[-1])
    for own, other in zip(ours[:-1], theirs, strict=True):
        np.testing.assert_array_equal(own, np.asarray(other, dtype=own.dtype))


def test_the_seed_of_keras_works_after_it() -> None:
    """As in a notebook, where a run came before."""
    seed_thread(3)
    built = []
    for _ in range(2):
        keras.utils.set_random_seed(7)
        built.append((keras.layers.Dense(4)(np.ones((1, 4))), random.random()))
    np.testing.assert_array_equal(built[0][0], built[1][0])
    assert built[0][1] == built[1][1]
