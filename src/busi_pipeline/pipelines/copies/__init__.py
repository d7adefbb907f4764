"""Copies of one scan: found, looked at, kept together."""

from .pipeline import create_pipeline

__all__ = ["create_pipeline"]
