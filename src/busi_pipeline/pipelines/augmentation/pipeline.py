"""What the network sees: images at its size, and how far each training image is moved."""

from collections.abc import Callable, Iterable
from functools import partial

from kedro.pipeline import Node, Pipeline

from busi_pipeline.arrays import ArrayStream

from .nodes import draw_augmentation_sheet, plan_augmentation, prepare_images


def create_pipeline(image_sizes: Iterable[int]) -> Pipeline:
    """raw_images, manifest -> prepare_images_<size> -> images_<size>, once for each size."""
    return create_size_pipeline(prepare_images, "images", image_sizes, "augmentation")


def create_size_pipeline(
    prepare: Callable[..., ArrayStream], what: str, image_sizes: Iterable[int], stage: str
) -> Pipeline:
    """raw_images, manifest -> prepare_<what>_<size> -> <what>_<size>, once for each size."""
    return Pipeline(
        [
            Node(
                # The size is part of the dataset's name, so it belongs to the node, too.
                partial(prepare, size=size),
                inputs=["raw_images", "manifest"],
                outputs=f"{what}_{size}",
                name=f"prepare_{what}_{size}",
                tags=stage,
            )
            for size in sorted(set(image_sizes))
        ]
    )


def create_experiment_pipeline(experiment: str, image_size: int) -> Pipeline:
    """settings, split_manifest -> augmentation_plan -> augmentation_sheet, for one experiment."""
    images = f"images_{image_size}"
    return Pipeline(
        [
            Node(
                plan_augmentation,
                inputs=["split_manifest", "settings"],
                outputs="augmentation_plan",
                name="plan_augmentation",
                tags="augmentation",
            ),
            Node(
                draw_augmentation_sheet,
                inputs=[images, "split_manifest", "augmentation_plan", "settings"],
                outputs="augmentation_sheet",
                name="draw_augmentation_sheet",
                tags="augmentation",
            ),
        ],
        namespace=experiment,
        inputs={"split_manifest", images},
    )
