"""A project that was copied or moved finds the artifacts of its runs."""

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import mlflow
import pytest

from busi_pipeline.errors import BadInputError
from busi_pipeline.tracking.local_store import find_local_store, make_store, repair_locations
from tests.factories import close_mlflow
from tests.integration.projects import create_store


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a store, a run with an artifact, and a model of the run."""
    folder = tmp_path / "a project"
    store = create_store(folder)
    mlflow.set_tracking_uri(f"sqlite:///{store}")
    location = (folder / "mlartifacts").as_uri()
    client = mlflow.MlflowClient()
    run = client.create_run(client.create_experiment("busi", artifact_location=location))
    client.log_text(run.info.run_id, "0.8", "results/accuracy.txt")
    client.create_logged_model(run.info.experiment_id, name="m", source_run_id=run.info.run_id)
    close_mlflow()
    return folder


def read_artifact(folder: Path) -> tuple[str, str]:
    """Return the text of the run's artifact, and where the model's lie."""
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("busi")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    (model,) = client.search_logged_models([experiment.experiment_id])
    read = mlflow.artifacts.load_text(f"{run.info.artifact_uri}/results/accuracy.txt")
    close_mlflow()
    return read, model.artifact_location


def test_moved_project_shows_its_artifacts(project: Path, tmp_path: Path) -> None:
    moved = shutil.move(project, tmp_path / "moved")
    with pytest.raises(Exception, match="No such"):
        read_artifact(moved)
    repair = repair_locations(moved / "mlflow.db", moved / "mlartifacts")
    assert repair == ([str(project / "mlartifacts")], 1, False)
    text, model = read_artifact(moved)
    assert text == "0.8"
    assert model.startswith((moved / "mlartifacts").as_uri())


def test_copy_leaves_the_original_alone(project: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(project, tmp_path / "copy")
    (copied / "mlartifacts").joinpath("mark").touch()
    repair_locations(copied / "mlflow.db", copied / "mlartifacts")
    assert read_artifact(copied)[1].startswith((copied / "mlartifacts").as_uri())
    assert read_artifact(project)[1].startswith((project / "mlartifacts").as_uri())


def test_store_at_its_place_is_not_changed(project: Path) -> None:
    before = (project / "mlflow.db").read_bytes()
    repair = repair_locations(project / "mlflow.db", project / "mlartifacts")
    assert repair == ([], 0, False)
    assert (project / "mlflow.db").read_bytes() == before


def test_store_seen_under_a_second_path_is_not_changed(project: Path, tmp_path: Path) -> None:
    """As where a container mounts it elsewhere: the first path is still right for others."""
    kept = shutil.move(project, tmp_path / "kept")
    project.symlink_to(kept)
    assert repair_locations(kept / "mlflow.db", kept / "mlartifacts") == ([], 0, False)
    assert read_artifact(project)[0] == "0.8"


def test_copied_store_without_artifacts_is_noticed(project: Path, tmp_path: Path) -> None:
    lone = tmp_path / "lone"
    lone.mkdir()
    shutil.copy(project / "mlflow.db", lone)
    assert repair_locations(lone / "mlflow.db", lone / "mlartifacts").is_missing


def test_other_locations_are_left(tmp_path: Path) -> None:
    store = create_store(tmp_path / "p")
    mlflow.set_tracking_uri(f"sqlite:///{store}")
    client = mlflow.MlflowClient()
    for name, place in (("bucket", "s3://b/mlartifacts"), ("disk", "file:///mnt/runs")):
        client.create_experiment(name, artifact_location=place)
    close_mlflow()
    assert repair_locations(store, tmp_path / "p/mlartifacts") == ([], 0, False)


def test_damaged_store_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("no database, but longer than a header of one" * 40)
    with pytest.raises(BadInputError, match=r"mlflow\.db cannot be used: .*not a database"):
        repair_locations(tmp_path / "mlflow.db", tmp_path / "mlartifacts")


def test_server_has_no_file() -> None:
    assert find_local_store("http://127.0.0.1:5000") is None
    assert find_local_store("postgresql://u@h/db") is None
    assert find_local_store("sqlite:////data/mlflow.db") == Path("/data/mlflow.db")


HALF = {
    "no experiments": "delete from experiments",
    "no table of them": "drop table experiments",
}


@pytest.mark.parametrize("half", HALF)
def test_a_half_made_store_is_named(tmp_path: Path, half: str) -> None:
    """As MLflow leaves it where its start is interrupted: every later run would die of it."""
    store = create_store(tmp_path)
    with closing(sqlite3.connect(store)) as connection, connection:
        connection.execute(HALF[half])
    with pytest.raises(BadInputError, match=r"mlflow.db is half made.* delete it"):
        make_store(store)


def test_a_file_that_is_no_store_is_named(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"something else" * 1000)
    with pytest.raises(BadInputError, match=r"mlflow\.db cannot be used: file is not a database"):
        make_store(tmp_path / "mlflow.db")


def test_an_empty_file_becomes_a_store(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").touch()
    make_store(tmp_path / "mlflow.db")
    assert mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db").search_experiments()


def test_what_an_interrupted_start_left_is_removed(tmp_path: Path) -> None:
    left = tmp_path / "mlflow.db.0123.unfinished"
    left.write_bytes(b"half")
    make_store(tmp_path / "mlflow.db")
    assert not left.exists()


def test_a_store_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    store = create_store(tmp_path)
    before = store.read_bytes()
    make_store(store)
    assert store.read_bytes() == before


def test_two_first_starts_make_one_store(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib, busi_pipeline.tracking.local_store as s; "
        "s.make_store(pathlib.Path(sys.argv[1]))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "mlflow.db")]
    started = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait() for process in started] == [0, 0]
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    assert [found.name for found in client.search_experiments()] == ["Default"]
