"""Train one experiment: features of the frozen part once, then head and tail on them.

Keras is imported inside the nodes: building the pipelines (`kedro registry list`, `kedro viz`)
must not wait for TensorFlow.
"""

import logging
import math
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn.utils.class_weight import compute_class_weight

from busi_pipeline.arrays import ArrayStream, StoredArray
from busi_pipeline.datasets.pretrained_weights import ChosenWeights, WeightsSource
from busi_pipeline.errors import BadInputError
from busi_pipeline.experiments import ExperimentSettings
from busi_pipeline.pipelines.augmentation.transforms import Movement, list_movements, move_image
from busi_pipeline.progress import track

if TYPE_CHECKING:
    import keras

    from busi_pipeline.core.fitting import LabelledViews
    from busi_pipeline.core.network import Network

logger = logging.getLogger(__name__)


class Training(NamedTuple):
    """What training hands over.

    Attributes:
        model: uint8 (n, size, size, 3) RGB -> float32 (n, classes) probabilities, in float32.
        history: {phase: {metric: one value an epoch}}.
        report: seconds, epochs and class weights, for MLflow's metrics.
        tags: weights, their hash, device and precision.
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


def extract_features(
    images: StoredArray,
    augmentation_plan: pd.DataFrame,
    split_manifest: pd.DataFrame,
    settings: Mapping[str, Any],
    pretrained_weights: WeightsSource,
    classes: list[str],
) -> ArrayStream:
    """Run the frozen part over every augmented view and every validation image.

    Returns float16 features: at the cut where the tail is fine-tuned, else pooled over the whole
    frozen base. Rows are (image_id, view); view 0 is the image as it is. Test images are not
    touched: evaluation shows them to the finished model.
    """
    experiment = ExperimentSettings.model_validate(settings)
    chosen = pretrained_weights.choose(experiment.backbone, experiment.training.weights)
    network, precision, _ = _build_for_training(experiment, chosen, len(classes))
    model = network.frozen if experiment.fine_tunes else _pooled(network)
    validation = split_manifest.loc[split_manifest["split"] == "validation", ["image_id"]]
    views = pd.concat(
        [augmentation_plan, validation.assign(view=0, **Movement()._asdict())], ignore_index=True
    )
    positions = images.find_rows(views["image_id"])
    seconds = 0.0

    def chunks() -> Iterator[np.ndarray]:
        nonlocal seconds
        size = experiment.training.extraction_batch_size
        movements = list(list_movements(views))
        starts = range(0, len(views), size)
        for start in track(starts, f"features of {experiment.title}", "batch"):
            begun = time.perf_counter()
            batch = np.stack(
                [
                    move_image(np.asarray(images.values[position]), movement)
                    for position, movement in zip(
                        positions[start : start + size],
                        movements[start : start + size],
                        strict=True,
                    )
                ]
            )
            features = np.asarray(model.predict_on_batch(batch)).astype(np.float16)
            if not np.isfinite(features).all():
                raise BadInputError(
                    f"features of {experiment.backbone} after {experiment.tail_after} do not fit "
                    "float16: cut the network elsewhere (tail_after)."
                )
            seconds += time.perf_counter() - begun
            yield features

    return ArrayStream(
        index=views[["image_id", "view"]],
        shape=tuple(model.output_shape[1:]),
        dtype="float16",
        chunks=chunks(),
        describe=lambda: {
            "seconds": seconds,
            "precision": precision,
            "made_by": _identify_features(experiment, chosen),
        },
    )


def train_model(
    features: StoredArray,
    split_manifest: pd.DataFrame,
    settings: Mapping[str, Any],
    pretrained_weights: WeightsSource,
    classes: list[str],
) -> Training:
    """Train the head on the frozen base, then head and tail, on features computed before.

    Epochs and weights are chosen on the validation images. Raises BadInputError where the features
    come from other settings than these.
    """
    from busi_pipeline.core.fitting import Lesson, fit_phase, pool_features
    from busi_pipeline.core.network import average_mirror
    from busi_pipeline.device import dtype_policy

    experiment = ExperimentSettings.model_validate(settings)
    recipe = experiment.training
    chosen = pretrained_weights.choose(experiment.backbone, recipe.weights)
    _check_features(features, experiment, chosen)
    begun = time.perf_counter()
    network, precision, device = _build_for_training(experiment, chosen, len(classes))
    training = _label_views(features, split_manifest, "train", classes)
    validation = _label_views(features, split_manifest, "validation", classes)
    weights = compute_class_weights(training.labels, classes, recipe.class_weights)
    lesson = Lesson(training, validation, weights, recipe.label_smoothing)
    phases = {}
    start_loss = math.inf
    if recipe.head_phase.epochs:
        pooled = features.values
        if experiment.fine_tunes:
            logger.info("pooling %d views for the head", len(features.values))
            pooled = pool_features(network.tail, features.values, recipe.extraction_batch_size)
        phases["head"] = fit_phase(
            "head", network.head, pooled, lesson, recipe.head_phase, recipe.seed
        )
        start_loss = min(phases["head"].history["val_loss"])
    if experiment.fine_tunes:
        phases["fine_tuning"] = fit_phase(
            "fine-tuning",
            network.trainable,
            features.values,
            lesson,
            recipe.fine_tuning,
            recipe.seed,
            start_loss,
        )
    with dtype_policy("float32"):
        model = _build(experiment, chosen, len(classes)).full
        model.set_weights(network.full.get_weights())
        if recipe.average_mirror:
            model = average_mirror(model)
    fitting = time.perf_counter() - begun
    report: dict[str, Any] = {
        "seconds": {"features": features.attributes["seconds"], "fitting": fitting}
        | {name: phase.seconds for name, phase in phases.items()},
        "epochs": {name: len(phase.history["loss"]) for name, phase in phases.items()},
        "best_epoch": {name: phase.best_epoch for name, phase in phases.items()},
        "class_weight": dict(zip(classes, map(float, weights), strict=True)),
        "parameters": model.count_params(),
        "fine_tuned_parameters": sum(
            int(np.prod(w.shape)) for w in network.trainable.trainable_weights
        ),
    }
    report["seconds"]["total"] = features.attributes["seconds"] + fitting
    tags = {**chosen.tags, "device": device, "precision": precision}
    history = {name: phase.history for name, phase in phases.items()}
    return Training(model, history, {"training": report}, tags)


def _build(experiment: ExperimentSettings, chosen: ChosenWeights, classes: int) -> "Network":
    from busi_pipeline.core.network import build_network

    return build_network(
        experiment.backbone,
        experiment.image_size,
        experiment.tail_after,
        experiment.base_end,
        experiment.training.head,
        classes,
        chosen.argument,
    )


def _build_for_training(
    experiment: ExperimentSettings, chosen: ChosenWeights, classes: int
) -> tuple["Network", str, str]:
    """Return the network under the training precision, the precision, the device.

    Seeded: without pretrained weights, extraction and training must build the same trunk.
    """
    import keras

    from busi_pipeline.device import dtype_policy, prepare_device

    device = prepare_device(experiment.training.precision)
    keras.utils.set_random_seed(experiment.training.seed)
    with dtype_policy(device.precision):
        return _build(experiment, chosen, classes), device.precision, device.name


def _pooled(network: "Network") -> "keras.Model":
    """The whole base and the pooling: what stays frozen where nothing is fine-tuned."""
    import keras

    return keras.Model(network.frozen.input, network.tail(network.frozen.output))


def _identify_features(experiment: ExperimentSettings, chosen: ChosenWeights) -> dict[str, Any]:
    return {
        "backbone": experiment.backbone,
        "image_size": experiment.image_size,
        "cut": experiment.tail_after if experiment.fine_tunes else "pool",
        "base_end": None if experiment.fine_tunes else experiment.base_end,
        "weights_sha256": chosen.tags["weights_sha256"],
        "augmentation": experiment.augmentation.model_dump(),
        "seed": experiment.training.seed,
    }


def _check_features(
    features: StoredArray, experiment: ExperimentSettings, chosen: ChosenWeights
) -> None:
    made_by, wanted = features.attributes["made_by"], _identify_features(experiment, chosen)
    differing = [key for key in wanted if made_by.get(key) != wanted[key]]
    if differing:
        key = differing[0]
        raise BadInputError(
            f"the stored features of {experiment.title!r} were made with {key} "
            f"{made_by.get(key)!r}, the settings say {wanted[key]!r}: rerun from extract_features."
        )


def _label_views(
    features: StoredArray, split_manifest: pd.DataFrame, split: str, classes: list[str]
) -> "LabelledViews":
    """Return the rows of each image of a split in the features, with its label's position."""
    from busi_pipeline.core.fitting import LabelledViews

    images = split_manifest[split_manifest["split"] == split]
    rows_of = features.index.groupby("image_id", sort=False).indices
    missing = [image_id for image_id in images["image_id"] if image_id not in rows_of]
    if missing:
        raise BadInputError(
            f"{len(missing)} {split} images have no features ({missing[0]!r} is the first): "
            "the split changed since; rerun from plan_augmentation."
        )
    rows = np.stack([rows_of[image_id] for image_id in images["image_id"]])
    labels = images["label"].map({name: i for i, name in enumerate(classes)}).to_numpy(np.int64)
    return LabelledViews(rows, labels)
