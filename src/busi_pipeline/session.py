"""Kedro's session, which looks at what it is asked for before it opens an MLflow store."""

import contextlib
import inspect
from collections.abc import Mapping
from typing import Any

from kedro.config import MissingConfigException
from kedro.framework import project
from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.framework.session import KedroSession
from kedro.pipeline import Pipeline
from kedro_mlflow.config.kedro_mlflow_config import KedroMlflowConfig

from busi_pipeline.config.loader import ProjectConfigLoader
from busi_pipeline.request import (
    check_environment,
    check_pipeline_names,
    check_runner,
    check_selection,
)


class ProjectSession(KedroSession):
    """Answers a wrong request in one line and leaves nothing behind.

    Kedro looks for pipeline and nodes when the hooks of the context are done. kedro-mlflow's makes
    an MLflow store, which takes seconds.
    """

    def run(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Run as KedroSession does; raises BadInputError, one line, for what cannot be run."""
        request = inspect.signature(super().run).bind(*args, **kwargs).arguments
        check_runner(request.get("runner"))
        check_environment()
        self._hook_manager.register(RequestCheck(request))
        return super().run(*args, **kwargs)


class RequestCheck:
    """Looks at the request of one session as soon as its pipelines are known."""

    def __init__(self, request: Mapping[str, Any]):
        """Take {argument of KedroSession.run: what was asked for}."""
        self._request = request

    @hook_impl(tryfirst=True)
    def after_context_created(self, context: KedroContext) -> None:
        """Raise BadInputError for names that do not exist and for files that cannot be read."""
        single = self._request.get("pipeline_name")
        names = [single] if single else self._request.get("pipeline_names") or ["__default__"]
        check_pipeline_names(names, project.pipelines)
        pipeline = sum((project.pipelines[name] for name in names), Pipeline([]))
        check_selection(pipeline, self._request)
        loader = context.config_loader
        assert isinstance(loader, ProjectConfigLoader)
        for kind in ("mlflow", "catalog", "credentials"):
            with contextlib.suppress(MissingConfigException):
                loader.check(kind, KedroMlflowConfig if kind == "mlflow" else None)
