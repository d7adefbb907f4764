"""Find the lesion in each image: learned from masks, never where it was learned."""

from .pipeline import (
    create_external_pipeline,
    create_folds_pipeline,
    create_hold_out_pipeline,
    create_left_out_pipeline,
)

__all__ = [
    "create_external_pipeline",
    "create_folds_pipeline",
    "create_hold_out_pipeline",
    "create_left_out_pipeline",
]
