"""Runs that are killed, stopped and damaged at any moment, until the time is up: `make soak`.

    python -m tests.soak [--minutes 60] [--seed 0] [--folder FOLDER]

Small projects are trained and cross-validated. Each run is interrupted at a random moment, by
SIGKILL, SIGTERM or Ctrl-C, and begun again; before some of the new beginnings a bit of a cached
file is turned, or its end cut off. In the end the run is left alone, or there are two at once.
Then weights, predictions and metrics must be those of a run that was never interrupted, bit for
bit, no unfinished file may be left, no run of MLflow may stand as running, and nothing may wait in
the outbox. The first project in which that is not so stays, and the exit status is 1.
"""

import argparse
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from busi_pipeline.tracking import outbox
from tests.factories import CLASSES, MACHINE_VARIABLES
from tests.integration.projects import create_project, find_all_runs, read_json, select_default

EXPERIMENT = "inceptionv3"
PIPELINES = (f"train_{EXPERIMENT}", f"cross_validate_{EXPERIMENT}")
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
_MOST_INTERRUPTIONS = 4
_DAMAGED = 0.3  # share of the new beginnings
_IMAGES = 14  # of each class
LONGEST = 600  # seconds of a run that is left alone
_TENTHS = 10
_TWO_AT_ONCE = 3  # every so many projects


class NotAsExpectedError(Exception):
    """What a run that was interrupted does not have in common with one that was not."""


