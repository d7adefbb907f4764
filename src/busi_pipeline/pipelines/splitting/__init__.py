"""Which image is in which part: the hold-out split, and the folds of a cross-validation."""

from .pipeline import (
    create_folds_pipeline,
    create_hold_out_pipeline,
    create_random_folds_pipeline,
    create_site_folds_pipeline,
)

__all__ = [
    "create_folds_pipeline",
    "create_hold_out_pipeline",
    "create_random_folds_pipeline",
    "create_site_folds_pipeline",
]
