"""A whole small project: from a folder of images to logged runs and their comparison."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import keras
import mlflow
import nbformat
import numpy as np
import pandas as pd
import pytest
from kedro.io import DatasetError
from nbclient import NotebookClient
from PIL import Image

from busi_pipeline.errors import BadInputError
from tests.conftest import CLASSES, PROJECT, run_project, write_tiny_environment

PLOTS = [
    "augmentation_plot",
    "calibration",
    "confusion_matrix",
    "decisions",
    "learning_curves",
    "roc_pr_curves_plot",
    "misclassified_plot",
]


def only_run(project: Path) -> mlflow.entities.Run:
    mlflow.set_tracking_uri(f"sqlite:///{project}/mlflow.db")
    (run,) = mlflow.search_runs(search_all_experiments=True, output_format="list")
    return run


def kedro_run(
    folder: Path, pipeline: str, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Type `kedro run --pipeline=<pipeline>` in a folder; it must succeed."""
    done = subprocess.run(
        [sys.executable, "-m", "kedro", "run", f"--pipeline={pipeline}"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done


def test_from_images_to_a_logged_model(make_project: Callable[..., Path]) -> None:
    project = make_project()
    write_tiny_environment(project)
    (project / "data/01_raw/Dataset_BUSI_with_GT/normal/broken.png").write_bytes(b"")
    run_project(project, "train_inceptionv3")

    reporting = project / "data/08_reporting/inceptionv3"
    for plot in PLOTS:
        with Image.open(reporting / f"{plot}.png") as image:
            assert min(image.size) > 300, plot
    quarantine = pd.read_csv(project / "data/02_intermediate/quarantine.csv")
    assert list(quarantine["reason"]) == ["zero bytes"]
    split = pd.read_csv(project / "data/03_primary/split_manifest.csv")
    predictions = pd.read_csv(project / "data/07_model_output/inceptionv3/predictions.csv")
    evaluated = split[split["split"] != "train"]
    assert list(predictions["image_id"]) == list(evaluated["image_id"])
    np.testing.assert_allclose(predictions[[f"p_{c}" for c in CLASSES]].sum(axis=1), 1, atol=1e-4)

    model = keras.saving.load_model(project / "data/06_models/inceptionv3.keras", compile=False)
    first = evaluated.iloc[0]
    with Image.open(project / "data/01_raw/Dataset_BUSI_with_GT" / first["path"]) as raw:
        pixels = np.asarray(raw.convert("RGB").resize((75, 75), Image.Resampling.BILINEAR))
    again = model.predict(pixels[None], verbose=0)[0]
    calibrated = predictions.loc[0, [f"p_{c}" for c in CLASSES]].to_numpy(float)
    np.testing.assert_allclose(again, calibrated, atol=1e-4)

    run = only_run(project)
    metrics = json.loads((reporting / "metrics.json").read_text())
    assert run.info.run_name == "train_inceptionv3"
    assert run.info.status == "FINISHED"
    assert mlflow.active_run() is None, "what is left open is killed when the process ends"
    assert run.data.params["backbone"] == "inception_v3"
    assert run.data.params["training.fine_tuning.optimizer.name"] == "rmsprop"
    assert run.data.metrics["test.accuracy"] == metrics["test"]["accuracy"]
    for share in ("accuracy", "malignant.auc", "decision.sensitivity"):
        low, high = (run.data.metrics[f"test.{share}_ci_{end}"] for end in ("low", "high"))
        assert low <= run.data.metrics[f"test.{share}"] <= high, share
    decision = json.loads((project / "data/06_models/inceptionv3/decision.json").read_text())
    assert run.data.metrics["decision.threshold"] == decision["decision"]["threshold"]
    assert run.data.metrics["copies.groups"] == 36
    assert run.data.metrics["images.benign"] == 12
    assert run.data.metrics["training_seconds"] > 0
    client = mlflow.MlflowClient()
    assert len(client.get_metric_history(run.info.run_id, "fine_tuning.val_loss")) == 2
    for tag in ("data_sha256", "split_sha256", "weights", "weights_sha256", "git_commit", "device"):
        assert run.data.tags[tag], tag
    artifacts = {a.path for a in client.list_artifacts(run.info.run_id, "inceptionv3")}
    assert {f"inceptionv3/{plot}.png" for plot in PLOTS} <= artifacts
    assert "inceptionv3/predictions.csv" in artifacts
    (logged,) = mlflow.search_logged_models(
        experiment_ids=[run.info.experiment_id], output_format="list"
    )
    assert logged.name == "inceptionv3"
    assert logged.source_run_id == run.info.run_id
    served = mlflow.models.get_model_info(logged.model_uri)
    assert served.metadata == {"classes": CLASSES} | decision["decision"]

    assert_notebook_shows(project, f"({metrics['test']['correct']} of {metrics['test']['images']})")


def assert_notebook_shows(project: Path, result: str) -> None:
    shutil.copytree(PROJECT / "notebooks", project / "notebooks")
    notebook = nbformat.read(project / "notebooks/explore_runs.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "kept without outputs"
    NotebookClient(notebook, resources={"metadata": {"path": project / "notebooks"}}).execute()
    shown = str([cell.get("outputs") for cell in notebook.cells])
    assert result in shown
    assert "train_inceptionv3" in shown
    assert shown.count("image/png") == 3


def test_several_experiments_and_their_comparison(make_project: Callable[..., Path]) -> None:
    """TRAP: names out of a dataset factory lost their prefix; here each keeps its own."""
    project = make_project()
    write_tiny_environment(project, "  inceptionv3_adamw: {in_default: false}\n")
    (project / "conf/local/parameters_tiny_rows.yml").write_text(
        (project / "conf/local/parameters_tiny_rows.yml")
        .read_text()
        .replace("  inceptionv3: {", "  inceptionv3: {in_default: false, ")
        .replace("  inceptionv3_adamw: {image", "  inceptionv3_adamw: {in_default: false, image")
        .replace("  inceptionv3_adamw: {in_default: false}\n", "")
    )
    run_project(project, "__default__")
    run = only_run(project)
    assert run.info.run_name == "__default__"
    assert run.data.tags["experiments"] == "resnet50,vgg16"
    keys = set(run.data.metrics)
    assert {"resnet50.test.accuracy", "vgg16.test.accuracy", "resnet50.head.loss"} <= keys
    assert "test.accuracy" not in keys
    assert run.data.params["vgg16.backbone"] == "vgg16"
    table = pd.read_csv(project / "data/08_reporting/comparison.csv")
    ours = table[table["source"] == "this project"]
    assert set(ours["experiment"]) == {"vgg16", "resnet50"}
    published = table[table["source"] == "published"].set_index("model")
    assert published.loc["VGG16", "accuracy"] == 0.6496
    for _, row in ours.iterrows():
        own = json.loads(
            (project / f"data/08_reporting/{row['experiment']}/metrics.json").read_text()
        )
        assert row["accuracy"] == pytest.approx(own["test"]["accuracy"])
        assert row["malignant_found"] == own["test"]["malignant"]["found"]
    with Image.open(project / "data/08_reporting/comparison.png") as image:
        assert image.size[0] > 800


def test_failed_run_is_marked_failed(make_project: Callable[..., Path]) -> None:
    project = make_project()
    write_tiny_environment(project)
    shutil.rmtree(project / "data/01_raw/Dataset_BUSI_with_GT/malignant")
    with pytest.raises(BadInputError, match="too few images of class malignant"):
        run_project(project, "train_inceptionv3")
    run = only_run(project)
    assert run.info.status == "FAILED"
    assert run.data.params["backbone"] == "inception_v3", "what failed must be known"


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_is_not_called_finished(
    make_project: Callable[..., Path], how: signal.Signals
) -> None:
    project = make_project()
    write_tiny_environment(project)
    endless = "training.fine_tuning.epochs=9999,training.fine_tuning.patience=9999"
    with subprocess.Popen(
        [sys.executable, "-m", "kedro", "run", "--pipeline=train_resnet50", "--params", endless],
        cwd=project,
        stderr=subprocess.DEVNULL,
    ) as process:
        manifest = project / "data/02_intermediate/manifest.csv"
        deadline = time.monotonic() + 300
        while not manifest.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        while process.poll() is None and time.monotonic() < deadline:
            # An interrupt that falls into the import of a C library can be lost: press again.
            process.send_signal(how)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=20)
    assert manifest.exists()
    assert process.returncode != 0
    assert only_run(project).info.status == "KILLED"


def test_store_is_the_same_from_any_folder(make_project: Callable[..., Path]) -> None:
    project = make_project()
    for folder in (project, project / "conf"):
        kedro_run(folder, "ingestion")
    assert [p.relative_to(project) for p in project.rglob("mlflow.db")] == [Path("mlflow.db")]
    mlflow.set_tracking_uri(f"sqlite:///{project}/mlflow.db")
    runs = mlflow.search_runs(search_all_experiments=True, output_format="list")
    assert [run.info.status for run in runs] == ["FINISHED"] * 2, "also when the process has ended"


def test_raw_folder_and_server_come_from_the_environment(
    make_project: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = make_project()
    moved = tmp_path / "elsewhere"
    shutil.move(project / "data/01_raw/Dataset_BUSI_with_GT", moved)
    monkeypatch.setenv("BUSI_RAW_DIR", str(moved))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/server.db")
    run_project(project, "ingestion")
    assert (tmp_path / "server.db").is_file()
    assert not (project / "mlflow.db").exists()


def test_stage_without_its_input_names_the_stage_to_run(
    make_project: Callable[..., Path],
) -> None:
    project = make_project()
    with pytest.raises(BadInputError, match="image_groups is not there yet: run `kedro run --pipe"):
        run_project(project, "split")


def test_comparison_before_any_run_says_so(make_project: Callable[..., Path]) -> None:
    project = make_project()
    with pytest.raises(BadInputError, match="nothing to compare"):
        run_project(project, "comparison")


def test_missing_weights_stop_the_run(make_project: Callable[..., Path]) -> None:
    project = make_project()
    write_tiny_environment(project)
    with pytest.raises((BadInputError, DatasetError), match="BUSI_WEIGHTS_DIR is not set"):
        run_project(project, "train_vgg16", training={"weights": "directory"})
    assert not (project / "data/06_models/vgg16.keras").exists()


NO_NETWORK = """
import socket, sys
def refuse(self, address, *rest):
    if self.family != socket.AF_UNIX:
        sys.stderr.write(f"CONNECTED TO {address}\\n")
    raise OSError("no network in this test")
socket.socket.connect = refuse
socket.socket.connect_ex = refuse
_look_up = socket.getaddrinfo
def look_up(host, *rest, **more):
    sys.stderr.write(f"LOOKED UP {host}\\n")
    raise socket.gaierror("no network in this test")
socket.getaddrinfo = look_up
"""


def test_command_line_runs_and_tells_nobody(
    make_project: Callable[..., Path], tmp_path: Path
) -> None:
    """TRAP: `kedro run --pipeline=<name>` fails where names come out of find_pipelines()."""
    project = make_project()
    write_tiny_environment(project)
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(NO_NETWORK)
    telemetry = ("CI", "DO_NOT_TRACK", "MLFLOW_DISABLE_TELEMETRY", "KEDRO_DISABLE_TELEMETRY")
    telemetry += ("PYTEST_CURRENT_TEST",)
    environment = {k: v for k, v in os.environ.items() if k not in telemetry}
    environment["PYTHONPATH"] = f"{site}{os.pathsep}{environment.get('PYTHONPATH', '')}"
    done = kedro_run(project, "train_resnet50", environment)
    assert "CONNECTED TO" not in done.stderr
    assert "LOOKED UP" not in done.stderr
    told = done.stdout + done.stderr
    assert "autologging" not in told
    assert "type hints" not in told
    assert (project / "data/08_reporting/resnet50/metrics.json").is_file()
    assert "project_id" not in (project / "pyproject.toml").read_text()
    assert only_run(project).info.run_name == "train_resnet50"
