"""Train and judge fold by fold.

Keras is imported inside the nodes: building the pipelines (`kedro registry list`, `kedro viz`)
must not wait for TensorFlow.
"""

import gc
import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from busi_pipeline.arrays import StoredArray
from busi_pipeline.datasets.folds import TrainedFold
from busi_pipeline.datasets.pretrained_weights import ChosenWeights, WeightsSource
from busi_pipeline.experiments import ExperimentSettings
from busi_pipeline.fingerprints import describe_code, hash_values
from busi_pipeline.judging import (
    apply_decision,
    choose_decision,
    has_enough_cancers,
    probability_columns,
    score_predictions_with_intervals,
    select_test,
    tell_number,
    tell_share,
)
from busi_pipeline.labels import find_positions
from busi_pipeline.metrics import score_classification
from busi_pipeline.pipelines.training.features import (
    build_for_training,
    check_features,
    find_views,
)
from busi_pipeline.pipelines.training.nodes import (
    find_probe,
    fit_network,
    identify_training,
    prepare_lesson,
    read_views,
)
from busi_pipeline.pipelines.training.predicting import predict_views

from .folds import list_folds, select_fold

if TYPE_CHECKING:
    from busi_pipeline.core.network import Network
    from busi_pipeline.device import Device

logger = logging.getLogger(__name__)


def cross_validate(
    features: StoredArray,
    pooled_features: StoredArray,
    fold_manifest: pd.DataFrame,
    settings: Mapping[str, Any],
    pretrained_weights: WeightsSource,
    cross_validation: Mapping[str, Any],
    classes: list[str],
    kept_folds: Mapping[str, TrainedFold],
) -> Iterator[dict[str, TrainedFold]]:
    """Train the recipe once a fold; yield each fold as it is done.

    The recipe is `train_model`'s, on the same features. A fold all of whose premises are those of a
    kept one is not done again. Images are judged in the precision of training, averaged over the
    mirror image where the recipe says so; the delivered model does that in float32.

    Yields {name: TrainedFold}. Predictions are of validation and test images: `image_id`, `group`,
    `label`, `split`, `repeat`, `fold` and the raw probabilities.
    """
    from busi_pipeline.device import prepare_device

    experiment = ExperimentSettings.model_validate(settings)
    chosen = pretrained_weights.choose(experiment.backbone, experiment.training.weights)
    check_features(features, experiment, chosen)
    device = prepare_device(experiment.training.precision)
    folds = list(list_folds(fold_manifest))
    spent: list[float] = []
    for number, fold in enumerate(folds, 1):
        split = select_fold(fold_manifest, fold, cross_validation)
        lesson = prepare_lesson(features, split, experiment, classes)
        judged = split[split["split"] != "train"].drop(columns="path")
        views = find_views(features, judged["image_id"], experiment.training.average_mirror)
        identity = hash_values(
            {
                "training": identify_training(features, lesson, experiment, device),
                "judged": [[features.keys[row] for row in rows] for rows in views.tolist()],
                **describe_code(predict_views.__module__),
            }
        )
        done = kept_folds.get(fold.name)
        if done is None or done.identity != identity:
            begun = time.perf_counter()
            network = _build_anew(experiment, chosen, len(classes), device)
            phases, start = fit_network(network, features, pooled_features, lesson, experiment)
            fitted = network.trainable if experiment.fine_tunes else network.head
            probabilities = predict_views(fitted, start, features, views)
            judged[probability_columns(classes, raw=True)] = probabilities
            judged["repeat"], judged["fold"] = fold
            spent.append(time.perf_counter() - begun)
            report = {
                "seconds": {"fitting": spent[-1]},
                "best_epoch": {name: phase.best_epoch for name, phase in phases.items()},
            }
            done = TrainedFold(
                {str(k): list(v) for k, v in judged.to_dict("list").items()}, report, identity
            )
        test = _score_test(pd.DataFrame(done.predictions), classes)
        logger.info(
            "%s, %s (%d of %d): accuracy %.3f, malignant AUC %.3f; %s",
            experiment.title,
            fold.name,
            number,
            len(folds),
            test["accuracy"],
            test["malignant"]["auc"],
            "kept"
            if done.kept
            else f"{spent[-1]:.0f} s, at most {np.mean(spent) * (len(folds) - number):.0f} s left",
        )
        yield {fold.name: replace(done, report=done.report | {"test": test})}


def _build_anew(
    experiment: ExperimentSettings, chosen: ChosenWeights, classes: int, device: "Device"
) -> "Network":
    """Build the network of a fold, those of earlier folds forgotten."""
    import keras

    keras.backend.clear_session()
    gc.collect()  # TensorFlow's graphs hold each other; fifteen of them would not fit
    return build_for_training(experiment, chosen, classes, device)


