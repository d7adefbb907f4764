"""Each site is tested once by models that learned from all others."""

from .pipeline import (
    LEAVE_OUT,
    WITHIN,
    create_experiment_pipeline,
    create_refusal_pipeline,
    create_summary_pipeline,
)

__all__ = [
    "LEAVE_OUT",
    "WITHIN",
    "create_experiment_pipeline",
    "create_refusal_pipeline",
    "create_summary_pipeline",
]
