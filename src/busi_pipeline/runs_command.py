"""`kedro runs`: the runs in MLflow's pages, the latest ones beside each other."""

import json
import subprocess
import sys
import webbrowser
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click
from kedro.utils import find_kedro_project

from busi_pipeline.errors import BadInputError

# Else MLflow's pages are about traces of language models.
_CLASSIC = "workflowType=machine_learning"
# At most this many runs beside each other.
_COMPARED = 10


@click.command()
@click.option("--env", "-e", help="Of which the runs are, as of `kedro run`.")
@click.option("--port", type=int, default=5000, show_default=True, help="Of MLflow's pages.")
@click.option("--open/--no-open", "opens", default=True, help="Open the browser.")
@click.option("--links", is_flag=True, help="Only print where the runs are; start nothing.")
def runs(env: str | None, port: int, opens: bool, links: bool) -> None:
    """Show the runs in MLflow's pages: the latest of each kind beside each other.

    Starts the pages of the local store at 127.0.0.1; those of a server are there.
    """
    # Help must not wait for these.
    from kedro.framework.session import KedroSession
    from kedro.framework.startup import bootstrap_project

    project = find_kedro_project(Path.cwd())
    if project is None:
        raise BadInputError("no Kedro project here: run in the project's folder.")
    bootstrap_project(project)
    session: Any = KedroSession.create(project_path=project, env=env)
    settings = session.load_context().mlflow
    uri = settings.server.mlflow_tracking_uri
    is_local = not uri.startswith("http")
    page = f"http://127.0.0.1:{port}" if is_local else uri.rstrip("/")
    experiment = settings.tracking.experiment._experiment
    places = link_runs(page, experiment.experiment_id)
    for what, place in places.items():
        click.echo(f"{what:11}  {place}")
    if links:
        return
    if opens:
        webbrowser.open_new_tab(list(places.values())[-1])
    if is_local:
        command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri]
        sys.exit(subprocess.call([*command, "--host", "127.0.0.1", "--port", str(port)]))  # noqa: S603 - own words


def link_runs(page: str, experiment_id: str) -> dict[str, str]:
    """Return {what: address} of an experiment's runs, and of the latest of each name compared.

    Args:
        page: address of MLflow's pages.
        experiment_id: in the store that MLflow is pointed to.
    """
    import mlflow

    found: list[Any] = mlflow.search_runs(
        [experiment_id],
        filter_string="attributes.status = 'FINISHED' and metrics.run_seconds >= 0",
        order_by=["attributes.start_time DESC"],
        output_format="list",
    )
    scored = [run.info for run in found if _is_scored(run)]
    latest = {info.run_name: info.run_id for info in reversed(scored)}
    chosen = list(reversed(latest.values())) if len(latest) > 1 else [i.run_id for i in scored]
    places = {"runs": f"{page}/#/experiments/{experiment_id}/runs?{_CLASSIC}"}
    if len(chosen) > 1:
        own_runs, own = (
            quote(json.dumps(ids, separators=(",", ":")))
            for ids in (chosen[:_COMPARED], [experiment_id])
        )
        places["compared"] = f"{page}/#/compare-runs?runs={own_runs}&experiments={own}&{_CLASSIC}"
    return places


def _is_scored(run: Any) -> bool:
    return any(key.endswith("test.images") for key in run.data.metrics)
