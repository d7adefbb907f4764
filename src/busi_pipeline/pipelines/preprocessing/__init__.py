"""Images and masks at the network's size, and the plan of their augmentation."""

from .pipeline import (
    create_cross_validation_pipeline,
    create_fold_pipeline,
    create_hold_out_pipeline,
    create_images_pipeline,
    create_masks_pipeline,
    create_occluded_pipeline,
    create_reader_images_pipeline,
)

__all__ = [
    "create_cross_validation_pipeline",
    "create_fold_pipeline",
    "create_hold_out_pipeline",
    "create_images_pipeline",
    "create_masks_pipeline",
    "create_occluded_pipeline",
    "create_reader_images_pipeline",
]
