"""Kedro, Kedro-Viz and MLflow report to nobody; where they are let, the same test sees them try."""

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.factories import PROJECT
from tests.integration.projects import create_store

# Python imports it before anything else, in child processes as well.
INTERCEPT = """
import os, socket

def refuse(host, *others, **named):
    with open(os.environ["CONNECTIONS"], "a") as file:
        print(host, file=file)
    raise OSError("intercepted")

socket.getaddrinfo = refuse
socket.socket.connect = lambda self, address: refuse(address[0])
"""
LET = {"KEDRO_DISABLE_TELEMETRY": "", "MLFLOW_DISABLE_TELEMETRY": "false"}

MLFLOW = """
import {first}
import mlflow
mlflow.set_tracking_uri("sqlite:///mlflow.db")
mlflow.create_experiment("reported")
mlflow.telemetry.get_telemetry_client() and mlflow.telemetry.get_telemetry_client().flush()
"""
# What the pages of MLflow and Kedro-Viz are given by the server that shows them.
PAGES = """
import json
import {first}
from pathlib import Path
from kedro_viz.integrations.kedro.telemetry import get_heap_app_id
from mlflow.server import app
page = app.test_client().get("/ajax-api/3.0/mlflow/ui-telemetry").json
print(json.dumps([page["disable_ui_telemetry"], bool(get_heap_app_id(Path()))]))
"""

Run = Callable[..., tuple[str, list[str]]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run Python where every connection is intercepted: (what it printed, hosts it asked for)."""
    site, folder = tmp_path / "site", tmp_path / "anywhere"
    metadata = site / "busi_pipeline-0.dist-info"
    metadata.mkdir(parents=True)
    folder.mkdir()
    create_store(folder)
    (site / "sitecustomize.py").write_text(INTERCEPT)
    # As this pyproject.toml has it, whatever was installed.
    declared = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["entry-points"]
    lines = [
        line
        for group, points in declared.items()
        for line in (f"[{group}]", *(f"{name} = {value}" for name, value in points.items()))
    ]
    (metadata / "entry_points.txt").write_text("\n".join(lines))
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: busi_pipeline\nVersion: 0\n")

    def run(*arguments: str, reports: bool) -> tuple[str, list[str]]:
        asked = tmp_path / "connections"
        asked.unlink(missing_ok=True)
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=folder,
            # Nothing more: where MLflow sees a test or a CI, it does not report.
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": f"{site}{os.pathsep}{PROJECT / 'src'}",
                "CONNECTIONS": str(asked),
                "HOME": str(tmp_path),
                **(LET if reports else {}),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        return (
            done.stdout + done.stderr,
            asked.read_text().split() if asked.exists() else [],
        )

    return run


def test_kedro_outside_the_project_reports_nothing(run: Run) -> None:
    said, hosts = run("-m", "kedro", "run", reports=True)
    assert "Kedro is sending anonymous usage data" in said
    assert "heapanalytics.com" in hosts, "else this test could not fail"
    said, hosts = run("-m", "kedro", "run", reports=False)
    assert "No such command 'run'" in said
    assert "usage data" not in said
    assert not hosts


def test_mlflow_reports_nothing_where_the_package_is(run: Run) -> None:
    assert run("-c", MLFLOW.format(first="json"), reports=True)[1], "else this test could not fail"
    assert not run("-c", MLFLOW.format(first="busi_pipeline"), reports=False)[1]


def test_pages_of_mlflow_and_viz_report_nothing(run: Run) -> None:
    _, hosts = run("-c", PAGES.format(first="sys"), reports=True)
    assert hosts, "else this test could not fail"
    said, hosts = run("-c", PAGES.format(first="busi_pipeline"), reports=False)
    assert json.loads(said.splitlines()[-1]) == [True, False]
    assert not hosts
