"""Does it look at the lesion?"""

from .pipeline import create_experiment_pipeline, create_pipeline

__all__ = ["create_experiment_pipeline", "create_pipeline"]
