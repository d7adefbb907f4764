"""Runners that `kedro run --runner=` takes beside Kedro's own."""

from .dask_runner import DaskRunner

__all__ = ["DaskRunner"]
