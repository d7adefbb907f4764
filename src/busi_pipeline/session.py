"""Kedro's session, which looks at what it is asked for before it opens an MLflow store."""

import contextlib
import inspect
import logging
from collections.abc import Mapping
from typing import Any

import mlflow
from kedro.config import MissingConfigException
from kedro.framework import project
from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.framework.session import KedroSession
from kedro.pipeline import Pipeline
from kedro_mlflow.config.kedro_mlflow_config import KedroMlflowConfig

from busi_pipeline.config.loader import ProjectConfigLoader
from busi_pipeline.config.schemas import DaskSettings, merge_settings
from busi_pipeline.disk_errors import explain_disk_error
from busi_pipeline.errors import BadInputError
from busi_pipeline.request import (
    check_environment,
    check_pipeline_names,
    check_runner,
    check_selection,
)
from busi_pipeline.tracking.local_store import find_local_store
from busi_pipeline.tracking.outbox import FOLDER, Outbox, Parcel
from busi_pipeline.tracking.server import (
    find_problem,
    is_server,
    is_this_machine,
    name_store,
    refuse_credentials,
)

logger = logging.getLogger(__name__)


def _is_no_error(record: logging.LogRecord) -> bool:
    return record.levelno < logging.ERROR


# What goes wrong in MLflow's database is logged there with a traceback, and raised as well.
logging.getLogger("mlflow.store.db.utils").addFilter(_is_no_error)

# MLflow adds rows that may be there, and handles the refusal.
logging.getLogger("psycopg").setLevel(logging.ERROR)

# Datasets of pipelines that talk to the server themselves: its registry, and what waits for it.
_NEED_SERVER = frozenset({"promotion.registry", "mlflow_outbox"})


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
        check = RequestCheck(request)
        self._hook_manager.register(check)
        try:
            result = super().run(*args, **kwargs)
        except Exception as error:
            check.try_to_deliver()
            if (explained := explain_disk_error(error)) is not None:
                raise explained from error
            raise
        check.try_to_deliver()
        return result


class RequestCheck:
    """Looks at the request of one session as soon as its pipelines are known."""

    def __init__(self, request: Mapping[str, Any]):
        """Take {argument of KedroSession.run: what was asked for}."""
        self._request = request
        self._parcel: Parcel | None = None

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
        self._keep_run(loader, pipeline)

    def _keep_run(self, loader: ProjectConfigLoader, pipeline: Pipeline) -> None:
        """Let a run that is for a server be logged to a parcel first; see tracking.outbox.

        What gives models roles, or delivers parcels, talks to the server itself.
        """
        try:
            settings = loader["mlflow"]
        except MissingConfigException:
            return
        server = (settings.get("server") or {}).get("mlflow_tracking_uri") or ""
        is_elsewhere = self._runs_elsewhere(loader)
        refuse_credentials(server, is_elsewhere)
        is_file = not server or find_local_store(server) is not None
        if is_elsewhere and is_file:
            raise BadInputError(
                "workers on other machines log to MLflow, too, and its store here is a file: set "
                "MLFLOW_TRACKING_URI to a server (http://...) or a database (postgresql://...) "
                "that all of them reach. docs/how-to/cluster.md shows both."
            )
        if is_file or _NEED_SERVER & pipeline.datasets():
            return
        to_server = loader["parameters"]["privacy"].to_server
        withholds = to_server == "without_patients" or (
            to_server == "automatic" and not is_this_machine(server)
        )
        is_direct = is_elsewhere or not is_server(server)
        if is_direct and withholds:
            how = "workers on other machines log" if is_elsewhere else "a run logs"
            raise BadInputError(
                f"{how} to {name_store(server)} directly, and privacy.to_server keeps patients' "
                "pictures from it: set it to `everything`, if they may go there, or "
                "MLFLOW_TRACKING_URI to an MLflow server, and leave out `dask.address` and "
                "`dask.jobqueue`."
            )
        outbox = Outbox(loader.project_root / FOLDER)
        outbox.clean()
        if is_direct:
            return
        self._parcel = outbox.open(server, withholds)
        problem = find_problem(server)
        if problem:
            logger.warning(
                "the MLflow server %s cannot be reached (%s): the run is kept in %s until it can",
                *(server, problem, FOLDER),
            )
        loader["mlflow"] = merge_settings(
            settings,
            {
                "server": {
                    "mlflow_tracking_uri": self._parcel.tracking_uri,
                    "mlflow_registry_uri": server,
                },
                "tracking": {
                    "experiment": {
                        "create_experiment_kwargs": {
                            "artifact_location": self._parcel.artifact_location
                        }
                    }
                },
            },
        )

    def _runs_elsewhere(self, loader: ProjectConfigLoader) -> bool:
        """Whether other machines, which do not see a parcel, log to the run."""
        dask: DaskSettings = loader["parameters"]["dask"]
        return getattr(self._request.get("runner"), "has_workers", False) and dask.is_elsewhere

    def try_to_deliver(self) -> None:
        """Send what waits; where that fails, it waits on, and a line says why."""
        try:
            self._deliver()
        except Exception as error:  # the run is over, and what became of it must be said
            reason = explain_disk_error(error) or str(error).splitlines()[0]
            logger.warning("the run waits in %s and could not be sent: %s", FOLDER, reason)

    def _deliver(self) -> None:
        """Send the run, and what waits from earlier ones; a line says where they are."""
        if self._parcel is None:
            return
        parcel, self._parcel = self._parcel, None
        server, outbox = parcel.server, Outbox(parcel.folder.parent)
        mlflow.set_tracking_uri(server)  # the parcel does not stay
        if parcel.is_empty():
            parcel.remove()
            return
        parcel.release()
        try:
            for run in outbox.deliver(server):
                logger.info("MLflow run %s is at %s", run.name, run.address)
        except BadInputError as error:
            logger.warning("%s", error)
