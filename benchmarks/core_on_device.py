"""The training core on whatever accelerator and Keras backend there is.

    KERAS_BACKEND=jax PYTHONPATH=src python benchmarks/core_on_device.py
    KERAS_BACKEND=jax PYTHONPATH=src python benchmarks/core_on_device.py \\
        --images 64 --batch 16 --side 2048    # on a CPU

Needs a backend of Keras, and what the training core imports: Keras, NumPy, pandas, scikit-learn,
OpenCV, Pillow, pydantic, OmegaConf, tqdm, click. No TensorFlow, no Kedro, no MLflow, no data, no
weights. For each backbone and precision: images a second of augmentation in batches, of the frozen
part, and of fine-tuning as this project does it (features read from disk), the last beside plain
`model.fit` on arrays in memory, and the share of the peak, which is what the same backend reaches
on a large matrix product.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Else the package sets KERAS_BACKEND to tensorflow; see config.environment.check_keras.
os.environ.setdefault("BUSI_ALLOW_BACKEND", "1")

import keras
import numpy as np

from busi_pipeline.config.schemas import HeadSettings, OptimizerSettings
from busi_pipeline.learning.batch_affine import apply_affine_batch
from busi_pipeline.learning.batches import FeatureBatches, as_keras_input
from busi_pipeline.learning.fitting import make_optimizer
from busi_pipeline.models.backbones import BACKBONES
from busi_pipeline.models.network import Network, build_network, count_operations

# As most experiments have it.
HEAD = HeadSettings(
    pool_intermediate=True,
    dense_units=0,
    batch_normalization=False,
    batch_normalization_momentum=0.99,
    dropout=0.5,
)
# As in fine-tuning, but without the average over the weights. With `use_ema`, Keras 3.15 on JAX
# leaves weights and averages in one buffer after `fit`, and the next `fit` on the same model fails
# ("donate the same buffer twice").
OPTIMIZER = OptimizerSettings(
    name="adamw",
    learning_rate=2e-4,
    weight_decay=0.01,
    momentum=0.0,
    ema_momentum=0.0,
    schedule="cosine",
    plateau_patience=3,
    plateau_factor=0.2,
)


def measure_peak(precision: str, side: int) -> float:
    """Return the operations a second of a chain of matrix products in this precision."""
    dtype = {"mixed_bfloat16": "bfloat16", "mixed_float16": "float16"}.get(precision, "float32")
    products = 20

    class Chain(keras.layers.Layer):
        def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
            y = x
            for _ in range(products):
                y = keras.ops.matmul(y, x) * (1 / side)
            return keras.ops.mean(y, axis=-1, keepdims=True)

    model = keras.Sequential([keras.Input((side, side), dtype=dtype), Chain(dtype=dtype)])
    square = keras.ops.cast(keras.random.normal((1, side, side), seed=0), dtype)
    seconds = min(time_call(lambda: model.predict_on_batch(square)) for _ in range(4))
    return products * 2 * side**3 / seconds


def time_call(function: Callable[[], Any]) -> float:
    """Return the seconds of one call, its result brought to the host."""
    begun = time.perf_counter()
    np.asarray(function())
    return time.perf_counter() - begun


def rate(count: int, function: Callable[[], Any], rounds: int) -> float:
    """Return images a second: the best of some calls, after one that does not count."""
    time_call(function)
    return count / min(time_call(function) for _ in range(rounds))


def measure(name: str, precision: str, arguments: argparse.Namespace, peak: float) -> None:
    """Print one line of the table."""
    keras.utils.clear_session()
    keras.config.set_dtype_policy(precision)
    preset = BACKBONES[name]
    network: Network = build_network(
        name, preset, preset.image_size, preset.freeze_until, None, HEAD, classes=3, weights=None
    )
    rng = np.random.default_rng(0)
    size = (arguments.batch, preset.image_size, preset.image_size, 3)
    images = rng.integers(0, 256, size, dtype=np.uint8)
    frozen = rate(
        arguments.batch, lambda: network.frozen.predict_on_batch(images), arguments.rounds
    )
    inverses = rng.normal([1, 0, 0, 0, 1, 0], 0.05, (arguments.batch, 6))
    brightness = np.ones(arguments.batch)
    augmented = rate(
        arguments.batch,
        lambda: apply_affine_batch(images, inverses, brightness),
        arguments.rounds,
    )
    count, shape = arguments.images, network.trainable.input_shape[1:]
    labels = np.eye(3, dtype=np.float32)[np.arange(count) % 3]
    model = network.trainable
    steps = arguments.rounds * count // arguments.batch
    model.compile(optimizer=make_optimizer(OPTIMIZER, steps), loss="categorical_crossentropy")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "features.npy"
        stored = np.lib.format.open_memmap(path, "w+", dtype=np.float16, shape=(count, *shape))
        for position in range(count):
            stored[position] = rng.random(shape, dtype=np.float32)
        batches = FeatureBatches(
            stored,
            np.arange(count)[:, None],
            labels,
            np.ones(count, dtype=np.float32),
            arguments.batch,
            seed=0,
        )
        ours = rate(
            count,
            lambda: model.fit(as_keras_input(batches), verbose=0).history["loss"],
            arguments.rounds,
        )
        values = np.asarray(stored).astype(np.float32)
        plain = rate(
            count,
            lambda: model.fit(values, labels, batch_size=arguments.batch, verbose=0).history[
                "loss"
            ],
            arguments.rounds,
        )
    share_frozen = frozen * count_operations(network.frozen) / peak
    share_tail = ours * 3 * count_operations(network.tail) / peak
    print(
        f"{name:14s} {precision:15s} {augmented:9.0f} {frozen:10.0f} {share_frozen:7.1%} "
        f"{ours:12.0f} {share_tail:7.1%} {plain:12.0f} {ours / plain:7.2f}",
        flush=True,
    )


def main() -> None:
    """Measure; `--help` lists the arguments."""
    parser = argparse.ArgumentParser(description="The training core on this device.")
    parser.add_argument("--backbones", nargs="*", default=["vgg16", "resnet50", "inception_v3"])
    parser.add_argument("--precisions", nargs="*", default=["float32", "mixed_bfloat16"])
    parser.add_argument("--images", type=int, default=2048)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", type=int, default=8192, help="of the matrices for the peak")
    arguments = parser.parse_args()
    print(f"Keras {keras.version()} on {keras.backend.backend()}; batches of {arguments.batch}")
    peaks = {p: measure_peak(p, arguments.side) for p in arguments.precisions}
    for precision, peak in peaks.items():
        print(f"peak in {precision}: {peak / 1e12:.2f} TFLOP/s")
    print(
        f"{'':14s} {'':15s} {'augmented':>9s} {'frozen':>10s} {'of peak':>7s} {'fine-tuning':>12s} "
        f"{'of peak':>7s} {'in memory':>12s} {'ratio':>7s}   (images a second)"
    )
    for name in arguments.backbones:
        for precision in arguments.precisions:
            measure(name, precision, arguments, peaks[precision])


if __name__ == "__main__":
    main()
