"""How good a recipe is: every image judged by a network that has not seen it or a copy of it."""

from .pipeline import (
    create_ensemble_pipeline,
    create_experiment_pipeline,
    create_leakage_pipeline,
    create_leakage_report_pipeline,
    create_pipeline,
    create_random_folds_pipeline,
)

__all__ = [
    "create_ensemble_pipeline",
    "create_experiment_pipeline",
    "create_leakage_pipeline",
    "create_leakage_report_pipeline",
    "create_pipeline",
    "create_random_folds_pipeline",
]
