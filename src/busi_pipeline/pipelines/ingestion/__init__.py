"""Files to manifest."""

from .pipeline import create_external_pipeline, create_pipeline

__all__ = ["create_external_pipeline", "create_pipeline"]
