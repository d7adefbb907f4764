"""What this machine computes on, and the precision that suits it. The only place that asks
TensorFlow itself."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import keras

logger = logging.getLogger(__name__)

# A CPU without these multiplies bfloat16 more slowly than float32.
_BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}


class Device(NamedTuple):
    """`name`: as logged with the run; `precision`: the Keras dtype policy to train with."""

    name: str
    precision: str


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
        from cpuinfo import get_cpu_info

        info = get_cpu_info()
        name = f"CPU: {info.get('brand_raw', 'unknown')}, {info.get('count', '?')} cores"
        has_bfloat16 = _BFLOAT16_FLAGS & set(info.get("flags", []))
        fastest = "mixed_bfloat16" if has_bfloat16 else "float32"
    chosen = fastest if precision == "auto" else precision
    logger.info("device: %s; precision: %s", name, chosen)
    return Device(name, chosen)


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
