"""Does the trainer keep up with the arithmetic? Images a second of the trainer, reading views from
disk, against the same step on tensors that are already in memory.

    python benchmarks/feed.py
    python benchmarks/feed.py --experiments resnet50 --rounds 5
"""

import os
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pandas as pd
from _common import compare_pace, measure_experiments, store

from busi_pipeline.caching.arrays import ArrayStream, StoredArray
from busi_pipeline.learning.batches import FeatureBatches, as_keras_input
from busi_pipeline.learning.fitting import make_optimizer
from busi_pipeline.datasets.pretrained_weights import WeightsSource
from busi_pipeline.learning.device import dtype_policy, prepare_device
from busi_pipeline.config.experiments import ExperimentSettings
from busi_pipeline.learning.features import build_network


def write_features(shape: tuple[int, ...], rows: int, workspace: Path) -> StoredArray:
    """Write float16 noise as the features of an experiment are written."""
    rng = np.random.default_rng(0)
    stream = ArrayStream(
        index=pd.DataFrame({"image_id": [str(row) for row in range(rows)]}),
        keys=[str(row) for row in range(rows)],
        recipe={"noise": list(shape)},
        dtype="float16",
        compute=lambda positions: (
            rng.random((1, *shape), dtype=np.float32).astype(np.float16) for _ in positions
        ),
    )
    return store(stream, workspace, "features")


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
    views = 2
    with tempfile.TemporaryDirectory() as workspace:
        stored = write_features(model.input_shape[1:], images * views, Path(workspace))
        labels = np.eye(3, dtype=np.float32)[np.arange(images) % 3]
        feed = FeatureBatches(
            stored.values,
            np.arange(images * views).reshape(images, views),
            labels,
            np.ones(images, dtype=np.float32),
            phase.batch_size,
            seed=0,
        )
        ready = [tuple(keras.ops.convert_to_tensor(part) for part in feed[0])] * len(feed)

        def run_trainer() -> None:
            model.fit(as_keras_input(feed), epochs=1, shuffle=False, verbose=0)

        def run_as_it_comes() -> None:
            model.fit(feed, epochs=1, shuffle=False, verbose=0)

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
            f"{experiment.title}, {precision}, against the PyDataset as Keras takes it",
            {"trainer": run_trainer, "as it comes": run_as_it_comes},
            images,
            rounds,
            asked=1.0,
        )


if __name__ == "__main__":
    measure_experiments(measure, "The trainer against the same step in memory.", images=256)
