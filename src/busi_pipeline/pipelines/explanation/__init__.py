"""Where in an image the score comes from, and whether that is the lesion."""

from .pipeline import create_pipeline

__all__ = ["create_pipeline"]
