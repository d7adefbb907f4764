"""A run is kept whatever the MLflow server does, and delivered once when it can be."""

import errno
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from busi_pipeline.errors import BadInputError
from busi_pipeline.session import RequestCheck
from busi_pipeline.tracking import outbox as outboxes
from tests.integration.mlflow_servers import Server
from tests.integration.projects import RAW, create_project, hide_machine, run_pipeline

NAME = "busi_pipeline"
# Longer than this, and a run waits for a server: MLflow alone waits for 259 and more.
SECONDS = 60


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("server") / "store")
    yield made
    made.kill()


@pytest.fixture
def project(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A small project with the server in its environment; the server runs."""
    with hide_machine():
        create_project(tmp_path / "project")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address)
        server.kill()
        server.start()
        yield tmp_path / "project"


def list_runs(server: Server) -> list[Run]:
    client = MlflowClient(server.address)
    experiment = client.get_experiment_by_name(NAME)
    return list(client.search_runs([experiment.experiment_id])) if experiment else []


def list_parcels(project: Path) -> list[Path]:
    return [path.parent for path in (project / outboxes.FOLDER).glob("*/address.json")]


def split(project: Path, seed: int) -> str:
    """Run a quick pipeline within the time; return what marks the run."""
    begun = time.monotonic()
    run_pipeline(project, "splitting", {"split": {"seed": seed}})
    assert time.monotonic() - begun < SECONDS, "it waited for the server"
    return str(seed)


def check_there_once(server: Server, before: int, *seeds: str) -> None:
    runs = list_runs(server)
    assert len(runs) == before + len(seeds)
    own = [run for run in runs if run.data.params.get("split.seed") in seeds]
    assert sorted(run.data.params["split.seed"] for run in own) == sorted(seeds)
    for run in own:
        assert run.info.status == "FINISHED"
        assert run.data.metrics["run_seconds"] > 0
        artifacts = MlflowClient(server.address).list_artifacts(run.info.run_id)
        assert artifacts


def test_a_password_in_the_address_is_refused_and_not_repeated(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://sam:hush-hush@mlflow.example:5000")
    with pytest.raises(BadInputError, match="MLFLOW_TRACKING_PASSWORD") as refused:
        run_pipeline(project, "splitting")
    assert "hush-hush" not in str(refused.value)
    assert "hush-hush" not in "".join(capsys.readouterr())
    assert not (project / outboxes.FOLDER).exists()
    files = [path for path in project.rglob("*") if path.is_file()]
    assert not [path for path in files if b"hush-hush" in path.read_bytes()]


def test_a_delivery_that_fails_is_a_line_and_no_failed_run(
    project: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(check: RequestCheck) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "mlflow.db")

    monkeypatch.setattr(RequestCheck, "_deliver", fail)
    split(project, 10)
    (said,) = [r.message for r in caplog.records if "could not be sent" in r.message]
    assert "no room left on the disk of mlflow.db" in said
    assert len(list_parcels(project)) == 1


def test_a_server_has_the_run_when_it_ends(project: Path, server: Server) -> None:
    before = len(list_runs(server))
    check_there_once(server, before, split(project, 11))
    assert list_parcels(project) == []
    assert mlflow.get_tracking_uri() == server.address


def test_a_server_that_is_away_gets_the_runs_later(
    project: Path, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    before = len(list_runs(server))
    server.kill()
    with caplog.at_level(logging.WARNING):
        seeds = [split(project, 21), split(project, 22)]
    said = [record.message for record in caplog.records if server.address in record.message]
    assert len(said) == 4, "as each run begins and ends"
    assert "cannot be reached (Connection refused): the run is kept in mlflow_outbox" in said[0]
    assert "2 runs wait in" in said[-1]
    assert all("\n" not in line for line in said)
    assert len(list_parcels(project)) == 2
    with pytest.raises(BadInputError, match="cannot be reached"):
        run_pipeline(project, "sync_mlflow")
    server.start()
    run_pipeline(project, "sync_mlflow")
    check_there_once(server, before, *seeds)
    assert list_parcels(project) == []
    run_pipeline(project, "sync_mlflow")
    check_there_once(server, before, *seeds)


def test_a_server_that_hangs_keeps_nobody_waiting(project: Path, server: Server) -> None:
    before = len(list_runs(server))
    server.freeze()
    try:
        kept = split(project, 31)
    finally:
        server.thaw()
    assert len(list_parcels(project)) == 1
    check_there_once(server, before, kept, split(project, 32))


def test_a_server_killed_as_a_run_arrives_has_it_once(
    project: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = len(list_runs(server))

    class Killing(MlflowClient):  # type: ignore[misc]
        def log_artifacts(self, *args: object, **kwargs: object) -> None:
            server.kill()
            super().log_artifacts(*args, **kwargs)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(outboxes, "MlflowClient", Killing)
        kept = split(project, 41)
    assert len(list_parcels(project)) == 1
    server.start()
    assert len(list_runs(server)) == before + 1, "a part of it is there"
    run_pipeline(project, "sync_mlflow")
    check_there_once(server, before, kept)


def test_no_patient_goes_to_a_server_elsewhere(project: Path, server: Server) -> None:
    """A name in a file's name is nowhere on the server, nor a picture of her, nor who ran it."""
    images = project / RAW / "malignant"
    shutil.move(images / "malignant (1).png", images / "MUSTERMANN Erika.png")
    shutil.move(images / "malignant (1)_mask.png", images / "MUSTERMANN Erika_mask.png")
    (images / "notes on MUSTERMANN.docx").write_text("x")
    settings = {"privacy": {"to_server": "without_patients"}, "evaluation": {"n_resamples": 60}}
    run_pipeline(project, "train_inceptionv3", settings)
    (run,) = [own for own in list_runs(server) if own.info.run_name.startswith("train_")]
    withheld = run.data.tags["withheld"]
    assert "results/gradcam_gallery.png" in withheld
    assert "results/roc_pr_curves.png" not in withheld
    assert "mlflow.user" not in run.data.tags
    there = [path for path in server.folder.rglob("*") if path.is_file()]
    assert any(path.name == "manifest.csv" for path in there)
    assert any(path.name == "model.keras" for path in there), "the model is there"
    for path in there:
        content = path.read_bytes()
        for name in (b"MUSTERMANN", str(project).encode(), str(Path.home()).encode() + b"/"):
            assert name not in content, path
    here = pd.read_csv(project / "data/03_primary/split_manifest.csv")
    sent = pd.read_csv(next(path for path in there if path.name == "split_manifest.csv"))
    assert sent["label"].tolist() == here["label"].tolist()
    assert sent["image_id"].nunique() == len(here)


def test_a_killed_run_arrives_as_killed(project: Path, server: Server) -> None:
    before = len(list_runs(server))
    command = [sys.executable, "-m", "kedro", "run", "--pipeline=deduplication"]
    with subprocess.Popen(command, cwd=project, stderr=subprocess.DEVNULL) as process:
        while not list(project.glob("data/02_intermediate/manifest.csv")):
            assert process.poll() is None
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
    assert len(list_runs(server)) == before
    split(project, 51)
    ended = sorted(run.info.status for run in list_runs(server)[: len(list_runs(server)) - before])
    assert ended == ["FINISHED", "KILLED"]
    assert list_parcels(project) == []
