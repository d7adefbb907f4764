"""A run of a process that is gone is closed; one of a process that is there is not."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from mlflow.tracking import MlflowClient

from busi_pipeline.tracking.liveness import LOCK_TAG, RunLock, close_dead_runs
from tests.factories import close_mlflow

CODE = """
import os, sys, mlflow
from pathlib import Path
from busi_pipeline.tracking.liveness import RunLock
mlflow.set_tracking_uri(sys.argv[1])
lock = RunLock(Path(sys.argv[2]))
with lock.mark_runs():
    parent = mlflow.start_run(experiment_id="0").info.run_id
client = mlflow.MlflowClient()
client.create_run("0", tags={"mlflow.parentRunId": parent})
print(parent, flush=True)
os.kill(os.getpid(), 9)
"""


@pytest.fixture
def client(tmp_path: Path, mlflow_database: Path) -> Iterator[MlflowClient]:
    (tmp_path / "mlflow.db").write_bytes(mlflow_database.read_bytes())
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    mlflow.set_tracking_uri(uri)
    yield MlflowClient(uri)
    close_mlflow()


def find_status(client: MlflowClient, run_id: str) -> str:
    return str(client.get_run(run_id).info.status)


def test_a_killed_process_leaves_no_running_run(client: MlflowClient, tmp_path: Path) -> None:
    folder = tmp_path / "running"
    done = subprocess.run(
        [sys.executable, "-c", CODE, f"sqlite:///{tmp_path}/mlflow.db", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    parent = done.stdout.strip()
    assert find_status(client, parent) == "RUNNING"
    closed = close_dead_runs(client, "0", folder)
    assert len(closed) == 2, "with its child"
    assert {find_status(client, run_id) for run_id in closed} == {"KILLED"}
    assert list(folder.iterdir()) == []
    assert close_dead_runs(client, "0", folder) == []


def test_a_run_of_a_process_that_is_there_stays(client: MlflowClient, tmp_path: Path) -> None:
    lock = RunLock(tmp_path / "running")
    with lock.mark_runs():
        own = client.create_run("0").info.run_id
        with mlflow.start_run(experiment_id="0") as run:
            marked = run.info.run_id
    assert LOCK_TAG in client.get_run(marked).data.tags
    client.update_run(marked, status="RUNNING")
    somebodys = own  # by the client, so without the tag
    assert close_dead_runs(client, "0", tmp_path / "running") == []
    lock.release()
    assert close_dead_runs(client, "0", tmp_path / "running") == [marked]
    assert find_status(client, somebodys) == "RUNNING"


def test_the_environment_is_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_RUN_CONTEXT", '{"mine": "1"}')
    lock = RunLock(tmp_path)
    with lock.mark_runs():
        assert '"mine": "1"' in os.environ["MLFLOW_RUN_CONTEXT"]
        assert lock.name in os.environ["MLFLOW_RUN_CONTEXT"]
    assert os.environ["MLFLOW_RUN_CONTEXT"] == '{"mine": "1"}'
    lock.release()
