"""One page a clinician can read top to bottom, and a card beside each model."""

from .pipeline import create_experiment_pipeline, create_external_pipeline, create_pipeline

__all__ = ["create_experiment_pipeline", "create_external_pipeline", "create_pipeline"]
