"""What else gives the label away: burned-in annotations, and all that is not the lesion."""

from .pipeline import (
    create_annotations_pipeline,
    create_experiment_pipeline,
    create_images_pipeline,
)

__all__ = [
    "create_annotations_pipeline",
    "create_experiment_pipeline",
    "create_images_pipeline",
]
