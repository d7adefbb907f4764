"""A network learns."""

from .pipeline import create_experiment_pipeline

__all__ = ["create_experiment_pipeline"]
