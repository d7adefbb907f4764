"""Delivered models in one folder each, without Keras."""

from .pipeline import create_pipeline

__all__ = ["create_pipeline"]
