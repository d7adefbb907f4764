"""Nodes on workers of Dask: as in one process, though workers are killed, or are elsewhere."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import mlflow
import psutil
import pytest
import yaml

from busi_pipeline.config.schemas import DaskSettings
from busi_pipeline.errors import BadInputError
from busi_pipeline.runners import clusters
from busi_pipeline.runners.clusters import open_workers
from tests.factories import MACHINE_VARIABLES
from tests.integration.mlflow_servers import Server
from tests.integration.projects import create_project, run_command, run_driver, select_default
from tests.integration.slurm import ask_slurm, needs_slurm, serve_slurm
from tests.worker_kills import RUNNER

TRAIN = "--pipeline=train_vgg16"


def test_killed_workers_change_no_result() -> None:
    printed = run_driver(sys.executable, "-m", "tests.worker_kills", "--kills", "1")
    assert "undisturbed" in printed
    assert "1 of them in the middle of a node: all as without Dask" in printed


@contextmanager
def serve_dask(folder: Path, *options: str) -> Iterator[str]:
    """Give the address of a scheduler with one worker, which stand in another folder."""
    variables = {k: v for k, v in os.environ.items() if k not in MACHINE_VARIABLES}
    own = folder / "scheduler.json"
    starts = (
        ["dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"],
        ["dask_worker", "--no-dashboard", *options],
    )
    processes = []
    with (folder / "dask.log").open("ab") as log:
        try:
            for program, *rest in starts:
                command = [sys.executable, "-m", f"distributed.cli.{program}", *rest]
                command += ["--scheduler-file", str(own)]
                processes.append(
                    subprocess.Popen(command, cwd=folder, env=variables, stdout=log, stderr=log)
                )
            deadline = time.monotonic() + 60
            while "Registered to" not in (folder / "dask.log").read_text():
                assert time.monotonic() < deadline, (folder / "dask.log").read_text()
                time.sleep(0.2)
            yield yaml.safe_load(own.read_text())["address"]
        finally:
            for process in reversed(processes):  # a worker alone would wait for its scheduler
                process.terminate()
                process.wait(timeout=30)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return create_project(tmp_path / "project", None, select_default("vgg16"))


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return folder


def test_a_worker_elsewhere_logs_to_the_server(
    project: Path, elsewhere: Path, tmp_path: Path
) -> None:
    """The worker has neither the folder nor the variables of the run."""
    server = Server(tmp_path / "server")
    with serve_dask(elsewhere, "--nthreads", "1", "--nworkers", "1") as address:
        at = f"dask.address={address}"
        refused = run_command(project, TRAIN, RUNNER, "--params", at)
        assert refused.returncode == 1
        assert "set MLFLOW_TRACKING_URI to a server" in refused.stdout + refused.stderr
        server.start()
        try:
            to_server = {"MLFLOW_TRACKING_URI": server.address}
            done = run_command(project, TRAIN, RUNNER, "--params", at, environment=to_server)
            assert done.returncode == 0, done.stdout + done.stderr
            assert f"Dask: 1 worker of {address}" in done.stdout
            client = mlflow.MlflowClient(server.address)
            found = client.search_runs([own.experiment_id for own in client.search_experiments()])
            assert [run.info.status for run in found] == ["FINISHED"]
            assert found[0].data.metrics["test.accuracy"] >= 0
            assert found[0].data.params["split.seed"] == "42"
            paths = [own.path for own in client.list_artifacts(found[0].info.run_id, "results")]
            assert "results/roc_pr_curves.png" in paths
            assert list(project.glob("mlflow_outbox/*")) == []
            private = ("--params", f"{at},privacy.to_server=without_patients")
            withheld = run_command(project, TRAIN, RUNNER, *private, environment=to_server)
        finally:
            server.kill()
    assert withheld.returncode == 1
    assert "privacy.to_server keeps patients' pictures from" in withheld.stdout + withheld.stderr


def set_address(address: str | None, **changes: object) -> DaskSettings:
    given = {"address": address, "jobqueue": None, "workers": None, "threads": 1}
    given |= {"memory": 4.0, "attempts": 3, "dashboard": None}
    return DaskSettings(**given | changes)


def refuse_workers(address: str) -> str:
    with pytest.raises(BadInputError) as caught, open_workers(set_address(address)):
        pass
    return caught.value.message


def test_workers_that_cannot_run_nodes_are_refused(elsewhere: Path) -> None:
    assert "no scheduler answers at tcp://127.0.0.1:9 " in refuse_workers("tcp://127.0.0.1:9")
    with serve_dask(elsewhere, "--nthreads", "2", "--nworkers", "1") as address:
        assert f"`dask worker {address} --nthreads 1`" in refuse_workers(address)


def test_a_worker_that_cannot_be_started_again_is_refused(elsewhere: Path) -> None:
    with serve_dask(elsewhere, "--nthreads", "1", "--no-nanny") as address:
        assert "without --no-nanny" in refuse_workers(address)


def test_a_scheduler_has_one_run_at_a_time(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run finds workers as they began, and leaves none of its steps when it ends early."""
    monkeypatch.setattr(clusters, "_SECONDS_TO_CLAIM", 1)
    with serve_dask(elsewhere, "--nthreads", "1", "--nworkers", "1") as address:
        settings = set_address(address)
        with suppress(InterruptedError), open_workers(settings) as workers:
            assert f"another run uses {address}" in refuse_workers(address)
            (pid,) = workers.client.run(os.getpid).values()
            process = psutil.Process(pid)
            step = workers.client.submit(time.sleep, 120)
            wait_until(lambda: any(workers.client.processing().values()))
            raise InterruptedError
        assert step.status != "finished"
        wait_until(lambda: not process.is_running())
        with open_workers(settings) as workers:
            assert workers.count() == workers.size == 1
            assert pid not in workers.client.run(os.getpid).values()


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_what_a_node_refuses_is_one_line(project: Path) -> None:
    """An error comes back from a worker as it was raised."""
    (project / "data/01_raw/Dataset_BUSI_with_GT/benign/benign (1).png").write_bytes(b"no image")
    for path in (project / "data/01_raw/Dataset_BUSI_with_GT/normal").iterdir():
        path.unlink()
    local = ("--params", "dask.workers=1,dask.memory=4,dask.dashboard=null")
    done = run_command(project, TRAIN, RUNNER, *local)
    said = done.stdout + done.stderr
    assert done.returncode == 1
    assert "Traceback" not in said
    assert "normal" in said.splitlines()[-1]
    assert "too few" in said or "needs at least" in said


