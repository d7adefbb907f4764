"""Runs that wait for an MLflow server are sent to it."""

from .pipeline import create_pipeline

__all__ = ["create_pipeline"]
