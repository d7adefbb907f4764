"""Where the lesion is in each image, for experiments that look at it.

raw_images, manifest -> localizer_views -> localizer_features_<backbone> (frozen, once)
    -> locate_hold_out -> lesion_boxes, localizer (learned from the training images)
    -> locate_folds -> cross_validation.lesion_boxes (each image by decoders that did not see it)
    -> locate_left_out -> leave_one_site_out.<site>.lesion_boxes (learned from the other sites)
external.raw_images, <e>.model -> locate_site -> <e>.external.lesion_boxes
"""

from collections.abc import Sequence
from functools import partial, update_wrapper

from kedro.pipeline import Node, Pipeline

from busi_pipeline.config.experiments import name_items

from .nodes import (
    extract_pyramid,
    locate_folds,
    locate_hold_out,
    locate_left_out,
    locate_site,
    prepare_site_views,
    prepare_views,
)
from .plots import plot_lesion_boxes

_STAGE = "localization"


def _name_features(backbones: Sequence[str]) -> dict[str, str]:
    """Return {argument of a node: dataset}."""
    return name_items(backbones, {"features": "localizer_features_{}"})


def _create_features_pipeline(backbones: Sequence[str]) -> Pipeline:
    return Pipeline(
        [
            Node(
                prepare_views,
                inputs=["raw_images", "manifest", "params:localization", "cache"],
                outputs="localizer_views",
                name="prepare_localizer_views",
                tags=_STAGE,
            ),
            *(
                Node(
                    update_wrapper(partial(extract_pyramid, backbone=backbone), extract_pyramid),
                    inputs=[
                        "localizer_views",
                        "params:localization",
                        "pretrained_weights",
                        "cache",
                    ],
                    outputs=f"localizer_features_{backbone}",
                    name=f"extract_localizer_features_{backbone}",
                    tags=_STAGE,
                )
                for backbone in backbones
            ),
        ]
    )


def create_hold_out_pipeline(backbones: Sequence[str]) -> Pipeline:
    """raw_images, split_manifest -> lesion_boxes, localizer, localizer_metrics, a plot."""
    return _create_features_pipeline(backbones) + Pipeline(
        [
            Node(
                locate_hold_out,
                inputs={
                    "views": "localizer_views",
                    "manifest": "manifest",
                    "split_manifest": "split_manifest",
                    "localization": "params:localization",
                    "evaluation": "params:evaluation",
                    "pretrained_weights": "pretrained_weights",
                    "cache": "cache",
                }
                | _name_features(backbones),
                outputs=["lesion_boxes", "localizer", "localizer_metrics"],
                name="locate_hold_out",
                tags=_STAGE,
            ),
            Node(
                plot_lesion_boxes,
                inputs=[
                    "raw_images",
                    "lesion_boxes",
                    "manifest",
                    "split_manifest",
                    "params:localization",
                    "params:privacy",
                ],
                outputs="lesion_boxes_plot",
                name="plot_lesion_boxes",
                tags=_STAGE,
            ),
        ]
    )


def create_folds_pipeline(backbones: Sequence[str]) -> Pipeline:
    """raw_images, fold_manifest -> cross_validation.lesion_boxes, localizer, localizer_metrics."""
    return _create_features_pipeline(backbones) + Pipeline(
        [
            Node(
                locate_folds,
                inputs={
                    "views": "localizer_views",
                    "manifest": "manifest",
                    "fold_manifest": "cross_validation.fold_manifest",
                    "localization": "params:localization",
                    "evaluation": "params:evaluation",
                    "pretrained_weights": "pretrained_weights",
                    "cache": "cache",
                }
                | _name_features(backbones),
                outputs=[
                    "cross_validation.lesion_boxes",
                    "cross_validation.localizer",
                    "cross_validation.localizer_metrics",
                ],
                name="locate_folds",
                tags=_STAGE,
            )
        ]
    )


def create_left_out_pipeline(folds: Sequence[str], backbones: Sequence[str]) -> Pipeline:
    """raw_images, <fold>.split_manifest -> <fold>.lesion_boxes, localizer_metrics.

    Args:
        folds: namespaces, `leave_one_site_out.<site>`.
        backbones: of the localizer.
    """
    nodes = [
        Pipeline(
            [
                Node(
                    locate_left_out,
                    inputs={
                        "views": "localizer_views",
                        "manifest": "manifest",
                        "split_manifest": "split_manifest",
                        "localization": "params:localization",
                        "evaluation": "params:evaluation",
                        "cache": "cache",
                    }
                    | _name_features(backbones),
                    outputs=["lesion_boxes", "localizer_metrics"],
                    name="locate_left_out",
                    tags=_STAGE,
                )
            ],
            namespace=fold,
            inputs={
                name: name
                for name in (
                    "localizer_views",
                    *_name_features(backbones).values(),
                    "manifest",
                    "cache",
                )
            },
            parameters={
                "params:localization": "params:localization",
                "params:evaluation": "params:evaluation",
            },
        )
        for fold in folds
    ]
    left_out = Pipeline(nodes, namespace=_STAGE, prefix_datasets_with_namespace=False)
    return _create_features_pipeline(backbones) + left_out


def create_external_pipeline(experiment: str) -> Pipeline:
    """external.raw_images, model -> <experiment>.external.lesion_boxes, localizer_metrics.

    The boxes are those of the delivered model's own localizer.
    """
    views = Pipeline(
        [
            Node(
                prepare_site_views,
                inputs=["raw_images", "manifest", "params:localization", "cache"],
                outputs="localizer_views",
                name="prepare_localizer_views",
                tags=_STAGE,
            )
        ],
        namespace="external",
        inputs={"cache": "cache"},
        parameters={"params:localization": "params:localization"},
    )
    of_site = ("localizer_views", "manifest", "image_groups")
    return views + Pipeline(
        [
            Node(
                locate_site,
                inputs=["model", *of_site, "params:localization", "params:evaluation", "cache"],
                outputs=["lesion_boxes", "localizer_metrics"],
                name="locate_site",
                tags=_STAGE,
            )
        ],
        namespace=f"{experiment}.external",
        inputs={
            "cache": "cache",
            "model": f"{experiment}.model",
            **{name: f"external.{name}" for name in of_site},
        },
        parameters={
            "params:localization": "params:localization",
            "params:evaluation": "params:evaluation",
        },
    )
