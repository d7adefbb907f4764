"""Batch prediction against the bare forward pass of the same network on the same batch size.

    python benchmarks/prediction.py

Prediction is the evaluation's own: prepared images on disk -> trained model -> table.
"""

import os
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pandas as pd
from _common import compare_pace, draw_images, measure_experiments, read_parameters, store_rows

from busi_pipeline.config.schemas import ExperimentSettings
from busi_pipeline.datasets.pretrained_weights import WeightsSource
from busi_pipeline.learning.device import choose_batch_size
from busi_pipeline.learning.features import build_network
from busi_pipeline.models.wrappers import average_with_flipped, average_with_pretuned
from busi_pipeline.pipelines.evaluation.nodes import predict_images


def measure(experiment: ExperimentSettings, count: int, rounds: int) -> None:
    """Print both sides, taken in turn."""
    images = draw_images(count, experiment.image_size)
    classes = read_parameters()["classes"]
    keras.utils.clear_session()
    weights = WeightsSource(None).choose(experiment.backbone, "none")
    network = build_network(experiment, weights, len(classes))
    model = network.full
    if experiment.training.average_with_pretuned:
        model = average_with_pretuned(network, build_network(experiment, weights, len(classes)))
    if experiment.training.tta_horizontal_flip:
        model = average_with_flipped(model)
    batch_size = choose_batch_size(experiment.training.extraction_batch_size, model)
    ids = [str(i) for i in range(count)]
    split = pd.DataFrame(
        {"image_id": ids, "group": ids, "label": classes.names[0], "split": "test"}
    )
    batches = [
        keras.ops.convert_to_tensor(images[start : start + batch_size])
        for start in range(0, count, batch_size)
    ]
    with tempfile.TemporaryDirectory() as workspace:
        stored = store_rows(
            "images", count, "uint8", lambda positions: [images[positions]], Path(workspace)
        )

        def run_prediction() -> None:
            predict_images(model, stored, split, experiment, classes)

        def run_bare() -> None:
            for batch in batches:
                np.asarray(model.predict_on_batch(batch))

        compare_pace(
            f"{experiment.title}, batches of {batch_size}",
            {"prediction": run_prediction, "bare": run_bare},
            count,
            rounds,
            asked=0.90,
        )


if __name__ == "__main__":
    measure_experiments(measure, "Batch prediction against the bare forward pass.", images=128)
