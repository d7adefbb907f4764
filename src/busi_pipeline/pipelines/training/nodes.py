"""Train one experiment: head and tail on features of the frozen part.

Keras is imported inside the nodes: building the pipelines (`kedro registry list`, `kedro viz`)
must not wait for TensorFlow.
"""

import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn.metrics import log_loss
from sklearn.utils.class_weight import compute_class_weight

from busi_pipeline.arrays import StoredArray
from busi_pipeline.datasets.kept_training import KeptTraining
from busi_pipeline.datasets.pretrained_weights import ChosenWeights, WeightsSource
from busi_pipeline.experiments import ExperimentSettings
from busi_pipeline.fingerprints import describe_code, hash_values

from .features import (
    build_for_training,
    build_network,
    check_features,
    is_still,
    label_views,
)
from .predicting import predict_ends
from .probe import PooledViews, Probe, fit_probe

if TYPE_CHECKING:
    import keras

    from busi_pipeline.core.fitting import LabelledViews, Lesson, PhaseResult
    from busi_pipeline.core.network import Network
    from busi_pipeline.device import Device

logger = logging.getLogger(__name__)


class Fitted(NamedTuple):
    """What fitting hands over beside the network it changed.

    Attributes:
        phases: {name: what came of it}.
        start: weights of `network.trainable` before fine-tuning, where the delivered model averages
            over them, too. None where it does not, or fine-tuning did not help and was undone.
    """

    phases: "dict[str, PhaseResult]"
    start: list[np.ndarray] | None


class Training(NamedTuple):
    """What training hands over.

    Attributes:
        model: uint8 (n, size, size, 3) RGB -> float32 (n, classes) probabilities, in float32.
        history: {phase: {metric: one value an epoch}}.
        report: seconds, epochs and class weights, for MLflow's metrics.
        tags: weights, their hash, device and precision; `training_sha256`, the hash of all the
            training depends on, and `training_kept`, whether it was taken from an earlier run.
    """

    model: "keras.Model"
    history: dict[str, dict[str, list[float]]]
    report: dict[str, Any]
    tags: dict[str, str]


def compute_class_weights(labels: np.ndarray, classes: list[str], method: str) -> np.ndarray:
    """Return float64 (classes,), the weight of each class by its share of the training labels.

    "balanced" is n / (classes * n_class), so that every class weighs the same in the loss; "none"
    is 1 each. Weights are looked up by position, never by name: Keras ignores a `class_weight`
    dictionary with string keys without a word.
    """
    if method == "none":
        return np.ones(len(classes))
    return compute_class_weight("balanced", classes=np.arange(len(classes)), y=labels)


