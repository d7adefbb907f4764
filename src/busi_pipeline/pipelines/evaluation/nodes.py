"""Calibrate predictions, choose the operating point on validation images, score the rest.

The same for the hold-out split, which is one fold, and for a cross-validation.
"""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from busi_pipeline.caching.arrays import StoredArray
from busi_pipeline.config.experiments import gather_experiments
from busi_pipeline.config.schemas import EnsembleSettings, EvaluationSettings, ModelSettings
from busi_pipeline.errors import BadInputError
from busi_pipeline.learning.folds import select_parts, share_tags
from busi_pipeline.learning.predicting import read_inputs
from busi_pipeline.models.delivered import LEARNED_FROM, DeliveredModel, build_delivered_model
from busi_pipeline.stats.classes import Classes
from busi_pipeline.stats.scoring import (
    apply_operating_point,
    can_promise_target,
    describe_target,
    fit_operating_point,
    format_number,
    format_share,
    probability_columns,
    ranks_like_chance,
    say_chance,
    select_test,
)
from busi_pipeline.stats.scoring import score_predictions as score_table

if TYPE_CHECKING:
    import keras

logger = logging.getLogger(__name__)

# What a threshold was chosen on.
ON_VALIDATION, ON_EACH_FOLD = "validation images", "validation images of each fold"
OUT_OF_FOLD = "all images, out of fold"
EVALUATED_SPLITS = ("validation", "test")
_KEYS = ["repeat", "fold", "split", "image_id"]


class Calibrated(NamedTuple):
    """What is chosen on validation images, and what it makes of all.

    Attributes:
        predictions: see stats.scoring.apply_operating_point, with the `temperature` and the
            `threshold` of their fold.
        operating_point: of the one fold of a hold-out split `temperature`, `offsets`, `threshold`,
            `expected_sensitivity`; of several folds the median `threshold` and the mean
            `expected_sensitivity`, of a bag what `calibrate_bag` says; `chosen_on`, which of these;
            and the `target_sensitivity`, `threshold_rule` and `positive_classes` it was chosen for.
    """

    predictions: pd.DataFrame
    operating_point: dict[str, Any]


class Scores(NamedTuple):
    """What evaluation hands over.

    Attributes:
        metrics: `test` and, of a hold-out split, `validation` (see
            stats.scoring.score_predictions), `repeats`, `folds`, `experiment` (title and what it
            is compared with), `training_seconds`, `depends_on` (split, weights, precision).
        per_class_metrics: the test metrics class by class, for people.
    """

    metrics: dict[str, Any]
    per_class_metrics: pd.DataFrame


def predict_images(
    trained_model: "keras.Model",
    images: StoredArray,
    split_manifest: pd.DataFrame,
    settings: ModelSettings,
    classes: Classes,
) -> pd.DataFrame:
    """Predict every validation and test image of the hold-out split.

    Returns one row an image: `image_id`, `group`, `label`, `split`, `repeat` and `fold` (1), and
    the probability `uncalibrated_<class>` of each class.
    """
    from busi_pipeline.learning.device import choose_batch_size

    batch_size = choose_batch_size(settings.extraction_batch_size, trained_model)
    evaluated = split_manifest[split_manifest["split"].isin(EVALUATED_SPLITS)]
    batches = read_inputs(images, evaluated["image_id"].tolist(), batch_size, settings.title)
    probabilities = np.concatenate(
        [trained_model.predict_on_batch(batch) for batch in batches]
    ).astype(np.float64)
    predictions = evaluated[["image_id", "group", "label", "split"]].reset_index(drop=True)
    predictions = predictions.assign(repeat=1, fold=1)
    predictions[probability_columns(classes, uncalibrated=True)] = probabilities
    return predictions


def calibrate_predictions(
    uncalibrated_predictions: pd.DataFrame, evaluation: EvaluationSettings, classes: Classes
) -> Calibrated:
    """Calibrate and choose the threshold on each fold's validation images; apply both to all."""
    tables, chosen, too_few = [], [], 0
    for _, of_fold in uncalibrated_predictions.groupby(["repeat", "fold"], sort=True):
        validation = of_fold[of_fold["split"] == "validation"]
        point = fit_operating_point(validation, classes, evaluation)
        too_few += not can_promise_target(point, evaluation)
        table = apply_operating_point(of_fold, point, classes)
        tables.append(
            table.assign(temperature=point.calibration.temperature, threshold=point.threshold)
        )
        chosen.append(point)
    expected = float(np.mean([point.expected_sensitivity for point in chosen]))
    if too_few:
        logger.warning(
            "%stoo few %s validation images to promise a sensitivity of %g: the threshold is the "
            "lowest of their scores, which promises %.3f",
            f"in {too_few} of {len(chosen)} folds " if len(chosen) > 1 else "",
            classes.positive_name,
            evaluation.target_sensitivity,
            expected,
        )
    record = (
        chosen[0].describe() | {"chosen_on": ON_VALIDATION}
        if len(chosen) == 1
        else {
            "threshold": float(np.median([point.threshold for point in chosen])),
            "expected_sensitivity": expected,
            "chosen_on": ON_EACH_FOLD,
        }
    )
    record |= describe_target(evaluation, classes)
    return Calibrated(pd.concat(tables, ignore_index=True), {"operating_point": record})


