"""Features of the frozen part of a network: computed once for every augmented image, then cached.

Keras is imported inside the functions: building the pipelines (`kedro registry list`, `kedro viz`)
must not wait for TensorFlow.
"""

from collections.abc import Iterator
from dataclasses import astuple
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from busi_pipeline.caching.arrays import WINDOW, StoredArray
from busi_pipeline.caching.cache import Cache
from busi_pipeline.caching.fingerprints import Step, hash_values
from busi_pipeline.config.schemas import ExperimentSettings, JoinedSettings
from busi_pipeline.errors import BadInputError
from busi_pipeline.imaging.affine import (
    AS_SCANNED,
    SCANNER_SEED,
    AffineTransform,
    invert_affine,
    list_transforms,
)
from busi_pipeline.imaging.augmentation import augment_image
from busi_pipeline.imaging.scanner_variation import vary_scanner
from busi_pipeline.models.seeding import seed_thread
from busi_pipeline.models.weights import PretrainedWeights
from busi_pipeline.progress import track

if TYPE_CHECKING:
    import keras

    from busi_pipeline.learning.device import Device
    from busi_pipeline.models.network import Network

FEATURES = Step(
    "features",
    1,
    (
        "busi_pipeline.learning.features:_augment_rows",
        "busi_pipeline.learning.features:build_for_training",
        "busi_pipeline.learning.features:build_frozen_model",
        "busi_pipeline.learning.extraction:compute_features",
        "busi_pipeline.imaging.affine:list_transforms",
    ),
    ("keras", "numpy", "opencv-python-headless", "tensorflow"),
)
POOLED_FEATURES = Step(
    "pooled_features",
    1,
    (
        "busi_pipeline.learning.features:build_for_training",
        "busi_pipeline.learning.extraction:compute_features",
    ),
    ("keras", "numpy", "tensorflow"),
)
# What of an experiment's settings does not decide how its network comes out.
# The input does, through the images, which are named by their features.
_NOT_DECIDING = {"title", "in_default", "baseline_of", "published", "input"}
_ADDED = {
    ("augmentation", "scanner_variation"): False,
    ("training", "head_learns_from"): "originals",
    ("training", "site_weights"): "none",
    ("training", "choose_by"): "all_images",
    ("training", "head_strengths"): [1e-4, 1e-3, 1e-2, 1e-1],
}


def extract_features(
    images: StoredArray,
    augmentation_plan: pd.DataFrame,
    settings: ExperimentSettings,
    weights: PretrainedWeights,
    classes: int,
    cache: Cache,
) -> StoredArray:
    """Return float16 features of every augmented image in the plan.

    They are those where the network is cut if its tail is fine-tuned, else pooled over the whole
    frozen base. The index has `image_id` and `augmentation`.

    Raises BadInputError where features do not fit float16.
    """
    from busi_pipeline.learning.device import choose_batch_size, prepare_device
    from busi_pipeline.learning.extraction import compute_features

    training = settings.training
    device = prepare_device(training.precision)
    on_device = training.augment_on == "device" or (training.augment_on == "auto" and device.is_gpu)
    of_image = images.find_rows(augmentation_plan["image_id"], augmentation_plan[WINDOW])
    transforms = list(list_transforms(augmentation_plan))
    scanners = augmentation_plan[SCANNER_SEED].tolist()

    def compute(positions: np.ndarray) -> Iterator[np.ndarray]:
        model = build_frozen_model(build_for_training(settings, weights, classes, device), settings)
        size = choose_batch_size(training.extraction_batch_size, model)
        starts = range(0, len(positions), size)
        batches = (
            _augment_rows(
                images.values[of_image[positions[start : start + size]]],
                [transforms[position] for position in positions[start : start + size]],
                [scanners[position] for position in positions[start : start + size]],
                on_device,
            )
            for start in track(starts, f"features of {settings.title}", "batch")
        )
        try:
            yield from compute_features(model, batches)
        except OverflowError as error:
            raise BadInputError(
                f"{error}: cut {settings.backbone} elsewhere than after {settings.freeze_until} "
                f"(freeze_until of {settings.title!r})."
            ) from None

    fingerprint = FEATURES.fingerprint(
        **_identify_frozen_part(settings, weights),
        precision=device.precision,
        images=images.fingerprint.digest,
        augmented_by="keras" if on_device else "opencv",
    )
    return cache.compute_array(
        fingerprint,
        augmentation_plan[["image_id", "augmentation"]],
        [
            hash_values([images.keys[row], *transform, *([scanner] if scanner else [])])
            for row, transform, scanner in zip(of_image, transforms, scanners, strict=True)
        ],
        "float16",
        compute,
        {"made_for": _identify_features(settings, weights)},
    )


