"""Delivered models on a site that they have not seen."""

from .pipeline import (
    create_comparison_pipeline,
    create_experiment_pipeline,
    create_site_pipeline,
)

__all__ = ["create_comparison_pipeline", "create_experiment_pipeline", "create_site_pipeline"]