def start_run(
    project: Path, pipeline: str, log: Path | None = None, *options: str
) -> subprocess.Popen[bytes]:
    """Begin `kedro run` in a process of its own; its output goes to a file, or to `run.log`."""
    variables = {k: v for k, v in os.environ.items() if k not in MACHINE_VARIABLES}
    with (log or project / "run.log").open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "kedro", "run", f"--pipeline={pipeline}", *options],
            cwd=project,
            env=variables,
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def hash_weights(network: Path) -> str:
    """Return the SHA-256 of names and values of all weights of a Keras file."""
    found = hashlib.sha256()
    with zipfile.ZipFile(network) as archive:
        content = io.BytesIO(archive.read("model.weights.h5"))

    def add(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found.update(name.encode())
            found.update(np.ascontiguousarray(item[()]).tobytes())

    with h5py.File(content) as weights:
        weights.visititems(add)
    return found.hexdigest()


def read_results(project: Path) -> dict[str, str]:
    """Return what must be the same whatever happened on the way: {name: hash or text}."""
    results = {}
    data = project / "data"
    for network in sorted((data / "06_models").rglob("*.keras")):
        results[str(network.relative_to(data))] = hash_weights(network)
    for table in sorted((data / "07_model_output").rglob("predictions.csv")):
        results[str(table.relative_to(data))] = table.read_text()
    for metrics in sorted((data / "08_reporting").rglob("metrics.json")):
        scores = json.dumps(read_json(metrics)["test"], sort_keys=True)
        results[str(metrics.relative_to(data))] = scores
    return results


def damage_cache(project: Path, rng: np.random.Generator) -> str | None:
    """Turn a bit of a cached file, or cut its end off; return what was done."""
    files = [p for p in sorted((project / "data/cache").rglob("*.*")) if p.is_file()]
    if not files:
        return None
    path = files[rng.integers(len(files))]
    content = bytearray(path.read_bytes())
    if not content:
        return None
    if rng.random() < 0.5:
        content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
        done = "a bit turned"
    else:
        content = content[: rng.integers(len(content))]
        done = "a file cut"
    path.write_bytes(content)
    return done


def check_project(project: Path, expected: dict[str, str]) -> None:
    """Refuse a finished project that is not as one that was never interrupted."""
    found = read_results(project)
    if different := sorted(
        name for name in expected | found if expected.get(name) != found.get(name)
    ):
        raise NotAsExpectedError(f"different: {', '.join(different)}")
    if left := sorted(project.rglob("*.unfinished*")):
        raise NotAsExpectedError(f"left behind: {', '.join(path.name for path in left)}")
    if running := [r.info.run_name for r in find_all_runs(project) if r.info.status == "RUNNING"]:
        raise NotAsExpectedError(f"still running in MLflow: {', '.join(running)}")
    if waiting := list((project / outbox.FOLDER).glob("*/address.json")):
        raise NotAsExpectedError(f"{len(waiting)} runs wait in the outbox")


def copy_project(template: Path, folder: Path) -> Path:
    """Make a project that has images and configuration, and no MLflow store."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(template, folder, ignore=shutil.ignore_patterns("mlflow.db*"))
    return folder


def create_template(
    folder: Path, experiments: Sequence[str] = (EXPERIMENT,), *changes: Mapping[str, Any]
) -> Path:
    """Make the project that others are copies of; see create_project."""
    counts = dict.fromkeys(CLASSES, _IMAGES)
    return create_project(folder, counts, select_default(*experiments), *changes)


def wait_for(process: subprocess.Popen[bytes], seconds: float, after: str = "") -> int:
    """Return the exit status of a process; one that takes longer is killed, and not as expected."""
    try:
        return process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise NotAsExpectedError(f"not done {seconds:.0f} s after {after or 'it began'}") from None


def run_undisturbed(project: Path, pipeline: str, *options: str) -> float:
    """Return the seconds of a run that is left alone, and has to succeed."""
    begun = time.monotonic()
    if status := wait_for(start_run(project, pipeline, None, *options), LONGEST):
        raise NotAsExpectedError(f"exit status {status}")
    return time.monotonic() - begun


def run_two(project: Path, pipeline: str) -> None:
    """Run twice at once; both have to succeed."""
    other = start_run(project, pipeline, project / "other.log")
    try:
        run_undisturbed(project, pipeline)
        status = wait_for(other, LONGEST)
    finally:
        other.kill()
        other.wait()
    if status:
        raise NotAsExpectedError(f"exit status {status} of one of two at once, see other.log")


def interrupt_runs(
    project: Path, pipeline: str, seconds: float, rng: np.random.Generator, counts: Counter[str]
) -> None:
    """Begin a run some times, and interrupt it at a moment within these seconds each time."""
    for _ in range(rng.integers(1, _MOST_INTERRUPTIONS + 1)):
        part = rng.random()
        number = SIGNALS[rng.integers(len(SIGNALS))]
        process = start_run(project, pipeline)
        try:
            status = process.wait(timeout=part * seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(number)
            wait_for(process, 60, number.name)
            counts[number.name] += 1
            counts[f"in tenth {int(part * _TENTHS) + 1} of the time"] += 1
        else:
            if status:
                raise NotAsExpectedError(f"exit status {status} without an interruption")
            counts["done before the signal"] += 1
        if rng.random() < _DAMAGED and (done := damage_cache(project, rng)):
            counts[done] += 1


def soak(folder: Path, minutes: float, seed: int) -> Counter[str]:
    """Interrupt projects until the time is up, or one is not as expected.

    Args:
        folder: for the projects; the last one stays in `project`.
        minutes: no further project is begun afterwards; there is one of each pipeline at least.
        seed: of moments, signals and damage.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)  # for those begun in the background
    rng = np.random.default_rng(seed)
    template = create_template(folder / "template")
    end = time.monotonic() + 60 * minutes
    expected, seconds = {}, {}
    for pipeline in PIPELINES:
        project = copy_project(template, folder / "project")
        seconds[pipeline] = run_undisturbed(project, pipeline)
        expected[pipeline] = read_results(project)
        if not expected[pipeline]:
            raise NotAsExpectedError(f"{pipeline} left no results to compare with")
        print(f"{pipeline}: {seconds[pipeline]:.0f} s undisturbed", flush=True)
    counts: Counter[str] = Counter()
    while time.monotonic() < end or counts["projects"] < len(PIPELINES):
        pipeline = PIPELINES[counts["projects"] % len(PIPELINES)]
        project = copy_project(template, folder / "project")
        interrupt_runs(project, pipeline, seconds[pipeline], rng, counts)
        if counts["projects"] % _TWO_AT_ONCE == 1:
            run_two(project, pipeline)
            counts["two at once"] += 1
        else:
            run_undisturbed(project, pipeline)
        check_project(project, expected[pipeline])
        counts["projects"] += 1
        interrupted = sum(counts[number.name] for number in set(SIGNALS))
        print(
            f"{counts['projects']} projects, {interrupted} interruptions; "
            f"{max(0, (end - time.monotonic()) / 60):.0f} minutes left",
            flush=True,
        )
    return counts


def try_in_folder(asked: Path | None, prefix: str, attempt: Callable[[Path], None]) -> int:
    """Return 0 where all was as expected, else 1.

    Args:
        asked: the folder; None makes one, which goes where all was as expected.
        prefix: of the name of one that is made.
        attempt: what is done in it.
    """
    folder = asked or Path(tempfile.mkdtemp(prefix=prefix))
    try:
        attempt(folder)
    except NotAsExpectedError as failure:
        print(f"failed: {failure}. The project and its run.log are in {folder}.")
        return 1
    if asked is None:
        shutil.rmtree(folder)
    return 0


def main(arguments: list[str]) -> int:
    """Return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="a temporary one by default")
    asked = parser.parse_args(arguments)

    def attempt(folder: Path) -> None:
        for name, count in sorted(soak(folder, asked.minutes, asked.seed).items()):
            print(f"{name}: {count}")

    return try_in_folder(asked.folder, "soak-", attempt)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
