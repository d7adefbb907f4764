"""Which experiment is better: their latest runs in one table, and paired on the same images."""

from .pipeline import create_pairwise_pipeline, create_pipeline

__all__ = ["create_pairwise_pipeline", "create_pipeline"]