def train_model(
    features: StoredArray,
    pooled_features: StoredArray,
    split_manifest: pd.DataFrame,
    settings: Mapping[str, Any],
    pretrained_weights: WeightsSource,
    classes: list[str],
    kept_training: KeptTraining | None,
) -> Training:
    """Train the head on the frozen base, then head and tail, on features computed before.

    Epochs and weights are chosen on the validation images. Where nothing the training depends on
    changed since the one that was kept (features, labels, settings, weights, code, libraries,
    device), that one is returned instead. Raises BadInputError where the features come from other
    settings than these.
    """
    from busi_pipeline.device import list_gpus, prepare_device, spread_over

    experiment = ExperimentSettings.model_validate(settings)
    recipe = experiment.training
    chosen = pretrained_weights.choose(experiment.backbone, recipe.weights)
    check_features(features, experiment, chosen)
    begun = time.perf_counter()
    lesson = prepare_lesson(features, split_manifest, experiment, classes)
    device = prepare_device(recipe.precision)
    identity = identify_training(features, lesson, experiment, device)
    if kept_training is not None and (kept := kept_training.find(identity)) is not None:
        logger.info("%s: nothing changed since it was trained; kept", experiment.title)
        return Training(*kept[:3], kept[3] | {"training_kept": "yes"})
    with spread_over(list_gpus() if recipe.devices == "all" else []):
        network = build_for_training(experiment, chosen, len(classes), device)
        phases, start = fit_network(network, features, pooled_features, lesson, experiment)
    model = _assemble(network, start, experiment, chosen, len(classes))
    model.name = KeptTraining.name_model(experiment.backbone, identity)
    fitting = time.perf_counter() - begun
    # Where nothing is fine-tuned, both are the same array.
    arrays = [features, pooled_features] if experiment.fine_tunes else [features]
    report: dict[str, Any] = {
        "seconds": {
            # As if from nothing, whatever was kept from before, so that trainings compare.
            "features": sum(array.attributes["seconds"] for array in arrays),
            "features_now": sum(array.attributes["seconds_now"] for array in arrays),
            "fitting": fitting,
        }
        | {name: phase.seconds for name, phase in phases.items()},
        "epochs": {name: len(phase.history["loss"]) for name, phase in phases.items()},
        "best_epoch": {name: phase.best_epoch for name, phase in phases.items()},
        "class_weight": dict(zip(classes, map(float, lesson.class_weights), strict=True)),
        "parameters": model.count_params(),
        "fine_tuned_parameters": sum(
            int(np.prod(w.shape)) for w in network.trainable.trainable_weights
        ),
    }
    report["seconds"]["total"] = report["seconds"]["features"] + fitting
    tags = {
        **chosen.tags,
        "device": device.name,
        "precision": device.precision,
        "training_sha256": identity,
        "training_kept": "no",
    }
    history = {name: phase.history for name, phase in phases.items()}
    return Training(model, history, {"training": report}, tags)


def _assemble(
    network: "Network",
    start: list[np.ndarray] | None,
    experiment: ExperimentSettings,
    chosen: ChosenWeights,
    classes: int,
) -> "keras.Model":
    """Build the model that is handed over, in single precision."""
    from busi_pipeline.core.delivery import average_start
    from busi_pipeline.core.network import average_mirror
    from busi_pipeline.device import dtype_policy

    with dtype_policy("float32"):
        tuned = build_network(experiment, chosen, classes)
        tuned.full.set_weights(network.full.get_weights())
        model = tuned.full
        if start is not None:
            begun = build_network(experiment, chosen, classes)
            begun.trainable.set_weights(start)
            model = average_start(tuned, begun)
        return average_mirror(model) if experiment.training.average_mirror else model


def prepare_lesson(
    features: StoredArray,
    split_manifest: pd.DataFrame,
    experiment: ExperimentSettings,
    classes: list[str],
) -> "Lesson":
    """Return what is learned from the training images and judged on the validation images."""
    from busi_pipeline.core.fitting import Lesson

    training = label_views(features, split_manifest, "train", classes)
    validation = label_views(features, split_manifest, "validation", classes)
    weights = compute_class_weights(training.labels, classes, experiment.training.class_weights)
    return Lesson(training, validation, weights, experiment.training.label_smoothing)


def fit_network(
    network: "Network",
    features: StoredArray,
    pooled_features: StoredArray,
    lesson: "Lesson",
    experiment: ExperimentSettings,
) -> Fitted:
    """Train the head, then head and tail, in place."""
    from busi_pipeline.core.fitting import fit_phase

    recipe = experiment.training
    phases = {}
    start = None
    if recipe.head_solver == "logistic_regression":
        phases["head"] = _solve_head(network, pooled_features, lesson, experiment)
    elif recipe.head_phase.epochs:
        phases["head"] = fit_phase(
            "head", network.head, pooled_features.values, lesson, recipe.head_phase, recipe.seed
        )
    if experiment.fine_tunes:
        if recipe.average_start:
            start = network.trainable.get_weights()
        phases["fine_tuning"] = fit_phase(
            "fine-tuning",
            network.trainable,
            features.values,
            lesson,
            recipe.fine_tuning,
            recipe.seed,
            # What is averaged with its start need not be better by itself.
            beat_start="head" in phases and start is None,
        )
        if start is not None and not _helps(network, start, features, lesson):
            network.trainable.set_weights(start)
            start = None
            phases["fine_tuning"] = phases["fine_tuning"]._replace(best_epoch=0)
    return Fitted(phases, start)


