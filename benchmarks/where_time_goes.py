"""Where the time goes, step by step, and the floor the arithmetic sets.

    python benchmarks/where_time_goes.py                 # the steps of three backbones
    python benchmarks/where_time_goes.py --experiments resnet50

Prints seconds of import and start-up, milliseconds an image of decoding, resizing and augmentation,
and for each network the milliseconds, floating-point operations and share of the peak of its frozen
part and of its tail, forward and with the step that learns. The peak is what the same library
reaches on a large matrix product or convolution. The floor is the operations of the whole recipe
at that peak.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from functools import partial
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from _common import describe_machine, draw_images, read_experiment, spread, time_calls

from busi_pipeline.config.schemas import ExperimentSettings
from busi_pipeline.datasets.pretrained_weights import WeightsSource
from busi_pipeline.imaging.affine import AffineTransform, apply_affine
from busi_pipeline.imaging.decoding import decode_image
from busi_pipeline.imaging.resizing import resize_image
from busi_pipeline.learning.device import dtype_policy, prepare_device
from busi_pipeline.learning.features import build_network
from busi_pipeline.learning.fitting import make_optimizer
from busi_pipeline.models.network import count_operations
from busi_pipeline.synthetic import simulate_scan

START_UPS = {
    "import busi_pipeline": [sys.executable, "-c", "import busi_pipeline"],
    "import kedro.framework": [sys.executable, "-c", "import kedro.framework.session"],
    "import mlflow": [sys.executable, "-c", "import mlflow"],
    "import tensorflow, keras": [sys.executable, "-c", "import tensorflow, keras"],
    "kedro registry list": [sys.executable, "-m", "kedro", "registry", "list"],
}


def measure_peak(precision: str, side: int = 2048) -> float:
    """Return the operations a second of the better of two: a large matrix product, a convolution.

    The convolution is 3 x 3 over 32 images of 28 x 28 with 512 channels, as VGG16 has them.
    """
    import tensorflow as tf

    dtype = {"mixed_bfloat16": tf.bfloat16, "mixed_float16": tf.float16}.get(precision, tf.float32)

    def draw(*shape: int) -> tf.Tensor:
        return tf.cast(tf.random.normal(shape), dtype)

    left, right = draw(side, side), draw(side, side)
    images, kernel = draw(32, 28, 28, 512), draw(3, 3, 512, 512)
    multiply = tf.function(lambda: tf.matmul(left, right))
    convolve = tf.function(lambda: tf.nn.conv2d(images, kernel, 1, "SAME"))
    pairs = ((2 * side**3, multiply), (2 * 32 * 28**2 * 9 * 512**2, convolve))
    return max(
        operations / min(time_calls(partial(_compute, call), 7)) for operations, call in pairs
    )


def _compute(call: Any) -> np.ndarray:
    """Return the result on the host, so that the call has ended."""
    return call().numpy()


def print_start_ups() -> None:
    """Print the seconds of imports and of Kedro's start, each in a process of its own."""
    print("\nstart-up, seconds")
    for name, command in START_UPS.items():
        seconds = time_calls(partial(subprocess.run, command, check=True, capture_output=True), 3)
        print(f"  {name:28s} {spread(seconds)}")


def print_input(size: int) -> None:
    """Print the milliseconds an image of decoding, resizing and augmentation."""
    import io

    from PIL import Image

    scan = simulate_scan("malignant", 500, 560, np.random.default_rng(0)).image
    buffer = io.BytesIO()
    Image.fromarray(scan).save(buffer, "PNG")
    content, pixels = buffer.getvalue(), decode_image(buffer.getvalue()).pixels
    resized = resize_image(pixels, size)
    transform = AffineTransform(10.0, 1.05, True, False, 0.02, 0.02, 0.0, 1.05)
    steps = {
        "decode a PNG of 560 x 500": lambda: decode_image(content),
        f"resize to {size} x {size}": lambda: resize_image(pixels, size),
        "augment": lambda: apply_affine(resized, transform),
    }
    print("\ninput, milliseconds an image")
    for name, step in steps.items():
        print(f"  {name:28s} {spread([1000 * s for s in time_calls(step, 30)])}")


