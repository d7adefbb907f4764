"""What else could give the label away: marks of the examiner, and all that is not the lesion."""

from .pipeline import create_experiment_pipeline, create_pipeline, create_size_pipeline

__all__ = ["create_experiment_pipeline", "create_pipeline", "create_size_pipeline"]
