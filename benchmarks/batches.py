"""Does the trainer keep up with the arithmetic?

Images a second of the trainer, which reads features from disk, against the same step on tensors
that are already in memory.

    python benchmarks/batches.py
    python benchmarks/batches.py --experiments resnet50 --rounds 5
"""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from _common import compare_pace, measure_experiments, store_rows

from busi_pipeline.caching.arrays import StoredArray
from busi_pipeline.config.schemas import ExperimentSettings
from busi_pipeline.datasets.pretrained_weights import WeightsSource
from busi_pipeline.learning.batches import FeatureBatches, as_keras_input
from busi_pipeline.learning.device import dtype_policy, prepare_device
from busi_pipeline.learning.features import build_network
from busi_pipeline.learning.fitting import make_optimizer


def write_features(shape: tuple[int, ...], rows: int, workspace: Path) -> StoredArray:
    """Write float16 noise as the features of an experiment are written."""
    rng = np.random.default_rng(0)

    def compute(positions: np.ndarray) -> Iterator[np.ndarray]:
        for _ in positions:
            yield rng.random((1, *shape), dtype=np.float32).astype(np.float16)

    return store_rows("features", rows, "float16", compute, workspace)


def measure(experiment: ExperimentSettings, images: int, rounds: int) -> None:
    """Print both sides, taken in turn."""
    phase = experiment.training.fine_tuning
    precision = prepare_device(experiment.training.precision).precision
    keras.utils.clear_session()
    weights = WeightsSource(None).choose(experiment.backbone, "none")
    with dtype_policy(precision):
        model = build_network(experiment, weights, 3).trainable
    model.compile(
        optimizer=make_optimizer(phase.optimizer, 1000), loss=keras.losses.CategoricalCrossentropy()
    )
    per_image = 2
    with tempfile.TemporaryDirectory() as workspace:
        stored = write_features(model.input_shape[1:], images * per_image, Path(workspace))
        labels = np.eye(3, dtype=np.float32)[np.arange(images) % 3]
        batches = FeatureBatches(
            stored.values,
            np.arange(images * per_image).reshape(images, per_image),
            labels,
            np.ones(images, dtype=np.float32),
            phase.batch_size,
            seed=0,
        )
        ready = [tuple(keras.ops.convert_to_tensor(part) for part in batches[0])] * len(batches)

        def run_trainer() -> None:
            model.fit(as_keras_input(batches), epochs=1, shuffle=False, verbose=0)

        def run_unchanged() -> None:
            model.fit(batches, epochs=1, shuffle=False, verbose=0)

        def run_bare() -> None:
            for features, targets, sample_weights in ready:
                model.train_on_batch(features, targets, sample_weights)

        compare_pace(
            f"{experiment.title}, {precision}",
            {"trainer": run_trainer, "in memory": run_bare},
            images,
            rounds,
            asked=0.95,
        )
        compare_pace(
            f"{experiment.title}, {precision}, against the PyDataset as Keras takes it by itself",
            {"trainer": run_trainer, "PyDataset": run_unchanged},
            images,
            rounds,
            asked=1.0,
        )


if __name__ == "__main__":
    measure_experiments(measure, "The trainer against the same step in memory.", images=256)
