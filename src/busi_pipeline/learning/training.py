"""Train one network on features of its frozen part: the same for a hold-out split and a fold.

Keras is imported inside the functions: building the pipelines (`kedro registry list`, `kedro viz`)
must not wait for TensorFlow.
"""

import gc
import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from busi_pipeline.caching.arrays import StoredArray
from busi_pipeline.caching.fingerprints import Step
from busi_pipeline.config.schemas import ExperimentSettings
from busi_pipeline.learning.features import (
    build_for_training,
    build_network,
    describe_settings,
    identify_backbone,
)
from busi_pipeline.learning.linear_probe import LinearProbe, PooledRows, fit_linear_probe
from busi_pipeline.learning.predicting import predict_before_and_after, predict_rows
from busi_pipeline.learning.training_data import (
    LabelledRows,
    TrainingData,
    find_evaluation_rows,
    is_not_augmented,
    measure_cross_entropy,
    prepare_training_data,
)
from busi_pipeline.models.weights import PretrainedWeights
from busi_pipeline.stats.classes import Classes

if TYPE_CHECKING:
    import keras

    from busi_pipeline.learning.device import Device
    from busi_pipeline.learning.fitting import PhaseResult
    from busi_pipeline.models.network import Network

logger = logging.getLogger(__name__)

_LIBRARIES = ("keras", "numpy", "scikit-learn", "tensorflow")
TRAINING = Step(
    "training",
    1,
    (
        "busi_pipeline.learning.features:build_for_training",
        "busi_pipeline.learning.training:fit_network",
        "busi_pipeline.learning.training:assemble_model",
    ),
    _LIBRARIES,
)
FOLD_TRAINING = Step(
    "fold_training",
    1,
    (
        "busi_pipeline.learning.features:build_for_training",
        "busi_pipeline.learning.training:fit_network",
        "busi_pipeline.learning.predicting:predict_rows",
    ),
    _LIBRARIES,
)


BAG_TRAINING = Step(
    "bag_training",
    1,
    (
        "busi_pipeline.learning.features:build_for_training",
        "busi_pipeline.learning.training:fit_network",
        "busi_pipeline.learning.training:assemble_bag",
        "busi_pipeline.learning.predicting:predict_rows",
    ),
    _LIBRARIES,
)


class FittedNetwork(NamedTuple):
    """A network after its training.

    Attributes:
        network: with the fitted weights.
        phases: {name: what came of it}.
        pretuned: weights of `network.trainable` before fine-tuning, where the delivered model
            averages over them as well. None where it does not, or fine-tuning was rolled back.
        seconds: wall time.
    """

    network: "Network"
    phases: "dict[str, PhaseResult]"
    pretuned: list[np.ndarray] | None
    seconds: float


def identify_training(
    features: StoredArray,
    data: TrainingData,
    settings: ExperimentSettings,
    device: "Device",
    classes: Classes,
) -> dict[str, Any]:
    """Return everything that decides how a training comes out, JSON-like."""
    return {
        "features": features.fingerprint.digest,
        "rows": {
            name: [
                [[features.keys[row] for row in rows], int(label)]
                for rows, label in zip(part.rows.tolist(), part.labels, strict=True)
            ]
            for name, part in (("training", data.training), ("validation", data.validation))
        },
        "classes": list(classes.names),
        "settings": describe_settings(settings),
        "backbone": identify_backbone(settings),
        "class_weights": data.class_weights.tolist(),
        **(
            {}
            if data.validation.sites is None
            else {"validation_sites": data.validation.sites.tolist()}
        ),
        **({} if data.site_weights is None else {"site_weights": data.site_weights.tolist()}),
        "device": [device.name, device.precision],
    }


def train_network(
    features: StoredArray,
    pooled_features: StoredArray,
    split: pd.DataFrame,
    settings: ExperimentSettings,
    weights: PretrainedWeights,
    classes: Classes,
    device: "Device",
) -> FittedNetwork:
    """Train the head on the frozen base, then head and tail, on features computed before.

    Epochs and weights are chosen on the validation images of the split.
    """
    import keras

    from busi_pipeline.learning.device import list_gpus, spread_over

    begun = time.perf_counter()
    data = prepare_training_data(features, split, settings, classes)
    # Graphs of former networks hold each other; those of fifteen folds would not fit.
    keras.backend.clear_session()
    gc.collect()
    with spread_over(list_gpus() if settings.training.devices == "all" else []):
        network = build_for_training(settings, weights, len(classes), device)
        phases, pretuned = fit_network(network, features, pooled_features, data, settings)
    return FittedNetwork(network, phases, pretuned, time.perf_counter() - begun)


