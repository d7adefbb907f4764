"""Delivered models fitted to a new site."""

from .pipeline import create_pipeline

__all__ = ["create_pipeline"]
