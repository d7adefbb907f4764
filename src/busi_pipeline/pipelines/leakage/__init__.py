"""How far duplicates of training images among the test images raise the scores."""

from .pipeline import create_experiment_pipeline, create_summary_pipeline

__all__ = ["create_experiment_pipeline", "create_summary_pipeline"]