def report_training(fitted: FittedNetwork, data: TrainingData, classes: Classes) -> dict[str, Any]:
    """Return seconds, epochs, class weights and sizes, for MLflow's metrics."""
    return {
        "seconds": {"fitting": fitted.seconds}
        | {name: phase.seconds for name, phase in fitted.phases.items()},
        "epochs": {name: len(phase.history["loss"]) for name, phase in fitted.phases.items()},
        "best_epoch": {name: phase.best_epoch for name, phase in fitted.phases.items()},
        "class_weight": dict(zip(classes.names, map(float, data.class_weights), strict=True)),
        "fine_tuned_parameters": sum(
            int(np.prod(w.shape)) for w in fitted.network.trainable.trainable_weights
        ),
    }


def assemble_model(
    fitted: FittedNetwork, settings: ExperimentSettings, weights: PretrainedWeights, classes: int
) -> "keras.Model":
    """Return the model of a fitted network, in single precision.

    uint8 (n, size, size, 3) RGB, of several windows (n, windows, size, size, 3), -> float32
    (n, classes) probabilities.
    """
    from busi_pipeline.learning.device import dtype_policy
    from busi_pipeline.models.wrappers import average_with_pretuned

    with dtype_policy("float32"):
        tuned = build_network(settings, weights, classes)
        tuned.full.set_weights(fitted.network.full.get_weights())
        model = tuned.full
        if fitted.pretuned is not None:
            before = build_network(settings, weights, classes)
            before.trainable.set_weights(fitted.pretuned)
            model = average_with_pretuned(tuned, before)
        return _average_views(model, settings)


def assemble_bag(
    fitted: Sequence[FittedNetwork],
    settings: ExperimentSettings,
    weights: PretrainedWeights,
    classes: int,
) -> "keras.Model":
    """Return one model of several fitted networks of an experiment: the mean of their answers.

    They share the frozen base, which computes once. Input and output are those of `assemble_model`.
    """
    from busi_pipeline.learning.device import dtype_policy
    from busi_pipeline.models.wrappers import average_networks

    with dtype_policy("float32"):
        networks, shares = [], []
        for own in fitted:
            states = [own.network.trainable.get_weights()]
            states += [] if own.pretuned is None else [own.pretuned]
            for state in states:
                network = build_network(settings, weights, classes)
                network.frozen.set_weights(own.network.frozen.get_weights())
                network.trainable.set_weights(state)
                networks.append(network)
                shares.append(1 / len(states))
        phases = [own.phases["fine_tuning"] for own in fitted if "fine_tuning" in own.phases]
        same_tail = not any(phase.best_epoch for phase in phases)
        return _average_views(average_networks(networks, shares, same_tail), settings)


def _average_views(model: "keras.Model", settings: ExperimentSettings) -> "keras.Model":
    """Return the model over the flip, and over the windows, where the settings have them."""
    from busi_pipeline.models.wrappers import average_over_windows, average_with_flipped

    if settings.training.tta_horizontal_flip:
        model = average_with_flipped(model)
    windows = len(settings.input.windows)
    return average_over_windows(model, windows) if windows > 1 else model


def predict_split(
    fitted: FittedNetwork,
    features: StoredArray,
    images: pd.DataFrame,
    settings: ExperimentSettings,
) -> np.ndarray:
    """Return float64 (images, classes) probabilities from features, in training precision.

    Args:
        fitted: the network.
        features: of the images' originals and, where the settings ask for it, of their flips.
        images: `image_id`.
    """
    rows = find_evaluation_rows(features, images["image_id"], settings.training.tta_horizontal_flip)
    network = fitted.network
    model = network.trainable if settings.fine_tunes else network.head
    return predict_rows(model, fitted.pretuned, features, rows)


