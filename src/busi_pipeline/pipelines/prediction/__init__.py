"""A packaged model's answers on a folder of images."""

from .pipeline import create_pipeline

__all__ = ["create_pipeline"]