def _helps(
    network: "Network", start: list[np.ndarray], features: StoredArray, lesson: "Lesson"
) -> bool:
    """Whether the mean with the start has a lower cross-entropy on validation images than the
    start alone."""
    labels, views = lesson.validation.labels, lesson.validation.rows[:, :1]
    begun, mean = (
        float(log_loss(labels, said, labels=list(range(said.shape[1]))))
        for said in predict_ends(network.trainable, start, features, views)
    )
    logger.log(
        logging.INFO if mean < begun else logging.WARNING,
        "fine-tuning, averaged with its start: validation cross-entropy %.3f, from %.3f%s",
        mean,
        begun,
        "" if mean < begun else ": undone",
    )
    return mean < begun


def _solve_head(
    network: "Network",
    pooled_features: StoredArray,
    lesson: "Lesson",
    experiment: ExperimentSettings,
) -> "PhaseResult":
    """Put the probe into the head; what it is worth counts as one epoch."""
    from busi_pipeline.core.fitting import PhaseResult, judge_phase

    begun = time.perf_counter()
    probe = find_probe(pooled_features, lesson)
    network.head.get_layer("probabilities").set_weights([probe.kernel, probe.bias])
    curves = judge_phase(
        network.head, pooled_features.values, lesson, experiment.training.head_phase
    )
    seconds = time.perf_counter() - begun
    logger.info(
        "head by logistic regression, penalty 1 / %g: cross-entropy %.3f, accuracy %.3f; "
        "validation %.3f, %.3f (%.1f s)",
        probe.strength,
        *(
            curves[key]
            for key in ("cross_entropy", "accuracy", "val_cross_entropy", "val_accuracy")
        ),
        seconds,
    )
    return PhaseResult({name: [value] for name, value in curves.items()}, 1, seconds)


def find_probe(pooled_features: StoredArray, lesson: "Lesson") -> Probe:
    """Fit the probe on the views that are not moved."""
    training, validation = (
        read_still_views(pooled_features, part) for part in (lesson.training, lesson.validation)
    )
    return fit_probe(training, validation, lesson.class_weights.tolist())


def read_still_views(pooled_features: StoredArray, part: "LabelledViews") -> PooledViews:
    """Return the pooled features of the views that are not moved."""
    still = part.rows[:, is_still(pooled_features, part.rows[0])]
    return PooledViews(read_views(pooled_features, still), part.labels)


def read_views(pooled_features: StoredArray, rows: np.ndarray) -> np.ndarray:
    """Return float32 (images, views, channels) of the rows (images, views)."""
    vectors = pooled_features.values[rows.ravel()].astype(np.float32)
    return vectors.reshape(*rows.shape, -1)


def identify_training(
    features: StoredArray, lesson: "Lesson", experiment: ExperimentSettings, device: "Device"
) -> str:
    """Hash everything that decides how the model comes out."""
    views = {
        name: [
            [[features.keys[row] for row in rows], int(label)]
            for rows, label in zip(part.rows.tolist(), part.labels, strict=True)
        ]
        for name, part in (("training", lesson.training), ("validation", lesson.validation))
    }
    return hash_values(
        {
            "features": features.recipe,
            "views": views,
            "settings": experiment.model_dump(
                exclude={"title", "in_default", "baseline_of", "published"}
            ),
            "class_weights": lesson.class_weights.tolist(),
            "device": [device.name, device.precision],
            **describe_code(__name__, libraries=("keras", "numpy", "scikit-learn", "tensorflow")),
        }
    )