def fit_network(
    network: "Network",
    features: StoredArray,
    pooled_features: StoredArray,
    data: TrainingData,
    settings: ExperimentSettings,
) -> "tuple[dict[str, PhaseResult], list[np.ndarray] | None]":
    """Train the head, then head and tail, in place; return `phases` and `pretuned`, see
    FittedNetwork."""
    from busi_pipeline.learning.fitting import fit_phase

    training = settings.training
    phases = {}
    pretuned = None
    if training.head_solver == "logistic_regression":
        phases["head"] = _solve_head(network, pooled_features, data, settings)
    elif training.head_phase.epochs:
        phases["head"] = fit_phase(
            "head", network.head, pooled_features.values, data, training.head_phase, training.seed
        )
    if settings.fine_tunes:
        if training.average_with_pretuned:
            pretuned = network.trainable.get_weights()
        phases["fine_tuning"] = fit_phase(
            "fine-tuning",
            network.trainable,
            features.values,
            data,
            training.fine_tuning,
            training.seed,
            # What is averaged with the pre-fine-tuning weights need not be better by itself.
            roll_back="head" in phases and pretuned is None,
        )
        if pretuned is not None and not _improves(network, pretuned, features, data):
            network.trainable.set_weights(pretuned)
            pretuned = None
            phases["fine_tuning"] = phases["fine_tuning"]._replace(best_epoch=0)
    return phases, pretuned


def _improves(
    network: "Network", pretuned: list[np.ndarray], features: StoredArray, data: TrainingData
) -> bool:
    """Whether the mean with the pre-fine-tuning weights has a lower cross-entropy on validation
    images than these alone."""
    labels, rows = data.validation.labels, data.validation.rows[:, :1]
    before, mean = (
        measure_cross_entropy(labels, predicted, data.validation.sites)
        for predicted in predict_before_and_after(network.trainable, pretuned, features, rows)
    )
    logger.log(
        logging.INFO if mean < before else logging.WARNING,
        "fine-tuning, averaged with the weights before it: validation cross-entropy %.3f, from "
        "%.3f%s",
        mean,
        before,
        "" if mean < before else ": rolled back",
    )
    return mean < before


def _solve_head(
    network: "Network",
    pooled_features: StoredArray,
    data: TrainingData,
    settings: ExperimentSettings,
) -> "PhaseResult":
    """Put the linear probe into the head; what it scores counts as one epoch."""
    from busi_pipeline.learning.fitting import PhaseResult, evaluate_phase

    begun = time.perf_counter()
    probe = fit_probe(pooled_features, data, settings)
    network.head.get_layer("probabilities").set_weights([probe.kernel, probe.bias])
    curves = evaluate_phase(
        network.head, pooled_features.values, data, settings.training.head_phase
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


def fit_probe(
    pooled_features: StoredArray, data: TrainingData, settings: ExperimentSettings
) -> LinearProbe:
    """Fit the linear probe on what `head_learns_from` says."""
    training, validation = (
        _read_originals(pooled_features, part) for part in (data.training, data.validation)
    )
    if settings.training.head_learns_from == "all":
        training = PooledRows(read_rows(pooled_features, data.training.rows), data.training.labels)
    training = training._replace(weights=data.site_weights)
    return fit_linear_probe(
        training, validation, data.class_weights.tolist(), settings.training.head_strengths
    )


def predict_with_linear_probe(
    pooled_features: StoredArray,
    split: pd.DataFrame,
    settings: ExperimentSettings,
    classes: Classes,
) -> np.ndarray:
    """Fit the linear probe on a split; return float64 (n, classes) probabilities of its validation
    and test images, in their order."""
    data = prepare_training_data(pooled_features, split, settings, classes)
    probe = fit_probe(pooled_features, data, settings)
    evaluated = split[split["split"] != "train"]
    rows = find_evaluation_rows(
        pooled_features, evaluated["image_id"], settings.training.tta_horizontal_flip
    )
    return probe.predict(read_rows(pooled_features, rows))


def read_rows(pooled_features: StoredArray, rows: np.ndarray) -> np.ndarray:
    """Return float32 (images, augmentations, channels) of the rows (images, augmentations)."""
    vectors = pooled_features.values[rows.ravel()].astype(np.float32)
    return vectors.reshape(*rows.shape, -1)


def _read_originals(pooled_features: StoredArray, part: LabelledRows) -> PooledRows:
    rows = part.rows[:, is_not_augmented(pooled_features, part.rows[0])]
    return PooledRows(read_rows(pooled_features, rows), part.labels, sites=part.sites)