def calibrate_bag(
    uncalibrated_predictions: pd.DataFrame, evaluation: EvaluationSettings, classes: Classes
) -> Calibrated:
    """Calibrate the folds of a bag by themselves, and the bag by all its images, out of fold.

    The predictions are those of `calibrate_predictions`: what a fold's test images are calibrated
    with, comes from its validation images. The operating point is that of the delivered model. It
    comes from all images, each predicted by the networks that did not learn from it. What answers
    is the mean of all networks, so the sensitivity that is expected is an estimate. Source: Vovk
    2015, "Cross-conformal predictors".
    """
    calibrated = calibrate_predictions(uncalibrated_predictions, evaluation, classes)
    out_of_fold = select_test(uncalibrated_predictions)
    point = fit_operating_point(out_of_fold, classes, evaluation)
    if not can_promise_target(point, evaluation):
        logger.warning(
            "too few %s images in all folds to promise a sensitivity of %g: %.3f is expected",
            classes.positive_name,
            evaluation.target_sensitivity,
            point.expected_sensitivity,
        )
    record = point.describe() | {"chosen_on": OUT_OF_FOLD} | describe_target(evaluation, classes)
    return Calibrated(calibrated.predictions, {"operating_point": record})


def calibrate_linear_probe(
    uncalibrated_predictions: pd.DataFrame, evaluation: EvaluationSettings, classes: Classes
) -> pd.DataFrame:
    """Return the predictions that `calibrate_predictions` makes of those of the linear probe."""
    return calibrate_predictions(uncalibrated_predictions, evaluation, classes).predictions


def score_predictions(
    predictions: pd.DataFrame,
    settings: ModelSettings | EnsembleSettings,
    training_report: Mapping[str, Any],
    training_tags: Mapping[str, str],
    split_tags: Mapping[str, str],
    evaluation: EvaluationSettings,
    classes: Classes,
) -> Scores:
    """Score the test images, and of a hold-out split the validation images apart.

    Each repeat of a cross-validation tests every image once. The bootstrap resamples groups of
    images, an image with all its repeats at once, so that repeats do not pass for more images.
    """
    folds, repeats = int(predictions["fold"].nunique()), int(predictions["repeat"].nunique())
    evaluated = EVALUATED_SPLITS if folds == 1 else ("test",)
    metrics: dict[str, Any] = {
        split: score_table(predictions[predictions["split"] == split], classes, evaluation)
        for split in evaluated
    }
    _log_scores(settings.title, metrics["test"], classes, folds)
    per_class = pd.DataFrame([{"class": name} | metrics["test"][name] for name in classes])
    described = settings.model_dump(
        include={"title", "baseline_of", "published"}, exclude_none=True
    )
    metrics |= {
        "repeats": repeats,
        "folds": folds,
        "training_seconds": training_report["training"]["seconds"]["total"],
        "experiment": described,
        "depends_on": {**split_tags, **training_tags},
    }
    return Scores(metrics, per_class.round(4))


def score_linear_probe(
    linear_probe_predictions: pd.DataFrame, evaluation: EvaluationSettings, classes: Classes
) -> dict[str, Any]:
    """Score the test images by the linear probe: {`linear_probe`: scores}."""
    scores = score_table(select_test(linear_probe_predictions), classes, evaluation)
    _log_scores("linear probe", scores, classes, int(linear_probe_predictions["fold"].nunique()))
    return {"linear_probe": scores}


