"""Predict with the finished model and score it."""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from busi_pipeline.arrays import StoredArray
from busi_pipeline.datasets.keras_model import DeliveredModel
from busi_pipeline.judging import (
    CANCER,
    apply_decision,
    choose_decision,
    has_enough_cancers,
    probability_columns,
    score_predictions_with_intervals,
    tell_share,
)
from busi_pipeline.progress import track

if TYPE_CHECKING:
    import keras

logger = logging.getLogger(__name__)

EVALUATED_SPLITS = ("validation", "test")


class Judgement(NamedTuple):
    """What is chosen on the validation images, and what it makes of all.

    Attributes:
        predictions: see judging.apply_decision.
        decision: `temperature`, `offsets`, `threshold`, `expected_sensitivity`, and the
            `target_sensitivity` and `threshold_rule` it was chosen by; belongs to the model.
    """

    predictions: pd.DataFrame
    decision: dict[str, Any]


class Scores(NamedTuple):
    """What evaluation hands over.

    Attributes:
        metrics: {`validation` and `test`: see judging.score_predictions_with_intervals}, training
            seconds, which experiment it was, what the numbers depend on (split, weights,
            precision).
        class_table: the test metrics class by class, for people.
    """

    metrics: dict[str, Any]
    class_table: pd.DataFrame


def predict_images(
    network: "keras.Model",
    images: StoredArray,
    split_manifest: pd.DataFrame,
    settings: Mapping[str, Any],
    classes: list[str],
) -> pd.DataFrame:
    """Predict every validation and test image.

    Returns one row an image: `image_id`, `group`, `split`, `label`, and the probability
    `raw_<class>` for each class, as the network gives it.
    """
    from busi_pipeline.device import choose_batch_size

    batch_size = choose_batch_size(settings["training"]["extraction_batch_size"], network)
    evaluated = split_manifest[split_manifest["split"].isin(EVALUATED_SPLITS)]
    positions = images.find_rows(evaluated["image_id"])
    starts = range(0, len(positions), batch_size)
    probabilities = np.concatenate(
        [
            network.predict_on_batch(images.values[positions[start : start + batch_size]])
            for start in track(starts, f"predictions of {settings['title']}", "batch")
        ]
    ).astype(np.float64)
    predictions = evaluated[["image_id", "group", "split", "label"]].reset_index(drop=True)
    predictions[probability_columns(classes, raw=True)] = probabilities
    return predictions


def judge_predictions(
    raw_predictions: pd.DataFrame, judging: Mapping[str, Any], classes: list[str]
) -> Judgement:
    """Calibrate and choose the threshold on validation images; apply both to all."""
    validation = raw_predictions[raw_predictions["split"] == "validation"]
    decision = choose_decision(validation, classes, judging)
    if not has_enough_cancers(decision, judging):
        logger.warning(
            "the validation images show too few cancers (%d) to promise a sensitivity of %g: the "
            "flag is set to the least suspicious of them, which promises %.3f",
            (validation["label"] == CANCER).sum(),
            judging["target_sensitivity"],
            decision.expected_sensitivity,
        )
    record = decision.describe() | {
        key: judging[key] for key in ("target_sensitivity", "threshold_rule")
    }
    return Judgement(apply_decision(raw_predictions, decision, classes), {"decision": record})


def deliver_model(network: "keras.Model", decision: Mapping[str, Any]) -> DeliveredModel:
    """Put the calibration into the model, and the decision beside it."""
    from busi_pipeline.core.delivery import calibrate

    chosen = dict(decision["decision"])
    return DeliveredModel(calibrate(network, chosen["temperature"], chosen["offsets"]), chosen)


def score_predictions(
    predictions: pd.DataFrame,
    settings: Mapping[str, Any],
    training_report: Mapping[str, Any],
    training_tags: Mapping[str, str],
    split_tags: Mapping[str, str],
    judging: Mapping[str, Any],
    classes: list[str],
) -> Scores:
    """Score validation and test images apart."""
    metrics: dict[str, Any] = {
        split: score_predictions_with_intervals(
            predictions[predictions["split"] == split], classes, judging
        )
        for split in EVALUATED_SPLITS
    }
    test = metrics["test"]
    flag = test["decision"]
    logger.info(
        "test: accuracy %s (%d of %d), malignant sensitivity %s (%d of %d), loss %.3f",
        tell_share(test, "accuracy"),
        test["correct"],
        test["images"],
        tell_share(test["malignant"], "sensitivity"),
        test["malignant"]["found"],
        test["malignant"]["images"],
        test["loss"],
    )
    logger.info(
        "test, flagged from the threshold on: sensitivity %s, specificity %s: "
        "%d cancers missed, %d false alarms",
        tell_share(flag, "sensitivity"),
        tell_share(flag, "specificity"),
        flag["missed_cancers"],
        flag["false_alarms"],
    )
    class_table = pd.DataFrame([{"class": name} | test[name] for name in classes])
    metrics["training_seconds"] = training_report["training"]["seconds"]["total"]
    metrics["experiment"] = {
        key: settings[key] for key in ("title", "baseline_of", "published") if key in settings
    }
    metrics["depends_on"] = {**split_tags, **training_tags}
    return Scores(metrics, class_table.round(4))
