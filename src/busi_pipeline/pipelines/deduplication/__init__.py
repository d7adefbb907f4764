"""Duplicates of one scan: found, shown, kept together."""

from .pipeline import create_external_pipeline, create_pipeline

__all__ = ["create_external_pipeline", "create_pipeline"]
