"""Whole small projects: images of any classes, settings that take seconds, runs of all kinds."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml
from kedro.framework.project import settings
from kedro.framework.startup import bootstrap_project
from mlflow.entities import Run
from PIL import Image

from busi_pipeline.config.schemas import merge_settings
from busi_pipeline.synthetic import simulate_scan
from tests.factories import (
    CLASSES,
    MACHINE_VARIABLES,
    PROJECT,
    TINY,
    TINY_EXPERIMENTS,
    close_mlflow,
)

RAW = "data/01_raw/Dataset_BUSI_with_GT"


def select_default(*names: str) -> dict[str, Any]:
    """Return parameters by which these tiny experiments alone are in the default pipelines."""
    tiny = yaml.safe_load(TINY_EXPERIMENTS)["experiments"]
    return {"experiments": {name: {"in_default": name in names} for name in tiny}}


def create_project(
    folder: Path, counts: Mapping[str, int] | None = None, *changes: Mapping[str, Any]
) -> Path:
    """Make a copy of the project's configuration with synthetic images, and return its folder.

    Args:
        folder: to be made.
        counts: images by class; twelve of each of BUSI's by default.
        changes: parameters laid over the tiny ones, in conf/local.
    """
    folder.mkdir(parents=True)
    shutil.copytree(PROJECT / "conf", folder / "conf", ignore=shutil.ignore_patterns("local"))
    for name in ("pyproject.toml", ".telemetry"):
        shutil.copy(PROJECT / name, folder)
    (folder / "src").mkdir()  # Kedro wants the folder; the package is the installed one
    create_store(folder)
    write_images(folder / RAW, counts or dict.fromkeys(CLASSES, 12))
    write_local(folder / "conf", *changes)
    return folder


def create_store(folder: Path) -> Path:
    """Write an MLflow store without runs into a folder, and return its file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mlflow.db").write_bytes(_make_store())
    return folder / "mlflow.db"


@cache
def _make_store() -> bytes:
    """Return the file of an empty store, which MLflow takes seconds to make."""
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "mlflow.db"
        mlflow.MlflowClient(f"sqlite:///{store}").search_experiments()
        return store.read_bytes()


def write_local(conf: Path, *changes: Mapping[str, Any]) -> None:
    """Write `local` of a configuration: tiny experiments with `changes` laid over them."""
    (conf / "local").mkdir(exist_ok=True)
    tiny = (yaml.safe_load(text) for text in (TINY, TINY_EXPERIMENTS))
    (conf / "local/parameters.yml").write_text(yaml.safe_dump(merge_settings(*tiny, *changes)))


def write_images(folder: Path, counts: Mapping[str, int]) -> None:
    """Write `<class>/<class> (n).png` with masks beside them, as BUSI has it, for any classes.

    Lesions look benign in every second class from the first one on, malignant in the others; images
    of `normal` and of `None` have none.
    """
    for number, (label, count) in enumerate(counts.items()):
        (folder / label).mkdir(parents=True)
        look = ("benign", "malignant")[number % 2]
        if label in ("normal", "None"):
            look = "normal"
        for n in range(1, count + 1):
            scan = simulate_scan(look, 150, 190, np.random.default_rng([1, number, n]))
            Image.fromarray(scan.image).save(folder / label / f"{label} ({n}).png")
            Image.fromarray(scan.mask).save(folder / label / f"{label} ({n})_mask.png")


@contextmanager
def hide_machine() -> Iterator[None]:
    """Hide the machine's data, weights and tracking server, and leave MLflow as it was."""
    with pytest.MonkeyPatch.context() as patch:
        for name in MACHINE_VARIABLES:
            patch.delenv(name, raising=False)
        yield
    close_mlflow()


def run_pipeline(
    project: Path,
    pipeline: str,
    parameters: Mapping[str, Any] | None = None,
    env: str | None = None,
    **selection: Any,
) -> None:
    """Run a pipeline in this process.

    Args:
        project: its folder.
        pipeline: its name.
        parameters: as from `--params`, nested.
        env: environment; `local` by default.
        selection: of nodes, or a runner; see KedroSession.run.
    """
    bootstrap_project(project)
    with settings.SESSION_CLASS.create(  # as `kedro run` does
        project_path=project, env=env, runtime_params=dict(parameters or {})
    ) as session:
        session.run(pipeline_names=[pipeline], **selection)


def run_command(
    folder: Path,
    *arguments: str,
    command: Sequence[str] = ("kedro", "run"),
    environment: Mapping[str, str] | None = None,
    unset: Sequence[str] = (),
) -> subprocess.CompletedProcess[str]:
    """Type `python -m kedro run <arguments>` in a folder.

    Args:
        folder: where.
        arguments: of `kedro run`.
        command: the module and what stands before the arguments.
        environment: variables beside those of the test.
        unset: variables to leave out.
    """
    variables = {name: value for name, value in os.environ.items() if name not in unset}
    return subprocess.run(
        [sys.executable, "-m", *command, *arguments],
        cwd=folder,
        env=variables | dict(environment or {}),
        capture_output=True,
        text=True,
        check=False,
    )


def run_driver(*command: str) -> str:
    """Run a module of `tests` from the repository; it has to succeed. Return what it printed."""
    done = subprocess.run(command, cwd=PROJECT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def find_all_runs(project: Path) -> list[Run]:
    """Return all runs in the project's store, the latest first."""
    mlflow.set_tracking_uri(f"sqlite:///{project}/mlflow.db")
    return mlflow.search_runs(search_all_experiments=True, output_format="list")


def find_runs(project: Path) -> list[Run]:
    """Return the runs in the project's store but for those of folds, the latest first."""
    return [run for run in find_all_runs(project) if "mlflow.parentRunId" not in run.data.tags]


def find_folds(project: Path) -> list[Run]:
    """Return the runs of the folds of the latest run, in order of their names."""
    parent = find_runs(project)[0].info.run_id
    folds = [r for r in find_all_runs(project) if r.data.tags.get("mlflow.parentRunId") == parent]
    return sorted(folds, key=lambda run: run.info.run_name)


def read_json(path: Path) -> Any:
    """Return what a JSON file holds."""
    return json.loads(path.read_text())


def read_table(path: Path) -> pd.DataFrame:
    """Return a table whose texts stay what they are, also where they are `None` or `NA`."""
    return pd.read_csv(path, keep_default_na=False, na_values=[""])
