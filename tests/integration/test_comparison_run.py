"""Several experiments in one run, their comparison, and the same on a machine set up otherwise."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import mlflow
import numpy as np
import pytest
from mlflow.entities import Run
from PIL import Image

from busi_pipeline.errors import BadInputError
from tests.factories import CLASSES
from tests.integration.projects import (
    create_project,
    find_runs,
    hide_machine,
    read_json,
    read_table,
    run_command,
    run_pipeline,
    select_default,
)

BOTH = ("vgg16", "resnet50")
# As if the published results were of these images, so that they are shown.
_IMAGES = {"published": {"images": dict.fromkeys(CLASSES, 12)}}
KNOWN = {"experiments": {"vgg16": _IMAGES, "resnet50": _IMAGES}}
TELEMETRY = ("CI", "DO_NOT_TRACK", "MLFLOW_DISABLE_TELEMETRY", "KEDRO_DISABLE_TELEMETRY")
NO_NETWORK = """
import socket, sys
def refuse(self, address, *rest):
    if self.family != socket.AF_UNIX:
        sys.stderr.write(f"CONNECTED TO {address}\\n")
    raise OSError("no network in this test")
socket.socket.connect = refuse
socket.socket.connect_ex = refuse
def look_up(host, *rest, **more):
    sys.stderr.write(f"LOOKED UP {host}\\n")
    raise socket.gaierror("no network in this test")
socket.getaddrinfo = look_up
"""
KERAS_JSON = (
    '{"backend": "jax", "image_data_format": "channels_first", "floatx": "float16", "epsilon": 0.1}'
)


class Compared(NamedTuple):
    """A project in which `__default__` ran with two experiments, and its run in MLflow."""

    project: Path
    run: Run


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory, eager: None) -> Iterator[Compared]:
    project = tmp_path_factory.mktemp("compared") / "project"
    with hide_machine():
        create_project(project, None, select_default(*BOTH), KNOWN)
        run_pipeline(project, "__default__")
        (run,) = find_runs(project)
        yield Compared(project, run)


@pytest.fixture(scope="module")
def elsewhere(
    compared: Compared, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """One of them trained by `kedro run`, without a network, with Keras set up otherwise."""
    folder = tmp_path_factory.mktemp("elsewhere")
    project = create_project(folder / "project", None, select_default(*BOTH), KNOWN)
    (folder / "sitecustomize.py").write_text(NO_NETWORK)
    (folder / "keras.json").write_text(KERAS_JSON)
    environment = {
        "PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]),
        "KERAS_HOME": str(folder),
        "KERAS_BACKEND": "jax",
        "TF_USE_LEGACY_KERAS": "1",
    }
    done = run_command(
        project,
        "--pipeline=train_vgg16",
        environment=environment,
        unset=(*TELEMETRY, "PYTEST_CURRENT_TEST"),
    )
    return project, done


def test_each_experiment_keeps_its_own_keys(compared: Compared) -> None:
    """TRAP: names out of a dataset factory lost their prefix."""
    run = compared.run
    assert run.info.run_name == "default on BUSI"
    assert run.data.tags["experiments"] == "resnet50,vgg16"
    for name in BOTH:
        metrics = read_json(compared.project / f"data/08_reporting/{name}/metrics.json")
        assert run.data.metrics[f"{name}.test.accuracy"] == metrics["test"]["accuracy"]
        assert f"{name}.head.loss" in run.data.metrics
        assert run.data.params[f"{name}.backbone"] == name
        assert run.data.tags[f"{name}.weights"] == "none"
    assert "test.accuracy" not in run.data.metrics
    assert "backbone" not in run.data.params


def test_each_model_is_logged_under_its_name(compared: Compared) -> None:
    logged = mlflow.search_logged_models(
        experiment_ids=[compared.run.info.experiment_id], output_format="list"
    )
    assert sorted(model.name for model in logged) == sorted(BOTH)


def test_comparison_has_the_metrics_of_each(compared: Compared) -> None:
    table = read_table(compared.project / "data/08_reporting/comparison.csv")
    ours = table[table["source"] == "this project"].set_index("experiment")
    assert set(ours.index) == set(BOTH)
    for name, row in ours.iterrows():
        test = read_json(compared.project / f"data/08_reporting/{name}/metrics.json")["test"]
        assert row["accuracy"] == pytest.approx(test["accuracy"])
        assert row["positive_found"] == test["positive"]["found"]
        assert row["positive_auc_ci_low"] == pytest.approx(test["positive"]["auc_ci_low"])


def test_published_results_stand_beside_them(compared: Compared) -> None:
    table = read_table(compared.project / "data/08_reporting/comparison.csv")
    published = table[table["source"] == "published"].set_index("model")
    assert published.loc["VGG16", "accuracy"] == 0.6496
    assert len(published) == 2


def test_experiments_are_compared_image_by_image(compared: Compared) -> None:
    folder = compared.project / "data/08_reporting"
    pairs = read_table(folder / "pairwise_comparisons.csv")
    assert set(zip(pairs["first"], pairs["second"], strict=True)) == {BOTH}
    for plot in ("comparison", "pairwise_comparisons"):
        with Image.open(folder / f"{plot}.png") as image:
            assert image.size[0] > 800, plot


def test_command_line_reports_to_nobody(
    elsewhere: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    """TRAP: `kedro run --pipeline=<name>` fails where names come out of find_pipelines()."""
    project, done = elsewhere
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-2000:]
    for unwanted in ("CONNECTED TO", "LOOKED UP", "autologging", "type hints", "Traceback"):
        assert unwanted not in said
    assert "project_id" not in (project / "pyproject.toml").read_text()
    assert find_runs(project)[0].info.run_name == "train_vgg16 on BUSI"


def test_log_is_a_line_for_each_event(
    elsewhere: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    """Kedro's bookkeeping alone was 222 lines; TensorFlow's greeting and its warnings 20."""
    lines = elsewhere[1].stdout.splitlines()
    unlike = [
        line for line in lines if not re.match(r"[\d-]{10} [\d:]{8} (INFO   |WARNING) ", line)
    ]
    assert not unlike
    assert len(lines) < 70
    assert re.search(r" done in [\d.]+ s: .*training \d", lines[-1] + lines[-2])
    assert "MLflow run train_vgg16 on BUSI, " in lines[0] + lines[1]
    assert elsewhere[1].stderr == ""


def test_settings_of_keras_elsewhere_change_nothing(
    compared: Compared, elsewhere: tuple[Path, subprocess.CompletedProcess[str]]
) -> None:
    predictions = [
        read_table(project / "data/07_model_output/vgg16/predictions.csv")
        for project in (compared.project, elsewhere[0])
    ]
    columns = [f"uncalibrated_{name}" for name in CLASSES]
    first, second = (table[columns].to_numpy() for table in predictions)
    np.testing.assert_allclose(second, first, atol=1e-3)


def test_comparison_before_any_run_says_so(compared: Compared, tmp_path: Path) -> None:
    project = create_project(tmp_path / "project")
    with pytest.raises(BadInputError, match="model_comparison has nothing to go by"):
        run_pipeline(project, "model_comparison")
