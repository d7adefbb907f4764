"""How good an experiment is: on the hold-out split, or out of fold."""

from .pipeline import (
    create_bag_pipeline,
    create_calibration_pipeline,
    create_cross_validation_pipeline,
    create_ensemble_pipeline,
    create_hold_out_pipeline,
    create_members_pipeline,
    create_occluded_pipeline,
)

__all__ = [
    "create_bag_pipeline",
    "create_calibration_pipeline",
    "create_cross_validation_pipeline",
    "create_ensemble_pipeline",
    "create_hold_out_pipeline",
    "create_members_pipeline",
    "create_occluded_pipeline",
]