@needs_slurm
def test_what_slurm_says_to_a_job_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"queue": "none_of_that_name", "interface": "lo"}
    queue = {"system": "slurm", "jobs": 2, "options": options}
    with serve_slurm(tmp_path / "slurm") as variables:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(BadInputError) as caught:
            open_workers(set_address(None, jobqueue=queue)).__enter__()
    assert caught.value.message.startswith("dask.jobqueue: slurm: ")
    assert "invalid partition specified: none_of_that_name" in caught.value.message
    assert "\n" not in caught.value.message


@needs_slurm
def test_a_job_that_slurm_ends_is_begun_again(tmp_path: Path) -> None:
    """Two jobs of a real Slurm run the steps; one is cancelled in the middle."""
    options = {"queue": "all", "walltime": "00:30:00", "interface": "lo"}
    options["log_directory"] = str(tmp_path / "jobs")
    queue = {"system": "slurm", "jobs": 2, "options": options}
    dask = {"dask": {"memory": 3.0, "dashboard": None, "jobqueue": queue}}
    project = create_project(tmp_path / "project", None, select_default("vgg16"), dask)
    server = Server(tmp_path / "server")
    server.start()
    try:
        with serve_slurm(tmp_path / "slurm") as variables:
            to_server = variables | {"MLFLOW_TRACKING_URI": server.address}
            # By default Dask waits longer for a lost worker than the rest of this run takes.
            to_server |= {"DASK_DISTRIBUTED__DEPLOY__LOST_WORKER_TIMEOUT": "1s"}
            with (project / "run.log").open("wb") as log:
                process = subprocess.Popen(
                    [sys.executable, "-m", "kedro", "run", TRAIN, RUNNER],
                    **{"cwd": project, "env": os.environ | to_server, "stdout": log, "stderr": log},
                )
            try:
                cancelled = cancel_job_at_work(project / "run.log", variables)
                assert process.wait(timeout=600) == 0, (project / "run.log").read_text()
            finally:
                process.kill()
            jobs = ask_slurm(variables, "squeue", "--noheader", "--states=all", "--format=%i %T")
    finally:
        server.kill()
    said = (project / "run.log").read_text()
    assert "Dask: 2 workers, each with 3 GB and 1 core" in said
    assert f"{cancelled} CANCELLED" in jobs
    assert len(jobs.splitlines()) >= 3, "another job was begun in its place"
    assert "27 steps in" in said


def cancel_job_at_work(log: Path, variables: dict[str, str]) -> str:
    """Cancel the first job as soon as steps run; return its number."""
    deadline = time.monotonic() + 300
    while "steps done" not in log.read_text():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)
    running = ask_slurm(
        variables, "squeue", "--noheader", "--states=RUNNING", "--format=%i"
    ).split()
    ask_slurm(variables, "scancel", running[0])
    return running[0]
