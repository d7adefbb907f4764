"""Which packaged model is in use: a gate, the roles, and the ledger of who gave them."""

from .pipeline import create_ledger_pipeline, create_pipeline, create_rollback_pipeline

__all__ = ["create_ledger_pipeline", "create_pipeline", "create_rollback_pipeline"]
