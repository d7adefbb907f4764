"""Features of the frozen part: computed once for every view of an image, then kept.

Keras is imported inside the functions: building the pipelines (`kedro registry list`, `kedro viz`)
must not wait for TensorFlow.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from busi_pipeline.arrays import ArrayStream, StoredArray
from busi_pipeline.datasets.pretrained_weights import ChosenWeights, WeightsSource
from busi_pipeline.errors import BadInputError
from busi_pipeline.experiments import ExperimentSettings
from busi_pipeline.fingerprints import describe_code, hash_values
from busi_pipeline.labels import find_positions
from busi_pipeline.movements import (
    MIRROR_VIEW,
    PLAIN_VIEW,
    Movement,
    find_origins,
    list_movements,
    move_image,
)
from busi_pipeline.progress import track

if TYPE_CHECKING:
    import keras

    from busi_pipeline.core.fitting import LabelledViews
    from busi_pipeline.core.network import Network
    from busi_pipeline.device import Device


def extract_features(
    images: StoredArray,
    augmentation_plan: pd.DataFrame,
    settings: Mapping[str, Any],
    pretrained_weights: WeightsSource,
    classes: list[str],
) -> ArrayStream:
    """Describe the features of every view in the plan.

    What is computed are float16 features: at the cut where the tail is fine-tuned, else pooled over
    the whole frozen base. Rows are (image_id, view).
    """
    from busi_pipeline.core.extraction import compute_features
    from busi_pipeline.device import choose_batch_size, prepare_device

    experiment = ExperimentSettings.model_validate(settings)
    recipe = experiment.training
    chosen = pretrained_weights.choose(experiment.backbone, recipe.weights)
    device = prepare_device(recipe.precision)
    on_device = recipe.move_views_on == "device" or (
        recipe.move_views_on == "auto" and device.is_gpu
    )
    of_image = images.find_rows(augmentation_plan["image_id"])
    movements = list(list_movements(augmentation_plan))

    def compute(positions: np.ndarray) -> Iterator[np.ndarray]:
        network = build_for_training(experiment, chosen, len(classes), device)
        model = network.frozen if experiment.fine_tunes else _pooled(network)
        size = choose_batch_size(recipe.extraction_batch_size, model)
        starts = range(0, len(positions), size)
        batches = (
            _move_views(
                images.values[of_image[positions[start : start + size]]],
                [movements[position] for position in positions[start : start + size]],
                on_device,
            )
            for start in track(starts, f"features of {experiment.title}", "batch")
        )
        try:
            yield from compute_features(model, batches)
        except OverflowError as error:
            raise BadInputError(
                f"{error}: cut {experiment.backbone} elsewhere than after "
                f"{experiment.tail_after} (tail_after of {experiment.title!r})."
            ) from None

    return ArrayStream(
        index=augmentation_plan[["image_id", "view"]],
        keys=[
            hash_values([images.keys[position], *movement])
            for position, movement in zip(of_image, movements, strict=True)
        ],
        recipe=_identify_frozen_part(experiment, chosen)
        | {
            "precision": device.precision,
            "images": images.recipe,
            "moved_by": "keras" if on_device else "opencv",
        }
        | describe_code(
            "busi_pipeline.core.extraction",
            "busi_pipeline.core.moving",
            "busi_pipeline.core.network",
            "busi_pipeline.movements",
            libraries=("keras", "numpy", "opencv-python-headless", "tensorflow"),
        ),
        dtype="float16",
        compute=compute,
        about={"made_for": _identify_features(experiment, chosen)},
    )


def pool_features(
    features: StoredArray,
    settings: Mapping[str, Any],
    pretrained_weights: WeightsSource,
    classes: list[str],
) -> ArrayStream:
    """Describe the pooled features of the whole frozen base, float16 (channels,), row by row.

    They are what the head learns from before anything is fine-tuned. Where nothing is fine-tuned at
    all, they are the features themselves.
    """
    from busi_pipeline.core.extraction import compute_features
    from busi_pipeline.device import choose_batch_size, prepare_device

    experiment = ExperimentSettings.model_validate(settings)
    chosen = pretrained_weights.choose(experiment.backbone, experiment.training.weights)
    check_features(features, experiment, chosen)
    recipe = features.recipe
    if experiment.fine_tunes:
        recipe = {"pooled_from": features.recipe, **_identify_pooling(experiment)}

    def compute(positions: np.ndarray) -> Iterator[np.ndarray]:
        if not experiment.fine_tunes:
            yield from (features.values[int(position)][None] for position in positions)
            return
        device = prepare_device(experiment.training.precision)
        tail = build_for_training(experiment, chosen, len(classes), device).tail
        size = choose_batch_size(experiment.training.extraction_batch_size, tail)
        starts = range(0, len(positions), size)
        batches = (
            features.values[positions[start : start + size]]
            for start in track(starts, f"pooled features of {experiment.title}", "batch")
        )
        yield from compute_features(tail, batches)

    return ArrayStream(features.index, features.keys, recipe, "float16", compute)


def build_network(
    experiment: ExperimentSettings, weights: ChosenWeights, classes: int
) -> "Network":
    """Build the experiment's network under the current dtype policy."""
    from busi_pipeline.core import network

    return network.build_network(
        experiment.backbone,
        experiment.image_size,
        experiment.tail_after,
        experiment.base_end,
        experiment.training.head,
        classes,
        weights.argument,
    )


