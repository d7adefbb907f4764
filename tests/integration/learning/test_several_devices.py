"""Several devices give what one gives: each batch is split between them."""

import json
import subprocess
import sys

import numpy as np

from tests.learning_factories import make_phase

# In a process of its own: the devices of TensorFlow cannot be changed once it runs.
FIT_ON_VIRTUAL_DEVICES = """
import json, sys
import keras, tensorflow as tf
from busi_pipeline.config.schemas import PhaseSettings
from busi_pipeline.learning.device import spread_over
from busi_pipeline.learning.fitting import fit_phase
from busi_pipeline.learning.training_data import LabelledRows, TrainingData
import numpy as np

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
labels = np.arange(60) % 3
values = np.random.default_rng(0).normal(size=(60, 4, 4, 8)) + labels[:, None, None, None]
data = TrainingData(
    LabelledRows(np.arange(48)[:, None], labels[:48]),
    LabelledRows(np.arange(48, 60)[:, None], labels[48:]),
    np.array([1.0, 2.0, 0.5]),
    0.1,
)


def fit(phase, devices):
    keras.utils.set_random_seed(1)
    with spread_over(devices):
        model = keras.Sequential(
            [
                keras.Input((4, 4, 8)),
                keras.layers.Conv2D(8, 3, activation="relu"),
                keras.layers.GlobalAveragePooling2D(),
                keras.layers.Dense(3, activation="softmax"),
            ]
        )
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        history = fit_phase("both", model, values, data, phase, seed=3).history
        return {"replicas": replicas, **history}


phases = [PhaseSettings.model_validate_json(text) for text in sys.argv[1:]]
all_devices = (["CPU:0"], ["CPU:0", "CPU:1"])
print(json.dumps([[fit(phase, devices) for devices in all_devices] for phase in phases]))
"""


def test_two_devices_give_the_losses_of_one() -> None:
    phases = [
        make_phase(
            epochs=3,
            patience=3,
            name="adamw",
            learning_rate=0.01,
            weight_decay=0.01,
            ema_momentum=ema_momentum,
            schedule="cosine",
        ).model_dump_json()
        for ema_momentum in (0.0, 0.9)
    ]
    done = subprocess.run(
        [sys.executable, "-c", FIT_ON_VIRTUAL_DEVICES, *phases],
        capture_output=True,
        text=True,
        check=True,
    )
    plain, averaged = json.loads(done.stdout.splitlines()[-1])
    for one, two in (plain, averaged):
        assert (one["replicas"], two["replicas"]) == (1, 2)
        for curve in ("loss", "val_loss", "val_cross_entropy"):
            np.testing.assert_allclose(two[curve], one[curve], rtol=1e-4)
        assert one["loss"][-1] < one["loss"][0]
    assert averaged[0]["val_loss"] != plain[0]["val_loss"]
