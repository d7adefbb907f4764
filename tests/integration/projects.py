"""Whole small projects: images of any classes, settings that take seconds, runs of all kinds."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import yaml
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from mlflow.entities import Run
from PIL import Image

from busi_pipeline.config.schemas import merge_settings
from busi_pipeline.synthetic import simulate_scan
from tests.factories import CLASSES, PROJECT, TINY, TINY_EXPERIMENTS, close_mlflow

# What a machine may have set, and no run of a test may see.
MACHINE_VARIABLES = ("BUSI_RAW_DIR", "BUSI_WEIGHTS_DIR", "MLFLOW_TRACKING_URI", "KEDRO_ENV")
SILENCED = ("CI", "DO_NOT_TRACK", "MLFLOW_DISABLE_TELEMETRY", "KEDRO_DISABLE_TELEMETRY")
RAW = "data/01_raw/Dataset_BUSI_with_GT"
# One training and one cross-validation of it: seconds.
ONLY_RESNET50: dict[str, Any] = {
    "experiments": {
        name: {"in_default": False} for name in ("vgg16", "inceptionv3", "inceptionv3_adamw")
    }
}


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
    write_images(folder / RAW, counts or dict.fromkeys(CLASSES, 12))
    write_local(folder, *changes)
    return folder


def write_local(project: Path, *changes: Mapping[str, Any]) -> None:
    """Write conf/local: tiny experiments with `changes` laid over them."""
    (project / "conf/local").mkdir(exist_ok=True)
    tiny = (yaml.safe_load(text) for text in (TINY, TINY_EXPERIMENTS))
    parameters = merge_settings(*tiny, *changes)
    (project / "conf/local/parameters.yml").write_text(yaml.safe_dump(parameters))


def write_images(folder: Path, counts: Mapping[str, int]) -> None:
    """Write `<class>/<class> (n).png` with masks beside them, as BUSI has it, for any classes.

    Lesions look benign in every second class from the first one on, malignant in the others; images
    of a class with "normal" or "None" in its name have none.
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
def no_machine() -> Iterator[None]:
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
    with KedroSession.create(
        project_path=project, env=env, runtime_params=dict(parameters or {})
    ) as session:
        session.run(pipeline_names=[pipeline], **selection)


def run_command(
    folder: Path, *arguments: str, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Type `python -m kedro run <arguments>` in a folder.

    Args:
        folder: where.
        arguments: of `kedro run`.
        environment: variables beside those of the test.
    """
    return subprocess.run(
        [sys.executable, "-m", "kedro", "run", *arguments],
        cwd=folder,
        env=dict(os.environ) | dict(environment or {}),
        capture_output=True,
        text=True,
        check=False,
    )


def find_runs(project: Path) -> list[Run]:
    """Return the runs in the project's store, the latest first, without those of folds."""
    mlflow.set_tracking_uri(f"sqlite:///{project}/mlflow.db")
    runs = mlflow.search_runs(search_all_experiments=True, output_format="list")
    return [run for run in runs if "mlflow.parentRunId" not in run.data.tags]


def find_folds(project: Path, parent: Run) -> list[Run]:
    """Return the child runs of a run, in order of their folds."""
    mlflow.set_tracking_uri(f"sqlite:///{project}/mlflow.db")
    children = mlflow.search_runs(
        experiment_ids=[parent.info.experiment_id],
        filter_string=f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'",
        output_format="list",
    )
    return sorted(children, key=lambda run: run.info.run_name)
