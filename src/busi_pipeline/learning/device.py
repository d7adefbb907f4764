"""What this machine computes on, and the precision that suits it. The only place that asks
TensorFlow itself."""

import logging
import math
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, Literal, NamedTuple

import keras

from busi_pipeline.models.network import count_activations

logger = logging.getLogger(__name__)

# A CPU without these multiplies bfloat16 more slowly than float32.
_BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
# More images at once gain nothing: measured on two cores, and usual on a GPU.
_BATCH_ON_CPU = 32
_BATCH_ON_GPU = 256


class Device(NamedTuple):
    """`name`: as logged with the run; `precision`: the Keras dtype policy to train with; `is_gpu`:
    whether there is one to compute on."""

    name: str
    precision: str
    is_gpu: bool


def prepare_device(precision: str) -> Device:
    """Let TensorFlow's GPU memory grow on demand and choose the precision.

    `auto` takes mixed float16 on a GPU, mixed bfloat16 on a CPU with instructions for it, and
    float32 elsewhere. Weights stay float32 in every case.
    """
    gpu_names = _prepare_gpus()
    if gpu_names:
        name = " + ".join(gpu_names)
        fastest = "mixed_float16"
    else:
        info = _read_cpu()
        name = f"CPU: {info.get('brand_raw', 'unknown')}, {info.get('count', '?')} cores"
        has_bfloat16 = _BFLOAT16_FLAGS & set(info.get("flags", []))
        fastest = "mixed_bfloat16" if has_bfloat16 else "float32"
    chosen = fastest if precision == "auto" else precision
    logger.info("device: %s; precision: %s", name, chosen)
    return Device(name, chosen, bool(gpu_names))


@cache
def _read_cpu() -> dict[str, Any]:
    """Return what `cpuinfo` finds; asking takes a second, and the answer stays the same."""
    from cpuinfo import get_cpu_info

    return dict(get_cpu_info())


def choose_batch_size(asked: int | Literal["auto"], model: keras.Model) -> int:
    """Return how many images `model` is to predict at once.

    `auto` takes 32 on a CPU. On a GPU it takes the largest power of two, 256 at most, whose
    activations fit half of the memory of the smallest GPU even if none of them were freed on the
    way. Gradients are not counted: nothing is trained with batches of this size.
    """
    if asked != "auto":
        return asked
    if not list_gpus():
        return _BATCH_ON_CPU
    fitting = _read_gpu_memory() // 2 // count_activations(model)
    return min(_BATCH_ON_GPU, 2 ** int(math.log2(max(1, fitting))))


def _read_gpu_memory() -> int:
    """Return the bytes of the smallest GPU, as NVIDIA's driver reports; 8 GiB where it does not.

    TensorFlow reports it only where it may take all of that memory first.
    """
    program = shutil.which("nvidia-smi")
    if program is None:
        logger.warning("no nvidia-smi to ask for the GPU's memory: taken to be 8 GiB")
        return 8 * 2**30
    command = [program, "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603 - fixed
    return min(int(line) for line in answer.split()) * 2**20


def _prepare_gpus() -> list[str]:
    if keras.backend.backend() != "tensorflow":
        return []
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        try:
            tf.config.experimental.set_memory_growth(gpu, True)
        except RuntimeError:  # TensorFlow has already started on it; growth is then as it was set
            logger.warning("memory growth of %s could not be set any more", gpu.name)
    return [
        "GPU: " + tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name)
        for gpu in gpus
    ]


def list_gpus() -> list[str]:
    """Return the names of the GPUs TensorFlow computes on, as `GPU:0`."""
    if keras.backend.backend() != "tensorflow":
        return []
    import tensorflow as tf

    return [gpu.name.removeprefix("/device:") for gpu in tf.config.list_logical_devices("GPU")]


@contextmanager
def spread_over(devices: Sequence[str]) -> Iterator[None]:
    """Build and fit on several devices at once, each batch split between them; same result as one.

    Args:
        devices: names as `GPU:0`; fewer than two change nothing.
    """
    if len(devices) < 2:
        yield
        return
    import tensorflow as tf

    logger.info("fitting on %d devices: %s", len(devices), ", ".join(devices))
    with tf.distribute.MirroredStrategy(devices).scope():
        yield


@contextmanager
def dtype_policy(name: str) -> Iterator[None]:
    """Build layers under a Keras dtype policy; the former one comes back."""
    former = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(former)
