"""Parcels: one that cannot be sent keeps no other, and a moved project loses none."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from busi_pipeline.errors import BadInputError
from busi_pipeline.tracking import outbox as module
from busi_pipeline.tracking.local_store import make_store
from busi_pipeline.tracking.outbox import Outbox
from tests.factories import close_mlflow

SERVER = "http://127.0.0.1:1"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MlflowClient]:
    """A store in the place of a server that answers."""
    make_store(tmp_path / "server/mlflow.db")
    uri = f"sqlite:///{tmp_path}/server/mlflow.db"
    MlflowClient(uri).create_experiment("busi", (tmp_path / "server/files").as_uri())
    monkeypatch.setattr(module, "find_problem", lambda _: "")
    monkeypatch.setattr(
        module, "MlflowClient", lambda own: MlflowClient(uri if own == SERVER else own)
    )
    yield MlflowClient(uri)
    close_mlflow()


def fill(outbox: Outbox) -> Path:
    """Put a run with a file into the outbox, and return the folder of its parcel."""
    parcel = outbox.open(SERVER)
    client = MlflowClient(parcel.tracking_uri)
    run = client.create_run(client.create_experiment("busi", parcel.artifact_location))
    client.log_text(run.info.run_id, "0.8", "accuracy.txt")
    client.set_terminated(run.info.run_id)
    parcel.release()
    return parcel.folder


def list_files(server: MlflowClient) -> list[list[str]]:
    runs = server.search_runs([own.experiment_id for own in server.search_experiments()])
    return [[file.path for file in server.list_artifacts(run.info.run_id)] for run in runs]


def test_a_moved_project_loses_nothing(server: MlflowClient, tmp_path: Path) -> None:
    fill(Outbox(tmp_path / "project/mlflow_outbox"))
    shutil.move(tmp_path / "project", tmp_path / "moved")
    assert len(Outbox(tmp_path / "moved/mlflow_outbox").deliver(SERVER)) == 1
    assert list_files(server) == [["accuracy.txt"]]
    assert list((tmp_path / "moved/mlflow_outbox").glob("*/address.json")) == []


@pytest.mark.parametrize("damage", ["address", "store"])
def test_a_damaged_parcel_keeps_no_other(
    server: MlflowClient, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    outbox = Outbox(tmp_path / "mlflow_outbox")
    folder = fill(outbox)
    fill(outbox)
    if damage == "address":
        (folder / "address.json").write_text("{")
    else:
        (folder / "mlflow.db").write_bytes(b"no database" * 1000)
    assert len(outbox.deliver(SERVER)) == 1
    assert list_files(server) == [["accuracy.txt"]]
    assert f"the run in {folder} could not be delivered" in caplog.text
    assert folder.is_dir()


def test_a_server_that_is_away_is_one_line(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "mlflow_outbox")
    fill(outbox)
    with pytest.raises(BadInputError, match=r"cannot be reached .*: 1 runs wait"):
        outbox.deliver(SERVER)
    close_mlflow()


def test_a_parcel_in_use_is_left_alone(server: MlflowClient, tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "mlflow_outbox")
    parcel = outbox.open(SERVER)
    outbox.clean()
    assert outbox.deliver(SERVER) == []
    assert json.loads((parcel.folder / "address.json").read_text())["server"] == SERVER
    parcel.release()


def test_a_run_for_another_server_waits(
    server: MlflowClient, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outbox = Outbox(tmp_path / "mlflow_outbox")
    fill(outbox)
    assert outbox.deliver("http://127.0.0.1:2") == []
    assert f"for {SERVER}, another server" in caplog.text
    assert len(outbox.deliver(f"{SERVER}/")) == 1, "the same address, written otherwise"
