"""Workers of Dask that are killed in the middle: the results are those of a run without Dask.

    python -m tests.worker_kills [--kills 20] [--seed 0] [--folder FOLDER]

A small project is cross-validated without Dask, then again and again with two workers, one of which
gets SIGKILL at a random moment while nodes run. Each time weights, predictions and metrics must be
those of the run without Dask, bit for bit; MLflow must have one finished run with one finished
child a fold, with the same parameters, metrics and artifacts; no process and no unfinished file may
be left. The first project in which that is not so stays, and the exit status is 1.
"""

import argparse
import re
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import psutil

from tests.integration.projects import find_all_runs
from tests.soak import (
    LONGEST,
    NotAsExpectedError,
    check_project,
    copy_project,
    create_template,
    read_results,
    run_undisturbed,
    start_run,
    try_in_folder,
    wait_for,
)

PIPELINE = "cross_validation"
RUNNER = "--runner=busi_pipeline.runners.DaskRunner"
_EXPERIMENTS = ("vgg16", "resnet50")
_LOCAL = {"dask": {"workers": 2, "memory": 4.0, "dashboard": None}}
_TIMES = re.compile(r"seconds|_ms$|computed")
_LOST = re.compile(r"the worker \S+ is lost, and another one gets what it had: (.+)")


def describe_runs(project: Path) -> dict[str, dict[str, Any]]:
    """Return {name of a run: its parameters, metrics, artifacts, parent}, times left out.

    Raises NotAsExpectedError where two runs have one name, or one is not finished.
    """
    client = mlflow.MlflowClient(f"sqlite:///{project}/mlflow.db")
    described: dict[str, dict[str, Any]] = {}
    runs = find_all_runs(project)
    names = {run.info.run_id: run.info.run_name for run in runs}
    for run in runs:
        name = run.info.run_name
        if name in described or run.info.status != "FINISHED":
            raise NotAsExpectedError(f"a run of MLflow too much: {name}, {run.info.status}")
        metrics = {key: value for key, value in run.data.metrics.items() if not _TIMES.search(key)}
        described[name] = {
            "parameters": run.data.params,
            "metrics": metrics,
            "artifacts": _list_artifacts(client, run.info.run_id),
            "parent": names.get(run.data.tags.get("mlflow.parentRunId", "")),
        }
    return described


def _list_artifacts(client: mlflow.MlflowClient, run_id: str, path: str = "") -> list[str]:
    found: list[str] = []
    for own in client.list_artifacts(run_id, path):
        found += _list_artifacts(client, run_id, own.path) if own.is_dir else [own.path]
    return sorted(found)


def list_workers(driver: int) -> list[psutil.Process]:
    """Return the processes of the workers that a run has started."""
    try:
        children = psutil.Process(driver).children(recursive=True)
        return [own for own in children if any("spawn_main" in part for part in own.cmdline())]
    except psutil.NoSuchProcess:
        return []


def run_and_kill(project: Path, share: float, seconds: float) -> str:
    """Run with Dask and kill a worker after this share of the seconds; return what it was doing.

    A moment at which the worker has nothing to do gives an empty text.
    """
    log = project / "run.log"
    process = start_run(project, PIPELINE, log, RUNNER)
    end = time.monotonic() + LONGEST
    while "Dask: 2 workers" not in log.read_text():
        if process.poll() is not None or time.monotonic() > end:
            raise NotAsExpectedError("no workers came up")
        time.sleep(0.1)
    workers = list_workers(process.pid)
    time.sleep(share * seconds)
    busiest = max(workers, key=lambda own: own.cpu_percent(0.2), default=None)
    if busiest is not None:
        busiest.send_signal(signal.SIGKILL)
    seen = set(workers)
    while process.poll() is None and time.monotonic() < end:
        seen.update(list_workers(process.pid))  # another one comes in its place
        time.sleep(0.5)
    if status := wait_for(process, 1, "the kill"):
        raise NotAsExpectedError(f"exit status {status}")
    if left := [own.pid for own in seen if own.is_running()]:
        raise NotAsExpectedError(f"workers are left: {left}")
    lost = _LOST.search(log.read_text())
    return lost.group(1) if lost else ""


def check_runs(project: Path, expected: dict[str, dict[str, Any]]) -> None:
    """Refuse a project whose runs in MLflow are not those expected."""
    found = describe_runs(project)
    for name in sorted(expected | found):
        for what in ("parameters", "metrics", "artifacts", "parent"):
            theirs, own = expected.get(name, {}).get(what), found.get(name, {}).get(what)
            if theirs != own:
                raise NotAsExpectedError(f"MLflow: {what} of {name}: {own}, not {theirs}")


def kill_workers(folder: Path, kills: int, seed: int) -> int:
    """Kill workers that have a node, one a run; return how many kills that took.

    Args:
        folder: for the projects; the last one stays.
        kills: how many; one that hits a worker with nothing to do is not counted.
        seed: of the moments.
    """
    rng = np.random.default_rng(seed)
    hit = number = 0
    template = create_template(folder / "template", _EXPERIMENTS, _LOCAL)
    reference = copy_project(template, folder / "reference")
    run_undisturbed(reference, PIPELINE)
    expected, runs = read_results(reference), describe_runs(reference)
    project = copy_project(template, folder / "project_0")
    seconds = run_undisturbed(project, PIPELINE, RUNNER)
    check_project(project, expected)
    check_runs(project, runs)
    print(f"undisturbed: {seconds:.0f} s, as without Dask", flush=True)
    while hit < kills:
        if number == 3 * kills:
            raise NotAsExpectedError(f"of {number} kills {hit} hit a worker with a node")
        number += 1
        shutil.rmtree(project)
        # Another name each time: MLflow keeps what it knows of a store by its address.
        project = copy_project(template, folder / f"project_{number}")
        # Workers come up after a third of the time.
        lost = run_and_kill(project, rng.uniform(0, 0.5), seconds)
        check_project(project, expected)
        check_runs(project, runs)
        hit += bool(lost)
        print(f"kill {number}: {lost or 'nothing was running there'}", flush=True)
    return number


def main(arguments: list[str]) -> int:
    """Return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="a temporary one by default")
    asked = parser.parse_args(arguments)

    def attempt(folder: Path) -> None:
        tried = kill_workers(folder, asked.kills, asked.seed)
        print(f"{tried} kills, {asked.kills} of them in the middle of a node: all as without Dask")

    return try_in_folder(asked.folder, "kills-", attempt)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
