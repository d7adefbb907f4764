"""Images at the network's size, and how each training image is augmented."""

from collections.abc import Callable
from functools import partial, update_wrapper

from kedro.pipeline import Node, Pipeline

from busi_pipeline.caching.arrays import StoredArray

from .nodes import (
    plan_all_images,
    plan_augmentation,
    plan_originals,
    plot_augmentation,
    prepare_images,
    prepare_masks,
)

_STAGE = "preprocessing"


def create_images_pipeline(size: int) -> Pipeline:
    """raw_images, manifest -> prepare_images_<size> -> images_<size>."""
    return _create_size_pipeline(prepare_images, "images", size)


def create_external_images_pipeline(size: int) -> Pipeline:
    """external.raw_images, external.manifest -> external.images_<size>."""
    return Pipeline(
        [*create_images_pipeline(size).nodes], namespace="external", inputs={"cache": "cache"}
    )


def create_masks_pipeline(size: int) -> Pipeline:
    """raw_images, manifest -> prepare_masks_<size> -> masks_<size>."""
    return _create_size_pipeline(prepare_masks, "masks", size)


def _create_size_pipeline(prepare: Callable[..., StoredArray], what: str, size: int) -> Pipeline:
    return Pipeline(
        [
            Node(
                # The size is part of the dataset's name, so it belongs to the node, too.
                update_wrapper(partial(prepare, size=size), prepare),
                inputs=["raw_images", "manifest", "cache"],
                outputs=f"{what}_{size}",
                name=f"prepare_{what}_{size}",
                tags=_STAGE,
            )
        ]
    )


def create_hold_out_pipeline(experiment: str, image_size: int) -> Pipeline:
    """split_manifest, settings -> augmentation_plan -> augmentation_plot, for one experiment."""
    return Pipeline(
        [
            Node(
                plan_augmentation,
                inputs=["split_manifest", "params:settings"],
                outputs="augmentation_plan",
                name="plan_augmentation",
                tags=_STAGE,
            ),
            Node(
                plot_augmentation,
                inputs=[
                    "images",
                    "split_manifest",
                    "augmentation_plan",
                    "params:settings",
                    "params:privacy",
                ],
                outputs="augmentation_plot",
                name="plot_augmentation",
                tags=_STAGE,
            ),
        ],
        namespace=experiment,
        inputs={"split_manifest": "split_manifest", "images": f"images_{image_size}"},
        parameters={
            "params:settings": f"params:experiments.{experiment}",
            "params:privacy": "params:privacy",
        },
    )


def create_cross_validation_pipeline(experiment: str) -> Pipeline:
    """fold_manifest, settings -> augmentation_plan of all images, for one experiment."""
    return Pipeline(
        [
            Node(
                plan_all_images,
                inputs=["fold_manifest", "params:settings"],
                outputs="augmentation_plan",
                name="plan_all_images",
                tags=_STAGE,
            )
        ],
        namespace=f"{experiment}.cross_validation",
        inputs={"fold_manifest": "cross_validation.fold_manifest"},
        parameters={"params:settings": f"params:experiments.{experiment}"},
    )


def create_occluded_pipeline(experiment: str) -> Pipeline:
    """fold_manifest, settings -> occluded_augmentation_plan: images with the lesion occluded."""
    return Pipeline(
        [
            Node(
                plan_originals,
                inputs=["fold_manifest", "params:settings"],
                outputs="occluded_augmentation_plan",
                name="plan_originals",
                tags=_STAGE,
            )
        ],
        namespace=f"{experiment}.cross_validation",
        inputs={"fold_manifest": "cross_validation.fold_manifest"},
        parameters={"params:settings": f"params:experiments.{experiment}"},
    )
