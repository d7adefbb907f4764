"""Several devices give what one gives; a batch is as large as the memory allows."""

import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from busi_pipeline import device
from busi_pipeline.models.network import count_activations

FIT_ON_VIRTUAL_DEVICES = """
import json, sys
import keras, numpy as np, tensorflow as tf
from busi_pipeline.learning.fitting import LabelledRows, TrainingData, fit_phase
from busi_pipeline.learning.device import spread_over
from busi_pipeline.config.experiments import PhaseSettings

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
labels = np.arange(60) % 3
views = np.random.default_rng(0).normal(size=(60, 4, 4, 8)) + labels[:, None, None, None]
training_data = TrainingData(
    LabelledRows(np.arange(48)[:, None], labels[:48]),
    LabelledRows(np.arange(48, 60)[:, None], labels[48:]),
    np.array([1.0, 2.0, 0.5]),
    0.1,
)
phase = PhaseSettings.model_validate_json(sys.argv[1])
histories = []
for devices in (["CPU:0"], ["CPU:0", "CPU:1"]):
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
        histories.append(fit_phase("both", model, views, training_data, phase, seed=3).history)
print(json.dumps(histories))
"""


@pytest.mark.parametrize("ema_momentum", [0.0, 0.9])
def test_two_devices_give_the_losses_of_one(ema_momentum: float) -> None:
    phase = {
        "epochs": 3,
        "batch_size": 16,
        "patience": 3,
        "augmented_per_epoch": 1,
        "optimizer": {
            "name": "adamw",
            "learning_rate": 0.01,
            "weight_decay": 0.01,
            "momentum": 0,
            "ema_momentum": ema_momentum,
            "schedule": "cosine",
            "plateau_patience": 3,
            "plateau_factor": 0.2,
        },
    }
    done = subprocess.run(
        [sys.executable, "-c", FIT_ON_VIRTUAL_DEVICES, json.dumps(phase)],
        capture_output=True,
        text=True,
        check=True,
    )
    one, two = json.loads(done.stdout.splitlines()[-1])
    for curve in ("loss", "val_loss"):
        np.testing.assert_allclose(two[curve], one[curve], rtol=1e-4)
    assert one["loss"][-1] < one["loss"][0]


@pytest.fixture
def model() -> keras.Model:
    return keras.Sequential(
        [keras.Input((10, 10, 3)), keras.layers.Conv2D(8, 3), keras.layers.GlobalMaxPooling2D()]
    )


def test_activations_are_counted_in_bytes(model: keras.Model) -> None:
    assert count_activations(model) == 4 * (8 * 8 * 8 + 8)


def test_batch_grows_with_the_memory_of_a_gpu(
    model: keras.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert device.choose_batch_size(7, model) == 7
    assert device.choose_batch_size("auto", model) == 32
    monkeypatch.setattr(device, "list_gpus", lambda: ["GPU:0"])
    for images, expected in ((10**9, 256), (150, 128), (128, 128), (127, 64), (0, 1)):
        memory = 2 * images * count_activations(model)
        monkeypatch.setattr(device, "_read_gpu_memory", lambda memory=memory: memory)
        assert device.choose_batch_size("auto", model) == expected, images


@pytest.mark.skipif(sys.platform == "win32", reason="stands in for a program by a shell script")
def test_memory_is_that_of_the_smallest_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert device._read_gpu_memory() == 8 * 2**30
    assert "nvidia-smi is not there" in caplog.text
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 16384\necho 8192\n")
    program.chmod(0o755)
    assert device._read_gpu_memory() == 8192 * 2**20
