"""The device: its precision, and batches as large as its memory allows."""

import sys
from pathlib import Path

import keras
import pytest

from busi_pipeline.learning import device
from busi_pipeline.learning.device import choose_batch_size, dtype_policy, prepare_device
from busi_pipeline.models.network import count_activations


@pytest.fixture
def model() -> keras.Model:
    return keras.Sequential(
        [keras.Input((10, 10, 3)), keras.layers.Conv2D(8, 3), keras.layers.GlobalMaxPooling2D()]
    )


def test_a_batch_grows_with_the_memory_of_a_gpu(
    model: keras.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert choose_batch_size(7, model) == 7
    assert choose_batch_size("auto", model) == 32
    monkeypatch.setattr(device, "list_gpus", lambda: ["GPU:0"])
    for images, expected in ((10**9, 256), (150, 128), (128, 128), (127, 64), (0, 1)):
        memory = 2 * images * count_activations(model)
        monkeypatch.setattr(device, "_read_gpu_memory", lambda memory=memory: memory)
        assert choose_batch_size("auto", model) == expected, images


@pytest.mark.skipif(sys.platform == "win32", reason="stands in for a program by a shell script")
def test_memory_is_that_of_the_smallest_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert device._read_gpu_memory() == 8 * 2**30
    assert "no nvidia-smi" in caplog.text
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 16384\necho 8192\n")
    program.chmod(0o755)
    assert device._read_gpu_memory() == 8192 * 2**20


@pytest.mark.parametrize(
    ("flags", "expected"),
    [(["avx512_bf16"], "mixed_bfloat16"), (["amx_bf16"], "mixed_bfloat16"), (["avx2"], "float32")],
)
def test_a_cpu_trains_in_what_it_multiplies_fast(
    flags: list[str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = {"brand_raw": "A CPU", "count": 4, "flags": flags}
    monkeypatch.setattr(device, "_read_cpu", lambda: info)
    monkeypatch.setattr(device, "_prepare_gpus", list)
    assert prepare_device("auto") == ("CPU: A CPU, 4 cores", expected, False)
    assert prepare_device("mixed_float16").precision == "mixed_float16"


def test_a_gpu_trains_in_half_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_prepare_gpus", lambda: ["GPU: A", "GPU: B"])
    assert prepare_device("auto") == ("GPU: A + GPU: B", "mixed_float16", True)
    assert prepare_device("float32").precision == "float32"


def test_the_dtype_policy_comes_back() -> None:
    def fail() -> None:
        with dtype_policy("mixed_bfloat16"):
            assert keras.layers.Dense(1).compute_dtype == "bfloat16"
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert keras.config.dtype_policy().name == "float32"


def test_fewer_than_two_devices_are_no_strategy() -> None:
    import tensorflow as tf

    for devices in ([], ["GPU:0"]):
        with device.spread_over(devices):
            assert not tf.distribute.has_strategy()
