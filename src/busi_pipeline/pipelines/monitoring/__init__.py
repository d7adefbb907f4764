"""Is a model still used on what it was tested on, and does it still find what it should?"""

from .pipeline import create_pipeline

__all__ = ["create_pipeline"]
