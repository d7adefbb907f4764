"""A network is trained: on the hold-out split, or on one fold of a cross-validation."""

from .pipeline import (
    create_bag_pipeline,
    create_cross_validation_pipeline,
    create_hold_out_pipeline,
    create_joined_pipeline,
    create_linear_probe_pipeline,
)

__all__ = [
    "create_bag_pipeline",
    "create_cross_validation_pipeline",
    "create_hold_out_pipeline",
    "create_joined_pipeline",
    "create_linear_probe_pipeline",
]