def measure_network(experiment: ExperimentSettings, peaks: dict[str, float]) -> None:
    """Print the network's steps in each precision, and the floor of its recipe."""
    recipe = experiment.training
    weights = WeightsSource(None).choose(experiment.backbone, "none")
    batch = recipe.fine_tuning.batch_size
    images = draw_images(32, experiment.image_size)
    for precision, peak in peaks.items():
        keras.utils.clear_session()
        with dtype_policy(precision):
            network = build_network(experiment, weights, 3)
        features = np.asarray(network.frozen.predict_on_batch(images))
        learn = _make_step(network.trainable, features[:batch], experiment)
        operations = {
            "frozen part, forward": (count_operations(network.frozen), len(images)),
            "tail, forward": (count_operations(network.tail), len(images)),
            "tail, learning": (3 * count_operations(network.tail), batch),
            "whole, forward": (count_operations(network.full), len(images)),
        }
        calls = {
            "frozen part, forward": partial(network.frozen.predict_on_batch, images),
            "tail, forward": partial(network.tail.predict_on_batch, features),
            "tail, learning": learn,
            "whole, forward": partial(network.full.predict_on_batch, images),
        }
        print(f"\n{experiment.title}, {precision}: milliseconds an image, GFLOP, share of peak")
        each = {}
        for name, call in calls.items():
            flops, count = operations[name]
            seconds = [s / count for s in time_calls(call, 7, warm_up=2)]
            each[name] = statistics.median(seconds)
            share = flops / peak / each[name]
            milliseconds = spread([1000 * s for s in seconds], digits=1)
            print(f"  {name:24s} {milliseconds:22s} {flops / 1e9:7.2f} {share:7.0%}")
        _print_floor(experiment, operations, each, peak)


def _make_step(model: keras.Model, features: np.ndarray, experiment: ExperimentSettings) -> Any:
    phase = experiment.training.fine_tuning
    model.compile(
        optimizer=make_optimizer(phase.optimizer, 1000), loss=keras.losses.CategoricalCrossentropy()
    )
    labels = np.eye(3, dtype=np.float32)[np.arange(len(features)) % 3]
    features = features.astype(np.float32)
    return lambda: model.train_on_batch(features, labels)


def _print_floor(
    experiment: ExperimentSettings,
    operations: dict[str, tuple[int, int]],
    each: dict[str, float],
    peak: float,
    training: int = 546,
    validation: int = 117,
) -> None:
    """Print what the recipe costs on BUSI: every augmented image once through the frozen part and
    the tail, then the epochs."""
    images = training * experiment.augmentation.per_image + validation
    epochs = experiment.training.fine_tuning.epochs
    times = {
        "frozen part, forward": images,
        "tail, forward": images + epochs * validation,
        "tail, learning": epochs * training,
    }
    floor = sum(operations[name][0] * count for name, count in times.items()) / peak
    steps = sum(each[name] * count for name, count in times.items())
    print(f"  recipe on BUSI: floor {floor:.0f} s at the peak, {steps:.0f} s at the steps' pace")


def main() -> None:
    """Measure; `--help` lists the arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--experiments", nargs="*", default=["vgg16", "resnet50", "inceptionv3"])
    arguments = parser.parse_args()
    begun = time.perf_counter()
    print(describe_machine())
    best = prepare_device("auto").precision
    peaks = {precision: measure_peak(precision) for precision in dict.fromkeys((best, "float32"))}
    for precision, peak in peaks.items():
        print(f"peak in {precision}: {peak / 1e9:.0f} GFLOP/s")
    print_start_ups()
    print_input(224)
    for name in arguments.experiments:
        measure_network(read_experiment(name), peaks)
    print(f"\n{time.perf_counter() - begun:.0f} s in all")


if __name__ == "__main__":
    main()
