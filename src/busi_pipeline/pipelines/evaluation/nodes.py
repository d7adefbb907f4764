"""Predict with the finished model and score it."""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from busi_pipeline.arrays import StoredArray
from busi_pipeline.metrics import score_classification
from busi_pipeline.progress import track

if TYPE_CHECKING:
    import keras

logger = logging.getLogger(__name__)

EVALUATED_SPLITS = ("validation", "test")


class Scores(NamedTuple):
    """What evaluation hands over.

    Attributes:
        metrics: {`validation` and `test`: see metrics.score_classification}, training seconds,
            which experiment it was, what the numbers depend on (split, weights, precision).
        class_table: the test metrics class by class, for people.
    """

    metrics: dict[str, Any]
    class_table: pd.DataFrame


def probability_columns(classes: list[str]) -> list[str]:
    """Return the names of the probability columns in the table of predictions."""
    return [f"p_{name}" for name in classes]


def predict_images(
    model: "keras.Model",
    images: StoredArray,
    split_manifest: pd.DataFrame,
    settings: Mapping[str, Any],
    classes: list[str],
) -> pd.DataFrame:
    """Predict every validation and test image.

    Returns one row an image: `image_id`, `split`, `label`, `predicted`, `correct`, and a
    probability `p_<class>` for each class.
    """
    from busi_pipeline.device import choose_batch_size

    batch_size = choose_batch_size(settings["training"]["extraction_batch_size"], model)
    evaluated = split_manifest[split_manifest["split"].isin(EVALUATED_SPLITS)]
    positions = images.find_rows(evaluated["image_id"])
    starts = range(0, len(positions), batch_size)
    probabilities = np.concatenate(
        [
            model.predict_on_batch(images.values[positions[start : start + batch_size]])
            for start in track(starts, f"predictions of {settings['title']}", "batch")
        ]
    ).astype(np.float64)
    predictions = evaluated[["image_id", "split", "label"]].reset_index(drop=True)
    predictions["predicted"] = np.array(classes)[probabilities.argmax(axis=1)]
    predictions["correct"] = predictions["predicted"] == predictions["label"]
    predictions[probability_columns(classes)] = probabilities
    return predictions


def score_predictions(
    predictions: pd.DataFrame,
    settings: Mapping[str, Any],
    training_report: Mapping[str, Any],
    training_tags: Mapping[str, str],
    split_tags: Mapping[str, str],
    classes: list[str],
) -> Scores:
    """Score validation and test images apart."""
    metrics: dict[str, Any] = {}
    for split in EVALUATED_SPLITS:
        rows = predictions[predictions["split"] == split]
        labels = rows["label"].map({name: i for i, name in enumerate(classes)}).to_numpy(np.int64)
        metrics[split] = score_classification(
            labels, rows[probability_columns(classes)].to_numpy(), classes
        )
    test = metrics["test"]
    logger.info(
        "test: accuracy %.1f %% (%d of %d), malignant sensitivity %.1f %% (%d of %d), loss %.3f",
        100 * test["accuracy"],
        test["correct"],
        test["images"],
        100 * test["malignant"]["sensitivity"],
        test["malignant"]["found"],
        test["malignant"]["images"],
        test["loss"],
    )
    class_table = pd.DataFrame([{"class": name} | test[name] for name in classes])
    metrics["training_seconds"] = training_report["training"]["seconds"]["total"]
    metrics["experiment"] = {
        key: settings[key] for key in ("title", "baseline_of", "published") if key in settings
    }
    metrics["depends_on"] = {**split_tags, **training_tags}
    return Scores(metrics, class_table.round(4))
