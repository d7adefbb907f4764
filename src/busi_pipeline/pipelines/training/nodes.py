"""Train one experiment on the hold-out split or on a fold, or take the training from the cache.

Both are `learning.training.train_network` on the same features. The hold-out split hands over a
model; a fold is predicted from its features, in the precision of training, and hands over
probabilities.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from busi_pipeline.caching.arrays import StoredArray
from busi_pipeline.caching.cache import TABLE, Cache, Codec
from busi_pipeline.caching.fingerprints import Fingerprint, hash_values
from busi_pipeline.caching.whole_files import replace_whole
from busi_pipeline.config.experiments import gather_experiments
from busi_pipeline.config.schemas import ExperimentSettings, JoinedSettings
from busi_pipeline.datasets.pretrained_weights import WeightsSource
from busi_pipeline.errors import BadInputError
from busi_pipeline.learning.features import check_features, describe_joined, describe_settings
from busi_pipeline.learning.folds import Fold, SiteFold, join_tables, share_tags
from busi_pipeline.learning.training import (
    BAG_TRAINING,
    FOLD_TRAINING,
    TRAINING,
    FittedNetwork,
    assemble_bag,
    assemble_model,
    identify_training,
    predict_split,
    report_training,
    train_network,
)
from busi_pipeline.learning.training import predict_with_linear_probe as fit_and_predict
from busi_pipeline.learning.training_data import find_evaluation_rows, prepare_training_data
from busi_pipeline.models.keras_files import load_keras_file
from busi_pipeline.models.weights import PretrainedWeights
from busi_pipeline.stats.classes import Classes
from busi_pipeline.stats.metrics import score_classification
from busi_pipeline.stats.scoring import probability_columns

if TYPE_CHECKING:
    import keras

    from busi_pipeline.learning.device import Device

logger = logging.getLogger(__name__)

_KEYS = ["image_id", "group", "label", "split"]


class Training(NamedTuple):
    """What a training on the hold-out split hands over.

    Attributes:
        trained_model: uint8 (n, size, size, 3) RGB -> float32 (n, classes) probabilities.
        history: {phase: {metric: one value an epoch}}.
        training_report: seconds, epochs and class weights, for MLflow's metrics.
        training_tags: weights, their hash, device and precision; `training_sha256`, the
            fingerprint, and `training_cached`, whether it was taken from the cache.
        trained_with: classes and settings the model was trained with.
    """

    trained_model: "keras.Model"
    history: dict[str, dict[str, list[float]]]
    training_report: dict[str, Any]
    training_tags: dict[str, str]
    trained_with: dict[str, Any]


class Joined(NamedTuple):
    """What members joined into one model hand over; see Training.

    Attributes:
        trained_model: the mean of the members' probabilities.
        training_report: the seconds of all, the parameters, and of folds their number.
        training_tags: what the members share, and `training_sha256` of all.
        trained_with: classes, members, and whether they are of folds.
    """

    trained_model: "keras.Model"
    training_report: dict[str, Any]
    training_tags: dict[str, str]
    trained_with: dict[str, Any]


class FoldTraining(NamedTuple):
    """What a training on a fold hands over; see Training.

    Attributes:
        uncalibrated_predictions: of validation and test images: `image_id`, `group`, `label`,
            `split`, `repeat`, `fold`, and the probability `uncalibrated_<class>` of each class.
        fold_record: `metrics` (seconds, best epochs, scores of the fold's test images) and `tags`
            (as training_tags of Training, and `fold`), for the fold's child run in MLflow.
        trained_with: as of Training.
    """

    uncalibrated_predictions: pd.DataFrame
    fold_record: dict[str, Any]
    trained_with: dict[str, Any]


class _CachedTraining(NamedTuple):
    """A model, or predictions, with the records of their training."""

    result: Any
    history: dict[str, dict[str, list[float]]]
    report: dict[str, Any]


def train_model(
    features: StoredArray,
    pooled_features: StoredArray,
    split_manifest: pd.DataFrame,
    settings: ExperimentSettings,
    pretrained_weights: WeightsSource,
    classes: Classes,
    cache: Cache,
) -> Training:
    """Train on the training images of the split; epochs are chosen on its validation images.

    Raises BadInputError where the features come from other settings than these.
    """
    weights = pretrained_weights.choose(settings.backbone, settings.training.weights)
    check_features(features, settings, weights)
    device, fingerprint = _identify(
        TRAINING.fingerprint, features, split_manifest, settings, classes
    )

    def compute() -> _CachedTraining:
        fitted = train_network(
            features, pooled_features, split_manifest, settings, weights, classes, device
        )
        model = assemble_model(fitted, settings, weights, len(classes))
        # Grad-CAM maps are cached under the name of the network they were computed of.
        model.name = f"{settings.backbone}_{fingerprint.digest[:16]}"
        return _record(model, fitted, features, split_manifest, settings, classes)

    trained, is_cached = _find_or_train(cache, fingerprint, compute, _MODEL, settings.title)
    report = dict(trained.report)
    report["parameters"] = trained.result.count_params()
    # Where nothing is fine-tuned, both are the same array.
    arrays = [features, pooled_features] if settings.fine_tunes else [features]
    report["seconds"] = {
        # As if from nothing, whatever was cached, so that trainings compare.
        "features": sum(array.metadata["seconds"] for array in arrays),
        "features_now": sum(array.metadata["seconds_now"] for array in arrays),
        **report["seconds"],
    }
    report["seconds"]["total"] = report["seconds"]["features"] + report["seconds"]["fitting"]
    return Training(
        trained.result,
        trained.history,
        {"training": report},
        _describe(weights, device, fingerprint, is_cached),
        {"classes": list(classes.names), "settings": describe_settings(settings)},
    )


class BagTraining(NamedTuple):
    """What the folds of a cross-validation hand over as one model; see Training.

    Attributes:
        trained_model: the mean of the folds' networks.
        uncalibrated_predictions: see FoldTraining; of each image by the network that did not learn
            from it.
        training_report, training_tags, trained_with: as of Training.
    """

    trained_model: "keras.Model"
    uncalibrated_predictions: pd.DataFrame
    training_report: dict[str, Any]
    training_tags: dict[str, str]
    trained_with: dict[str, Any]


def train_bag(
    features: StoredArray,
    pooled_features: StoredArray,
    settings: ExperimentSettings,
    pretrained_weights: WeightsSource,
    classes: Classes,
    cache: Cache,
    folds: Sequence[Fold],
    **split_manifests: pd.DataFrame,
) -> BagTraining:
    """Train on each fold as `train_fold` does; make one model of all, and predict out of fold.

    Args:
        features, pooled_features, settings, pretrained_weights, classes, cache: see `train_model`.
        folds: of one repeat.
        split_manifests: {name of the fold: its split}.
    """
    weights = pretrained_weights.choose(settings.backbone, settings.training.weights)
    check_features(features, settings, weights)
    splits = [split_manifests[fold.name] for fold in folds]
    identified = [
        _identify(FOLD_TRAINING.fingerprint, features, split, settings, classes, evaluated=True)
        for split in splits
    ]
    device = identified[0][0]
    fingerprint = BAG_TRAINING.fingerprint(folds=[own.digest for _, own in identified])

    def compute() -> _CachedTraining:
        fitted, tables = [], []
        for fold, split in zip(folds, splits, strict=True):
            own = train_network(
                features, pooled_features, split, settings, weights, classes, device
            )
            table = _predict_evaluated(own, features, split, settings, classes)
            fitted.append(own)
            tables.append(table.assign(repeat=fold.repeat, fold=fold.fold))
        model = assemble_bag(fitted, settings, weights, len(classes))
        model.name = f"{settings.backbone}_{fingerprint.digest[:16]}"
        seconds = {"fitting": sum(own.seconds for own in fitted)}
        predictions = pd.concat(tables, ignore_index=True)
        return _CachedTraining((model, predictions), {}, {"seconds": seconds})

    trained, is_cached = _find_or_train(cache, fingerprint, compute, _BAG, settings.title)
    model, predictions = trained.result
    # Labels and groups are those of the splits: they may have other names than when it was trained.
    predictions = predictions.copy()
    predictions[_KEYS] = pd.concat([_list_evaluated(split)[_KEYS] for split in splits]).to_numpy()
    seconds = dict(trained.report["seconds"])
    seconds["total"] = seconds["fitting"]
    return BagTraining(
        model,
        predictions,
        {"training": {"seconds": seconds, "folds": len(folds)}},
        _describe(weights, device, fingerprint, is_cached),
        {"classes": list(classes.names), "settings": describe_settings(settings)},
    )


def join_members(settings: JoinedSettings, classes: Classes, **of_members: Any) -> Joined:
    """Join the members of an experiment into one model; see models.wrappers.average_models.

    Args:
        settings: which members.
        classes: in the order of the probabilities.
        of_members: `<member>__model`, `<member>__report` and `<member>__tags` of each.
    """
    from busi_pipeline.models.wrappers import average_models

    members = gather_experiments(of_members)
    model = average_models([items["model"] for items in members.values()])
    tags = [items["tags"] for items in members.values()]
    trainings = {name: items["tags"]["training_sha256"] for name, items in members.items()}
    reports = [items["report"]["training"] for items in members.values()]
    seconds = sum(report["seconds"]["total"] for report in reports)
    folds = {"folds": reports[0]["folds"]} if settings.of_folds else {}
    return Joined(
        model,
        {"training": {"seconds": {"total": seconds}, "parameters": model.count_params(), **folds}},
        share_tags(tags) | {"training_sha256": hash_values(trainings)},
        {"classes": list(classes.names), "settings": describe_joined(settings)},
    )


def train_fold(
    features: StoredArray,
    pooled_features: StoredArray,
    split_manifest: pd.DataFrame,
    settings: ExperimentSettings,
    pretrained_weights: WeightsSource,
    classes: Classes,
    cache: Cache,
    fold: Fold | SiteFold,
) -> FoldTraining:
    """Train as `train_model` does, on the split of one fold, and predict its other images."""
    weights = pretrained_weights.choose(settings.backbone, settings.training.weights)
    check_features(features, settings, weights)
    device, fingerprint = _identify(
        FOLD_TRAINING.fingerprint, features, split_manifest, settings, classes, evaluated=True
    )

    def compute() -> _CachedTraining:
        fitted = train_network(
            features, pooled_features, split_manifest, settings, weights, classes, device
        )
        predictions = _predict_evaluated(fitted, features, split_manifest, settings, classes)
        return _record(predictions, fitted, features, split_manifest, settings, classes)

    trained, is_cached = _find_or_train(cache, fingerprint, compute, _PREDICTIONS, settings.title)
    predictions = trained.result.copy()
    # Labels and groups are those of the split: they may have other names than when it was trained.
    predictions[_KEYS] = _list_evaluated(split_manifest)[_KEYS]
    predictions.insert(4, "repeat", fold.repeat)
    predictions.insert(5, "fold", fold.fold)
    metrics = {
        "seconds": {"fitting": trained.report["seconds"]["fitting"]},
        "best_epoch": trained.report["best_epoch"],
        "test": _score_fold(predictions, classes),
    }
    tags = _describe(weights, device, fingerprint, is_cached) | {"fold": fold.name}
    logger.info(
        "%s, %s: accuracy %.3f, AUC of %s %.3f%s",
        settings.title,
        fold.name,
        metrics["test"]["accuracy"],
        classes.positive_name,
        metrics["test"]["positive"]["auc"],
        " (cached)" if is_cached else f" ({trained.report['seconds']['fitting']:.0f} s)",
    )
    return FoldTraining(
        predictions,
        {"metrics": metrics, "tags": tags},
        {"classes": list(classes.names), "settings": describe_settings(settings)},
    )


def gather_folds(**of_folds: Any) -> tuple[pd.DataFrame, dict[str, Any], dict[str, str]]:
    """Put the folds of an experiment together.

    Args:
        of_folds: `<fold>__predictions` and `<fold>__record` of each fold, in order.

    Returns the predictions of all folds in one table, the seconds of all trainings, and the tags
    that the folds share.
    """
    folds = gather_experiments(of_folds)
    predictions = pd.concat([items["predictions"] for items in folds.values()], ignore_index=True)
    records = [items["record"] for items in folds.values()]
    seconds = sum(record["metrics"]["seconds"]["fitting"] for record in records)
    shared = share_tags([record["tags"] for record in records])
    report = {"seconds": {"fitting": seconds, "total": seconds}, "folds": len(folds)}
    return predictions, {"training": report}, shared


def predict_with_linear_probe(
    pooled_features: StoredArray,
    settings: ExperimentSettings,
    classes: Classes,
    folds: Sequence[Fold | SiteFold],
    **split_manifests: pd.DataFrame,
) -> pd.DataFrame:
    """Predict the same folds by logistic regression on the pooled features of the frozen base.

    What fine-tuning has to beat; see learning.linear_probe. Returns the columns of FoldTraining's
    uncalibrated_predictions.

    Args:
        pooled_features, settings, classes: as of `train_fold`.
        folds: of the cross-validation.
        split_manifests: {name of the fold: its split}.
    """
    return join_tables(
        **{
            fold.name: predict_fold_with_linear_probe(
                pooled_features, split_manifests[fold.name], settings, classes, fold
            )
            for fold in folds
        }
    )


def predict_fold_with_linear_probe(
    pooled_features: StoredArray,
    split_manifest: pd.DataFrame,
    settings: ExperimentSettings,
    classes: Classes,
    fold: Fold | SiteFold,
) -> pd.DataFrame:
    """Predict one fold; see `predict_with_linear_probe`."""
    table = _list_evaluated(split_manifest).assign(repeat=fold.repeat, fold=fold.fold)
    table[probability_columns(classes, uncalibrated=True)] = fit_and_predict(
        pooled_features, split_manifest, settings, classes
    )
    return table


def _list_evaluated(split: pd.DataFrame) -> pd.DataFrame:
    return split.loc[split["split"].isin(["validation", "test"]), _KEYS].reset_index(drop=True)


def _predict_evaluated(
    fitted: FittedNetwork,
    features: StoredArray,
    split: pd.DataFrame,
    settings: ExperimentSettings,
    classes: Classes,
) -> pd.DataFrame:
    """Return the validation and test images with the network's `uncalibrated_<class>`."""
    table = _list_evaluated(split)
    table[probability_columns(classes, uncalibrated=True)] = predict_split(
        fitted, features, table, settings
    )
    return table


def _identify(
    make: Any,
    features: StoredArray,
    split: pd.DataFrame,
    settings: ExperimentSettings,
    classes: Classes,
    evaluated: bool = False,
) -> "tuple[Device, Fingerprint]":
    """Return the device and the fingerprint of a training on it."""
    from busi_pipeline.learning.device import prepare_device

    device = prepare_device(settings.training.precision)
    data = prepare_training_data(features, split, settings, classes)
    values = identify_training(features, data, settings, device, classes)
    if evaluated:
        rows = find_evaluation_rows(
            features, _list_evaluated(split)["image_id"], settings.training.tta_horizontal_flip
        )
        values["evaluated"] = [
            [features.keys[row] for row in of_image] for of_image in rows.tolist()
        ]
    return device, make(**values)


def _find_or_train(
    cache: Cache,
    fingerprint: Fingerprint,
    compute: Any,
    codec: "Codec[_CachedTraining]",
    title: str,
) -> tuple[_CachedTraining, bool]:
    found = cache.find(fingerprint, codec)
    if found is not None:
        logger.info("%s: nothing changed since it was trained; taken from the cache", title)
        return found, True
    # Lazily, since it imports TensorFlow.
    from busi_pipeline.learning.fitting import NotFiniteError

    try:
        trained = compute()
    except NotFiniteError as error:
        kept = cache.folder / "stopped_training" / f"{fingerprint.digest[:32]}.keras"
        with replace_whole(kept) as unfinished:
            error.model.save(unfinished)
        raise BadInputError(
            f"{title}: {error} Nothing was delivered; the last good weights are in {kept}."
        ) from None
    cache.store(fingerprint, trained, codec)
    return trained, False


def _record(
    result: Any,
    fitted: FittedNetwork,
    features: StoredArray,
    split: pd.DataFrame,
    settings: ExperimentSettings,
    classes: Classes,
) -> _CachedTraining:
    data = prepare_training_data(features, split, settings, classes)
    history = {name: phase.history for name, phase in fitted.phases.items()}
    return _CachedTraining(result, history, report_training(fitted, data, classes))


def _describe(
    weights: PretrainedWeights, device: "Device", fingerprint: Fingerprint, is_cached: bool
) -> dict[str, str]:
    return {
        **weights.tags,
        "device": device.name,
        "precision": device.precision,
        "training_sha256": fingerprint.digest,
        "training_cached": "yes" if is_cached else "no",
    }


def _score_fold(predictions: pd.DataFrame, classes: Classes) -> dict[str, Any]:
    test = predictions[predictions["split"] == "test"]
    probabilities = test[probability_columns(classes, uncalibrated=True)].to_numpy()
    return score_classification(classes.positions(test["label"]), probabilities, classes)


def _write_records(trained: _CachedTraining, folder: Path) -> None:
    records = {"history": trained.history, "report": trained.report}
    (folder / "records.json").write_text(json.dumps(records))


def _read_records(folder: Path) -> Mapping[str, Any]:
    return json.loads((folder / "records.json").read_text())


def _write_model(trained: _CachedTraining, folder: Path) -> None:
    _write_records(trained, folder)
    trained.result.save(folder / "model.keras")


def _read_model(folder: Path) -> _CachedTraining:
    model = load_keras_file(folder / "model.keras")
    return _CachedTraining(model, **_read_records(folder))


def _write_predictions(trained: _CachedTraining, folder: Path) -> None:
    _write_records(trained, folder)
    TABLE.write(trained.result, folder)


def _read_predictions(folder: Path) -> _CachedTraining:
    return _CachedTraining(TABLE.read(folder), **_read_records(folder))


def _write_bag(trained: _CachedTraining, folder: Path) -> None:
    model, predictions = trained.result
    _write_model(trained._replace(result=model), folder)
    TABLE.write(predictions, folder)


def _read_bag(folder: Path) -> _CachedTraining:
    found = _read_model(folder)
    return found._replace(result=(found.result, TABLE.read(folder)))


_BAG = Codec(_write_bag, _read_bag)
_MODEL = Codec(_write_model, _read_model)
_PREDICTIONS = Codec(_write_predictions, _read_predictions)