def pool_features(
    features: StoredArray,
    settings: ExperimentSettings,
    weights: PretrainedWeights,
    classes: int,
    cache: Cache,
) -> StoredArray:
    """Return the pooled features of the whole frozen base, float16 (n, channels).

    They are what the head learns from before anything is fine-tuned. Where nothing is fine-tuned at
    all, they are the features themselves.
    """
    from busi_pipeline.learning.device import choose_batch_size, prepare_device
    from busi_pipeline.learning.extraction import compute_features

    check_features(features, settings, weights)
    if not settings.fine_tunes:
        return features

    def compute(positions: np.ndarray) -> Iterator[np.ndarray]:
        device = prepare_device(settings.training.precision)
        tail = build_for_training(settings, weights, classes, device).tail
        size = choose_batch_size(settings.training.extraction_batch_size, tail)
        starts = range(0, len(positions), size)
        batches = (
            features.values[positions[start : start + size]]
            for start in track(starts, f"pooled features of {settings.title}", "batch")
        )
        yield from compute_features(tail, batches)

    fingerprint = POOLED_FEATURES.fingerprint(
        features=features.fingerprint.digest, **_identify_pooling(settings)
    )
    return cache.compute_array(fingerprint, features.index, features.keys, "float16", compute)


def build_network(
    settings: ExperimentSettings, weights: PretrainedWeights, classes: int
) -> "Network":
    """Build the experiment's network under the current dtype policy."""
    from busi_pipeline.models import network

    return network.build_network(
        settings.backbone,
        settings.preset,
        settings.image_size,
        settings.freeze_until,
        settings.truncate_at,
        settings.training.head,
        classes,
        weights.argument,
    )


def build_for_training(
    settings: ExperimentSettings, weights: PretrainedWeights, classes: int, device: "Device"
) -> "Network":
    """Return the network under the device's training precision.

    Seeded: without pretrained weights, extraction and training must build the same frozen part.
    """
    from busi_pipeline.learning.device import dtype_policy

    seed_thread(settings.training.seed)
    with dtype_policy(device.precision):
        return build_network(settings, weights, classes)


def build_frozen_model(network: "Network", settings: ExperimentSettings) -> "keras.Model":
    """Return what stays frozen: up to the cut, or with nothing fine-tuned to the pooled end."""
    if settings.fine_tunes:
        return network.frozen
    import keras

    return keras.Model(network.frozen.input, network.tail(network.frozen.output))


def check_features(
    features: StoredArray, settings: ExperimentSettings, weights: PretrainedWeights
) -> None:
    """Raise BadInputError where the features were made for other settings than these."""
    made_for, wanted = features.metadata["made_for"], _identify_features(settings, weights)
    differing = [key for key in wanted if made_for.get(key) != wanted[key]]
    if differing:
        key = differing[0]
        raise BadInputError(
            f"the stored features of {settings.title!r} were made with {key} "
            f"{made_for.get(key)!r}, the settings have {wanted[key]!r}: run the whole pipeline "
            "again, without --from-nodes."
        )


def describe_settings(settings: ExperimentSettings) -> dict[str, Any]:
    """Return the settings that decide how a network comes out, JSON-like.

    A setting that was added later is named only where it changes anything, so that what was
    trained before keeps its name.
    """
    described = settings.model_dump(mode="json", exclude=_NOT_DECIDING)
    for (group, name), unchanged in _ADDED.items():
        if described[group][name] == unchanged:
            del described[group][name]
    return described


def describe_joined(settings: JoinedSettings) -> dict[str, Any]:
    """Return what decides how an experiment comes out that joins others, JSON-like."""
    return settings.model_dump(mode="json", include={"members", "of_folds"})


def identify_backbone(settings: ExperimentSettings) -> dict[str, Any]:
    """Return what the entry of the backbone contributes to its features, JSON-like."""
    preset = settings.preset
    order, *values = astuple(preset.preprocessing)
    return {
        "builder": preset.builder,
        "preprocessing": [order, *(list(channels) for channels in values)],
    }


def _augment_rows(
    images: np.ndarray, transforms: list[AffineTransform], scanners: list[int], on_device: bool
) -> Any:
    """Move each image by its transform, and vary its scanner: uint8 (n, size, size, 3)."""
    if not on_device:
        return np.stack(
            [augment_image(*row) for row in zip(images, transforms, scanners, strict=True)]
        )
    from busi_pipeline.learning.batch_affine import apply_affine_batch

    height, width = images.shape[1:3]
    inverses = np.array([invert_affine(transform, height, width) for transform in transforms])
    moved = apply_affine_batch(images, inverses, np.array([t.brightness for t in transforms]))
    if set(scanners) == {AS_SCANNED}:
        return moved
    return np.stack(
        [vary_scanner(*image) for image in zip(np.asarray(moved), scanners, strict=True)]
    )


def _identify_frozen_part(
    settings: ExperimentSettings, weights: PretrainedWeights
) -> dict[str, Any]:
    random = settings.training.seed if weights.argument is None else None
    return {
        "backbone": identify_backbone(settings),
        "image_size": settings.image_size,
        **({"cut": settings.freeze_until} if settings.fine_tunes else _identify_pooling(settings)),
        "weights_sha256": weights.tags["weights_sha256"],
        "random_weights_seed": random,
    }


def _identify_pooling(settings: ExperimentSettings) -> dict[str, Any]:
    pools_intermediate = settings.training.head.pool_intermediate
    return {
        "cut": "pool",
        "truncate_at": settings.truncate_at,
        "pooled_intermediate": settings.freeze_until if pools_intermediate else None,
    }


def _identify_features(settings: ExperimentSettings, weights: PretrainedWeights) -> dict[str, Any]:
    return _identify_frozen_part(settings, weights) | {
        "augmentation": describe_settings(settings)["augmentation"]
    }