def _log_scores(title: str, scores: Mapping[str, Any], classes: Classes, folds: int) -> None:
    flag = scores["flag"]
    logger.info(
        "%s, %s: accuracy %s (%d of %d), AUC of %s %s, specificity at 90 %% sensitivity %s",
        title,
        "test images" if folds == 1 else "out of fold",
        format_share(scores, "accuracy"),
        scores["correct"],
        scores["images"],
        classes.positive_name,
        format_number(scores["positive"], "auc"),
        format_share(scores["positive"], "specificity_at_90_sensitivity"),
    )
    logger.info(
        "%s, flagged for review: sensitivity %s, specificity %s: %d of %d %s missed, "
        "%d false alarms",
        title,
        format_share(flag, "sensitivity"),
        format_share(flag, "specificity"),
        flag["missed"],
        flag["positives"],
        classes.positive_name,
        flag["false_alarms"],
    )
    if ranks_like_chance(scores):
        logger.warning("%s: %s", title, say_chance(scores, classes))


def deliver_model(
    trained_model: "keras.Model",
    operating_point: Mapping[str, Any],
    settings: ModelSettings,
    classes: Classes,
    manifest: pd.DataFrame,
    split_manifest: pd.DataFrame,
    data_tags: Mapping[str, str],
    split_tags: Mapping[str, str],
    training_tags: Mapping[str, str],
    localizer: "keras.Model | None" = None,
) -> DeliveredModel:
    """Return the model with calibration and flag inside, and with what it learned from beside it.

    Args:
        trained_model: as fitted.
        operating_point: {`operating_point`: what was chosen on validation images}.
        settings, classes: of the training.
        manifest: `site` and `pixel_sha256` of each image.
        split_manifest: which images were learned from; folds, which name no `split`, have all
            been.
        data_tags, split_tags, training_tags: `data_sha256`, `split_sha256`, `training_sha256`.
        localizer: finds the lesion, where the model looks at it.
    """
    learned = select_parts(split_manifest, *LEARNED_FROM)
    images = manifest[manifest["image_id"].isin(learned["image_id"])]
    about = {
        "title": settings.title,
        "image_size": settings.image_size,
        "sites": sorted(images["site"].unique()),
        "data_sha256": data_tags["data_sha256"],
        "split_sha256": split_tags["split_sha256"],
        "training_sha256": training_tags["training_sha256"],
        "input": settings.input.model_dump(mode="json"),
    }
    return build_delivered_model(
        trained_model,
        operating_point["operating_point"],
        classes,
        about,
        images["pixel_sha256"],
        localizer,
    )


def average_experiments(
    classes: Classes, **of_experiments: Any
) -> tuple[pd.DataFrame, dict[str, Any], dict[str, str]]:
    """Return what `average_predictions` does, with what the trainings have in common.

    Args:
        classes: in the order of the probabilities.
        of_experiments: as of `average_predictions`, and `report` and `tags` of each experiment.

    Returns predictions, the seconds of all trainings, and the tags the experiments share.
    """
    experiments = gather_experiments(of_experiments)
    reports = [items["report"]["training"] for items in experiments.values()]
    seconds = sum(report["seconds"]["total"] for report in reports)
    return (
        average_predictions(classes, **of_experiments),
        {"training": {"seconds": {"total": seconds}}},
        share_tags([items["tags"] for items in experiments.values()]),
    )


def average_predictions(classes: Classes, **of_experiments: Any) -> pd.DataFrame:
    """Return the mean of the experiments' probabilities before calibration: an ensemble.

    Where settings are given, every backbone counts the same, however many experiments share it,
    since these err alike. Else every experiment does, as the members of one model do (see
    models.wrappers.average_models).

    Calibration and threshold then come from each fold's validation images, as for one experiment;
    an experiment's own calibration before would bring the class frequencies in twice.

    Args:
        classes: in the order of the probabilities.
        of_experiments: `predictions` (uncalibrated, on the same folds) and, if backbones count,
            `settings` of each experiment, see config.experiments.name_item.

    Raises BadInputError where the experiments were trained on different folds.
    """
    experiments = gather_experiments(of_experiments).values()
    ordered = [items["predictions"].sort_values(_KEYS, ignore_index=True) for items in experiments]
    if any(not table[_KEYS].equals(ordered[0][_KEYS]) for table in ordered):
        raise BadInputError(
            "the experiments were cross-validated on different folds: run "
            "`kedro run --pipeline=cross_validation`, which trains again what is out of date."
        )
    columns = probability_columns(classes, uncalibrated=True)
    mean = ordered[0][["image_id", "group", "label", "split", "repeat", "fold"]].copy()
    backbones = [items["settings"].backbone for items in experiments if "settings" in items]
    weights = [1 / backbones.count(backbone) for backbone in backbones] or None
    mean[columns] = np.average([t[columns].to_numpy() for t in ordered], axis=0, weights=weights)
    return mean
