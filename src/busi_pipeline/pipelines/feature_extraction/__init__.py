"""The frozen part of a network, once over every augmented image."""

from .pipeline import create_pipeline

__all__ = ["create_pipeline"]