def _score_test(judged: pd.DataFrame, classes: list[str]) -> dict[str, Any]:
    test = select_test(judged)
    return score_classification(
        find_positions(test["label"], classes),
        test[probability_columns(classes, raw=True)].to_numpy(),
        classes,
    )


def probe_frozen_base(
    pooled_features: StoredArray,
    fold_manifest: pd.DataFrame,
    settings: Mapping[str, Any],
    cross_validation: Mapping[str, Any],
    judging: Mapping[str, Any],
    classes: list[str],
) -> pd.DataFrame:
    """Judge the same folds by logistic regression on the pooled features of the frozen base.

    What fine-tuning has to beat: see `training.probe`.

    Returns the columns of `judge_folds`.
    """
    experiment = ExperimentSettings.model_validate(settings)
    tables = []
    for fold in list_folds(fold_manifest):
        split = select_fold(fold_manifest, fold, cross_validation)
        probe = find_probe(
            pooled_features, prepare_lesson(pooled_features, split, experiment, classes)
        )
        judged = split[split["split"] != "train"].drop(columns="path")
        views = find_views(pooled_features, judged["image_id"], experiment.training.average_mirror)
        judged["repeat"], judged["fold"] = fold
        judged[probability_columns(classes, raw=True)] = probe.predict(
            read_views(pooled_features, views)
        )
        tables.append(judged)
    return judge_folds(pd.concat(tables, ignore_index=True), judging, classes)


def judge_networks(
    folds: Mapping[str, TrainedFold],
    fold_manifest: pd.DataFrame,
    judging: Mapping[str, Any],
    classes: list[str],
) -> pd.DataFrame:
    """Put the predictions of all folds in one table and judge them, see `judge_folds`."""
    tables = [pd.DataFrame(folds[f.name].predictions) for f in list_folds(fold_manifest)]
    return judge_folds(pd.concat(tables, ignore_index=True), judging, classes)


def judge_folds(
    raw_predictions: pd.DataFrame, judging: Mapping[str, Any], classes: list[str]
) -> pd.DataFrame:
    """Calibrate and choose the threshold on each fold's validation images; apply them to its test.

    Args:
        raw_predictions: as of `cross_validate`.
        judging: `target_sensitivity` and `threshold_rule`.
        classes: in the order of the probabilities.

    Returns what `judging.apply_decision` does of validation and test images, with the `temperature`
    and `threshold` of their fold.
    """
    tables, too_few = [], 0
    for _, of_fold in raw_predictions.groupby(["repeat", "fold"], sort=True):
        validation = of_fold[of_fold["split"] == "validation"]
        decision = choose_decision(validation, classes, judging)
        too_few += not has_enough_cancers(decision, judging)
        judged = apply_decision(of_fold, decision, classes)
        judged["temperature"] = decision.calibration.temperature
        tables.append(judged.assign(threshold=decision.threshold))
    if too_few:
        logger.warning(
            "in %d of %d folds the validation images show too few cancers to promise a sensitivity "
            "of %g: the flag is set to the least suspicious of them",
            too_few,
            len(tables),
            judging["target_sensitivity"],
        )
    return pd.concat(tables, ignore_index=True)


def score_folds(
    predictions: pd.DataFrame,
    probe_predictions: pd.DataFrame,
    settings: Mapping[str, Any],
    fold_tags: Mapping[str, str],
    judging: Mapping[str, Any],
    classes: list[str],
) -> dict[str, Any]:
    """Score all out-of-fold predictions together, and those of the probe.

    Each repeat judges every image once. The bootstrap draws groups of images, an image with all its
    repeats at once, so that repeats do not pass for more images.

    Returns {`cross_validation`: {`test`, `probe`: see judging.score_predictions_with_intervals,
    `repeats`, `folds`}, `title`, `depends_on`}.
    """
    fine_tuned, probe = (
        score_predictions_with_intervals(select_test(table), classes, judging)
        for table in (predictions, probe_predictions)
    )
    for name, scores in ((settings["title"], fine_tuned), ("frozen probe", probe)):
        logger.info(
            "%s, out of fold: accuracy %s, malignant AUC %s, specificity at 90 %% sensitivity %s",
            name,
            tell_share(scores, "accuracy"),
            tell_number(scores["malignant"], "auc"),
            tell_share(scores["malignant"], "specificity_at_90_sensitivity"),
        )
    return {
        "cross_validation": {
            "test": fine_tuned,
            "probe": probe,
            "repeats": int(predictions["repeat"].nunique()),
            "folds": int(predictions["fold"].nunique()),
        },
        "title": settings["title"],
        "depends_on": dict(fold_tags),
    }
