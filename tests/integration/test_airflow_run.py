"""A DAG of the project on a real Airflow, which has an environment of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.factories import PROJECT
from tests.integration.projects import (
    create_project,
    find_runs,
    hide_machine,
    run_command,
    run_pipeline,
    select_default,
)
from tests.soak import read_results

PIPELINE = "train_vgg16"
_BESIDE = Path(sys.prefix)
AIRFLOW = _BESIDE.with_name(f"{_BESIDE.name}-airflow") / "bin/airflow"

needs_airflow = pytest.mark.skipif(
    not AIRFLOW.exists(), reason=f"no Airflow in {AIRFLOW.parents[1].name}: `make airflow`"
)


def create_dag(project: Path, pipeline: str, *options: str) -> str:
    template = f"--jinja-file={PROJECT / 'deploy/airflow_dag.j2'}"
    command = ("kedro", "airflow", "create")
    arguments = (f"--pipelines={pipeline}", "--group-by=namespace", template, *options)
    done = run_command(project, *arguments, command=command)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = (project / "airflow_dags").glob("*.py")
    return path.read_text()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return create_project(tmp_path / "project", None, select_default("vgg16"))


def test_each_namespace_is_a_task(project: Path) -> None:
    made = create_dag(
        project,
        PIPELINE,
        "--params",
        "schedule=0 3 * * 1,kedro=/opt/venv/bin/kedro,start_date=2026-03-01",
    )
    compile(made, "dag", "exec")
    tasks = ("ingestion", "deduplication", "preprocessing", "splitting", "vgg16")
    for name in tasks:
        assert f"--namespaces={name}" in made
    assert made.count("BashOperator(") == len(tasks)
    assert 'tasks["splitting"] >> tasks["vgg16"]' in made
    assert 'schedule="0 3 * * 1"' in made
    assert '"/opt/venv/bin/kedro"' in made
    assert 'datetime.fromisoformat("2026-03-01")' in made


@needs_airflow
def test_airflow_runs_a_dag(project: Path, tmp_path: Path) -> None:
    """With the results of `kedro run`; the MLflow runs of its tasks are marked as one."""
    create_dag(project, PIPELINE)
    variables = os.environ | {
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(project / "airflow_dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "BUSI_KEDRO": str(Path(sys.executable).with_name("kedro")),
    }
    for arguments in (["db", "migrate"], ["dags", "test", f"busi_pipeline_{PIPELINE}"]):
        done = subprocess.run(
            [str(AIRFLOW), *arguments], env=variables, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    runs = find_runs(project)
    assert [run.info.status for run in runs] == ["FINISHED"] * 5
    assert len({run.data.tags["airflow_run"] for run in runs}) == 1
    by_airflow = read_results(project)
    with hide_machine():
        other = create_project(tmp_path / "other", None, select_default("vgg16"))
        run_pipeline(other, PIPELINE)
        assert by_airflow == read_results(other)
    assert any(name.endswith("metrics.json") for name in by_airflow)
