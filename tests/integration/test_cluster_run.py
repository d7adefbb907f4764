"""`--env=cluster`: data and artifacts on S3, runs in PostgreSQL; results as on one machine."""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import mlflow
import pytest
import s3fs
from mlflow.entities import Run

from tests.integration.projects import (
    RAW,
    create_project,
    find_runs,
    hide_machine,
    run_command,
    run_pipeline,
    select_default,
)
from tests.integration.stores import (
    BUCKET,
    needs_postgresql,
    open_s3,
    serve_postgresql,
    serve_s3,
)
from tests.soak import read_results
from tests.worker_kills import RUNNER

TRAIN = "train_vgg16"
DASK = "dask.workers=2,dask.memory=4,dask.dashboard=null"


class Cluster(NamedTuple):
    """A project whose raw images are in the storage, and the variables of its machine."""

    project: Path
    variables: dict[str, str]
    storage: s3fs.S3FileSystem

    def run(self, *arguments: str) -> str:
        """Type `kedro run --env=cluster`; it has to succeed. Return what it printed."""
        done = run_command(self.project, "--env=cluster", *arguments, environment=self.variables)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Traceback" not in done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    project = create_project(folder / "project", None, select_default("vgg16"))
    tiny = project / "conf/local/parameters.yml"
    tiny.rename(project / "conf/cluster/parameters_tiny.yml")
    with serve_s3(folder) as s3, serve_postgresql(folder) as database:
        storage = open_s3(s3)
        storage.put(str(project / RAW), f"{BUCKET}/raw", recursive=True)
        shutil.rmtree(project / "data")
        with hide_machine():
            yield Cluster(project, s3 | database, storage)


@needs_postgresql
def test_a_run_on_s3_and_postgresql_is_as_on_one_machine(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in cluster.variables.items():
        monkeypatch.setenv(name, value)
    cluster.run(f"--pipeline={TRAIN}", RUNNER, "--params", DASK)
    assert not (cluster.project / "data").exists(), "nothing lies on this machine"
    client = mlflow.MlflowClient(cluster.variables["MLFLOW_TRACKING_URI"])
    (run,) = find_runs_in(client)
    paths = {own.path for own in client.list_artifacts(run.info.run_id, "results")}
    assert {"results/roc_pr_curves.png", "results/metrics.json"} <= paths
    assert run.info.artifact_uri == f"s3://{BUCKET}/mlartifacts/{run.info.run_id}/artifacts"
    printed = cluster.run(f"--pipeline={TRAIN}")
    assert "features: 108 rows, 0 computed, 108 from the cache" in printed
    assert "nothing changed since it was trained; taken from the cache" in printed

    cluster.storage.get(f"{BUCKET}/data", str(tmp_path / "cluster/data"), recursive=True)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    project = create_project(tmp_path / "one", None, select_default("vgg16"))
    run_pipeline(project, TRAIN)
    results = read_results(project)
    assert len(results) >= 4
    assert read_results(tmp_path / "cluster") == results
    (own,) = find_runs(project)
    assert leave_out_times(run.data.metrics) == leave_out_times(own.data.metrics)
    assert run.data.params.keys() == own.data.params.keys()


def find_runs_in(client: mlflow.MlflowClient) -> list[Run]:
    return client.search_runs([own.experiment_id for own in client.search_experiments()])


def leave_out_times(metrics: Mapping[str, float]) -> dict[str, float]:
    return {
        name: value
        for name, value in metrics.items()
        if "seconds" not in name and "_ms" not in name and "computed" not in name
    }


@needs_postgresql
def test_a_model_on_s3_predicts_images_on_s3(cluster: Cluster) -> None:
    """The first run packs it; the second one of the predictions asks about nothing again."""
    cluster.run(f"--pipeline={TRAIN}")
    cluster.run("--pipeline=package_vgg16")
    asked = f"prediction.model=vgg16,prediction.folder=s3://{BUCKET}/raw/benign"
    printed = [cluster.run("--pipeline=predict", "--params", asked) for _ in range(2)]
    for said, kept in zip(printed, (0, 12), strict=True):  # the masks are no scans
        assert "24 images" in said
        assert f"{kept} answers taken from an earlier run" in said
    found = cluster.storage.find(f"{BUCKET}/data/07_model_output/predictions")
    (table,) = (own for own in found if own.endswith("findings.csv"))
    assert len(cluster.storage.cat_file(table).decode().splitlines()) == 25
    assert not (cluster.project / "data").exists()


def test_a_database_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    project = create_project(tmp_path / "project", None, select_default("vgg16"))
    there = {"MLFLOW_TRACKING_URI": "postgresql://mlflow@127.0.0.1:9/mlflow"}
    done = run_command(project, f"--pipeline={TRAIN}", environment=there)
    said = done.stdout + done.stderr
    assert done.returncode == 1
    assert "Traceback" not in said
    assert "the database postgresql://127.0.0.1:9/mlflow for MLflow cannot be used" in said
    assert "refused" in said


def test_a_database_elsewhere_gets_pictures_only_if_it_may(tmp_path: Path) -> None:
    """Its password is not shown."""
    project = create_project(tmp_path / "project", None, select_default("vgg16"))
    there = {"MLFLOW_TRACKING_URI": "postgresql://mlflow:secret@database.hospital/mlflow"}
    at = ("--params", "dask.address=tcp://127.0.0.1:9")
    for options, said in (
        ((), "a run logs to postgresql://database.hospital/mlflow directly, and privacy"),
        ((RUNNER, *at), "database postgresql://database.hospital/mlflow has a password in it"),
    ):
        done = run_command(project, f"--pipeline={TRAIN}", *options, environment=there)
        assert done.returncode == 1
        assert said in done.stdout + done.stderr
        assert "secret" not in done.stdout + done.stderr
