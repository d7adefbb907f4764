"""Images at the network's size, and how each training image is augmented."""

from collections.abc import Callable
from functools import partial, update_wrapper

import pandas as pd
from kedro.pipeline import Node, Pipeline

from busi_pipeline.caching.arrays import StoredArray
from busi_pipeline.config.experiments import EXTERNAL
from busi_pipeline.config.schemas import ModelSettings

from .nodes import (
    plan_all_images,
    plan_augmentation,
    plan_fold,
    plan_originals,
    plot_augmentation,
    prepare_images,
    prepare_input_images,
    prepare_input_masks,
    prepare_masks,
    prepare_reader_images,
)

_STAGE = "preprocessing"
_CROSS_VALIDATION = "cross_validation"


def create_images_pipeline(
    experiment: str, settings: ModelSettings, evaluation: str | None = None
) -> Pipeline:
    """raw_images, manifest, lesion_boxes -> what an experiment's network sees: images.

    Where that is the whole image, stretched, one node serves all experiments of a size:
    prepare_images_<size> -> images_<size>.

    Args:
        experiment: its name.
        settings: of it.
        evaluation: `cross_validation`, `external` or a fold with boxes of its own; None for the
            hold-out split.
    """
    if settings.input.is_plain:
        plain = _create_size_pipeline(prepare_images, "images", settings.image_size)
        if evaluation != EXTERNAL:
            return plain
        return Pipeline([*plain.nodes], namespace=EXTERNAL, inputs={"cache": "cache"})
    return _create_input_pipeline(prepare_input_images, "images", experiment, settings, evaluation)


def create_reader_images_pipeline(experiment: str) -> Pipeline:
    """external.raw_images, lesion_boxes -> reader_box_images: at the boxes that readers drew."""
    given = ("raw_images", "manifest")
    return Pipeline(
        [
            Node(
                prepare_reader_images,
                inputs=[*given, "lesion_boxes", "params:settings", "cache"],
                outputs="reader_box_images",
                name="prepare_reader_box_images",
                tags=_STAGE,
            )
        ],
        namespace=f"{experiment}.{EXTERNAL}",
        inputs={"cache": "cache", **{name: f"{EXTERNAL}.{name}" for name in given}},
        parameters={"params:settings": f"params:experiments.{experiment}"},
    )


def create_masks_pipeline(
    experiment: str, settings: ModelSettings, evaluation: str | None = None
) -> Pipeline:
    """raw_images, manifest, lesion_boxes -> masks, cut out as the images are."""
    if settings.input.is_plain:
        return _create_size_pipeline(prepare_masks, "masks", settings.image_size)
    return _create_input_pipeline(prepare_input_masks, "masks", experiment, settings, evaluation)


def _create_input_pipeline(
    prepare: Callable[..., StoredArray],
    what: str,
    experiment: str,
    settings: ModelSettings,
    evaluation: str | None,
) -> Pipeline:
    outside = f"{EXTERNAL}." if evaluation == EXTERNAL else ""
    inputs = {
        "raw_images": f"{outside}raw_images",
        "manifest": f"{outside}manifest",
        "cache": "cache",
    }
    if settings.input.needs_lesion:
        inputs["lesion_boxes"] = _name_boxes(experiment, evaluation)
    else:
        prepare = update_wrapper(partial(prepare, lesion_boxes=None), prepare)
    return Pipeline(
        [
            Node(
                prepare,
                inputs={name: name for name in inputs} | {"settings": "params:settings"},
                outputs=what,
                name=f"prepare_{what}",
                tags=_STAGE,
            )
        ],
        namespace=f"{experiment}.{evaluation}" if evaluation else experiment,
        inputs=inputs,
        parameters={"params:settings": f"params:experiments.{experiment}"},
    )


def _name_boxes(experiment: str, evaluation: str | None) -> str:
    """Return the dataset of the boxes; at another site they are of the delivered model itself."""
    if evaluation == EXTERNAL:
        return f"{experiment}.{EXTERNAL}.lesion_boxes"
    return f"{evaluation}.lesion_boxes" if evaluation else "lesion_boxes"


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


def create_hold_out_pipeline(experiment: str, images: str) -> Pipeline:
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
                namespace="plots",
                tags=_STAGE,
            ),
        ],
        namespace=experiment,
        inputs={"split_manifest": "split_manifest", "images": images},
        parameters={
            "params:settings": f"params:experiments.{experiment}",
            "params:privacy": "params:privacy",
        },
    )


def create_cross_validation_pipeline(experiment: str) -> Pipeline:
    """fold_manifest, settings -> augmentation_plan of all images, for one experiment."""
    return _create_plan_pipeline(plan_all_images, experiment, _CROSS_VALIDATION, "fold_manifest")


def create_fold_pipeline(experiment: str, evaluation: str) -> Pipeline:
    """split_manifest, settings -> augmentation_plan of a fold with images of its own.

    Args:
        experiment: its name.
        evaluation: with the fold: `leave_one_site_out.<site>`.
    """
    return _create_plan_pipeline(plan_fold, experiment, evaluation, "split_manifest")


def create_occluded_pipeline(experiment: str) -> Pipeline:
    """fold_manifest, settings -> occluded_augmentation_plan: images with the lesion occluded."""
    return _create_plan_pipeline(
        plan_originals, experiment, _CROSS_VALIDATION, "fold_manifest", "occluded_"
    )


def _create_plan_pipeline(
    plan: Callable[..., pd.DataFrame],
    experiment: str,
    evaluation: str,
    division: str,
    prefix: str = "",
) -> Pipeline:
    """<evaluation>.<division>, settings -> <prefix>augmentation_plan, in <e>.<evaluation>."""
    return Pipeline(
        [
            Node(
                plan,
                inputs=[division, "params:settings"],
                outputs=f"{prefix}augmentation_plan",
                name=plan.__name__,
                tags=_STAGE,
            )
        ],
        namespace=f"{experiment}.{evaluation}",
        inputs={division: f"{evaluation}.{division}"},
        parameters={"params:settings": f"params:experiments.{experiment}"},
    )