def build_for_training(
    experiment: ExperimentSettings, weights: ChosenWeights, classes: int, device: "Device"
) -> "Network":
    """Return the network under the device's training precision.

    Seeded: without pretrained weights, extraction and training must build the same trunk.
    """
    import keras

    from busi_pipeline.device import dtype_policy

    keras.utils.set_random_seed(experiment.training.seed)
    with dtype_policy(device.precision):
        return build_network(experiment, weights, classes)


def check_features(
    features: StoredArray, experiment: ExperimentSettings, weights: ChosenWeights
) -> None:
    """Raise BadInputError where the features were made for other settings than these."""
    made_for, wanted = features.attributes["made_for"], _identify_features(experiment, weights)
    differing = [key for key in wanted if made_for.get(key) != wanted[key]]
    if differing:
        key = differing[0]
        raise BadInputError(
            f"the stored features of {experiment.title!r} were made with {key} "
            f"{made_for.get(key)!r}, the settings say {wanted[key]!r}: rerun from extract_features."
        )


def label_views(
    features: StoredArray, split_manifest: pd.DataFrame, split: str, classes: list[str]
) -> "LabelledViews":
    """Return the rows of each image of a split in the features, with its label's position.

    Of training images these are all views, of others those that are not moved, the plain one first.
    """
    from busi_pipeline.core.fitting import LabelledViews

    images = split_manifest[split_manifest["split"] == split]
    wanted = np.arange(len(features.index))
    if split != "train":
        wanted = wanted[is_still(features, wanted)]
    places = features.index.iloc[wanted].groupby("image_id", sort=False).indices
    rows_of = {image_id: wanted[rows] for image_id, rows in places.items()}
    missing = [image_id for image_id in images["image_id"] if image_id not in rows_of]
    if missing:
        raise BadInputError(
            f"{len(missing)} {split} images have no features ({missing[0]!r} is the first): "
            "the split changed since; rerun from plan_augmentation."
        )
    rows = np.stack([rows_of[image_id] for image_id in images["image_id"]])
    return LabelledViews(rows, find_positions(images["label"], classes))


def is_still(features: StoredArray, rows: np.ndarray) -> np.ndarray:
    """Return bool, as many as rows: whether a row is of a view that is not moved."""
    return features.index["view"].to_numpy()[rows] <= PLAIN_VIEW


def find_views(features: StoredArray, image_ids: pd.Series, mirror: bool) -> np.ndarray:
    """Return int (images, views): the rows of the views by which each image is judged."""
    places = pd.MultiIndex.from_frame(features.index[["image_id", "view"]])
    wanted = [PLAIN_VIEW, MIRROR_VIEW] if mirror else [PLAIN_VIEW]
    return np.stack(
        [
            places.get_indexer(pd.MultiIndex.from_product([image_ids, [view]])).astype(np.int64)
            for view in wanted
        ],
        axis=1,
    )


def _move_views(images: np.ndarray, movements: list[Movement], on_device: bool) -> Any:
    """Move each image by its movement: uint8 (n, size, size, 3)."""
    if not on_device:
        return np.stack([move_image(*pair) for pair in zip(images, movements, strict=True)])
    from busi_pipeline.core.moving import move_batch

    height, width = images.shape[1:3]
    origins = np.array([find_origins(movement, height, width) for movement in movements])
    return move_batch(images, origins, np.array([m.brightness for m in movements]))


def _pooled(network: "Network") -> "keras.Model":
    """The whole base and the pooling: what stays frozen where nothing is fine-tuned."""
    import keras

    return keras.Model(network.frozen.input, network.tail(network.frozen.output))


def _identify_frozen_part(experiment: ExperimentSettings, weights: ChosenWeights) -> dict[str, Any]:
    random = experiment.training.seed if weights.argument is None else None
    return {
        "backbone": experiment.backbone,
        "image_size": experiment.image_size,
        **(
            {"cut": experiment.tail_after}
            if experiment.fine_tunes
            else _identify_pooling(experiment)
        ),
        "weights_sha256": weights.tags["weights_sha256"],
        "random_weights_seed": random,
    }


def _identify_pooling(experiment: ExperimentSettings) -> dict[str, Any]:
    pools_cut = experiment.training.head.pool_cut
    return {
        "cut": "pool",
        "base_end": experiment.base_end,
        "pooled_cut": experiment.tail_after if pools_cut else None,
    }


def _identify_features(experiment: ExperimentSettings, weights: ChosenWeights) -> dict[str, Any]:
    return _identify_frozen_part(experiment, weights) | {
        "augmentation": experiment.augmentation.model_dump()
    }
