"""A run arrives at another store whole and once, wherever the sending is interrupted."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import mlflow
import pytest
from mlflow.entities import Dataset, DatasetInput, Metric, Run
from mlflow.tracking import MlflowClient

from busi_pipeline.tracking.delivery import SOURCE_TAG, deliver_runs
from busi_pipeline.tracking.local_store import make_store
from tests.factories import close_mlflow

NAME = "busi"


class Answering(mlflow.pyfunc.PythonModel):  # type: ignore[misc, name-defined]
    """A model."""

    def predict(self, context: Any, model_input: list[str], params: Any = None) -> list[str]:
        return model_input


def make_client(folder: Path, mlflow_database: Path) -> MlflowClient:
    folder.mkdir()
    shutil.copy(mlflow_database, folder / "mlflow.db")
    return MlflowClient(f"sqlite:///{folder}/mlflow.db")


@pytest.fixture
def source(tmp_path: Path, mlflow_database: Path) -> Iterator[MlflowClient]:
    """A store with a run, its child, and its model."""
    client = make_client(tmp_path / "here", mlflow_database)
    location = (tmp_path / "here/artifacts").as_uri()
    experiment = client.create_experiment(NAME, location, tags={"purpose": "a test"})
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/here/mlflow.db")
    with mlflow.start_run(experiment_id=experiment, run_name="train on BUSI") as run:
        mlflow.log_params({f"setting.{number}": "v" * number for number in range(1, 130)})
        for epoch, loss in enumerate((0.9, 0.5, 0.4), 1):
            mlflow.log_metric("history.loss", loss, step=epoch)
        mlflow.log_text("0.8", "results/accuracy.txt")
        mlflow.log_text("a table", "table.csv")
        data = Dataset("BUSI", "digest", "code", json.dumps({}))
        client.log_inputs(run.info.run_id, [DatasetInput(data)])
        logged = mlflow.pyfunc.log_model(
            name="resnet50", python_model=Answering(), pip_requirements=[]
        )
        point = Metric("test.auc", 0.9, 1, 0, logged.model_id, run_id=run.info.run_id)
        client.log_batch(run.info.run_id, metrics=[point])
        client.set_logged_model_tags(logged.model_id, {"threshold": "0.3"})
        tags = {"mlflow.parentRunId": run.info.run_id, "mlflow.runName": "fold 1"}
        child = client.create_run(experiment, tags=tags).info.run_id
        client.log_metric(child, "test.auc", 0.7)
        client.set_terminated(child)
    yield client
    close_mlflow()


@pytest.fixture
def target(tmp_path: Path, mlflow_database: Path) -> MlflowClient:
    """A store with the experiment, as a server would have it."""
    client = make_client(tmp_path / "there", mlflow_database)
    client.create_experiment(NAME, (tmp_path / "there/artifacts").as_uri())
    return client


def list_runs(client: MlflowClient) -> list[Run]:
    experiment = client.get_experiment_by_name(NAME)
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id]))


def check_whole(source: MlflowClient, target: MlflowClient) -> None:
    """Fail unless each run is there once, with all it had."""
    before, after = ({r.info.run_name: r for r in list_runs(c)} for c in (source, target))
    assert len(list_runs(target)) == len(before) == len(after) == 2
    for name, old in before.items():
        new = after[name]
        assert new.data.params == old.data.params
        assert new.data.metrics == old.data.metrics
        assert new.data.tags[SOURCE_TAG] == old.info.run_id
        assert (new.info.status, new.info.start_time) == ("FINISHED", old.info.start_time)
        assert new.info.end_time == old.info.end_time
    new = after["train on BUSI"]
    parent = after["fold 1"].data.tags["mlflow.parentRunId"]
    assert parent == new.info.run_id
    curve = target.get_metric_history(new.info.run_id, "history.loss")
    assert [(point.step, point.value) for point in curve] == [(1, 0.9), (2, 0.5), (3, 0.4)]
    (data,) = new.inputs.dataset_inputs
    assert (data.dataset.name, data.dataset.digest) == ("BUSI", "digest")
    read = mlflow.artifacts.load_text(f"{new.info.artifact_uri}/results/accuracy.txt")
    assert read == "0.8"
    (model,) = target.search_logged_models([new.info.experiment_id])
    assert (model.name, model.source_run_id) == ("resnet50", new.info.run_id)
    assert str(model.status) == "READY"
    assert model.tags["threshold"] == "0.3"
    assert [(point.key, point.value) for point in model.metrics] == [("test.auc", 0.9)]
    place = Path(url2pathname(urlsplit(model.artifact_location).path))
    loaded = mlflow.models.Model.load(str(place))
    assert (loaded.model_id, loaded.run_id) == (model.model_id, new.info.run_id)
    (output,) = new.outputs.model_outputs
    assert output.model_id == model.model_id


def test_a_run_arrives_whole(source: MlflowClient, target: MlflowClient) -> None:
    sent = deliver_runs(source, target)
    assert set(sent) == {run.info.run_id for run in list_runs(source)}
    check_whole(source, target)


def test_an_experiment_is_made_where_there_is_none(
    source: MlflowClient, tmp_path: Path, mlflow_database: Path
) -> None:
    target = make_client(tmp_path / "new", mlflow_database)
    deliver_runs(source, target)
    experiment = target.get_experiment_by_name(NAME)
    assert experiment is not None
    assert experiment.tags["purpose"] == "a test"


def test_sent_again_it_is_there_once(source: MlflowClient, target: MlflowClient) -> None:
    first = deliver_runs(source, target)
    assert deliver_runs(source, target) == first
    check_whole(source, target)


class Failing:
    """A client whose server goes away at one call: before it, or before its answer."""

    def __init__(self, client: MlflowClient, call: int, done: bool):
        self._client, self.left, self._done = client, call, done

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def answer(*args: Any, **kwargs: Any) -> Any:
            self.left -= 1
            if self.left == 0:
                if self._done:
                    method(*args, **kwargs)
                raise OSError("the server is away")
            return method(*args, **kwargs)

        return answer


@pytest.mark.parametrize("done", [False, True])
def test_wherever_the_server_goes_away_the_next_try_completes_it(
    source: MlflowClient, target: MlflowClient, done: bool
) -> None:
    interrupted = 0
    for call in range(1, 100):
        failing = Failing(target, call, done)
        try:
            deliver_runs(source, failing)  # type: ignore[arg-type]
        except OSError:
            interrupted += 1
        deliver_runs(source, target)
        check_whole(source, target)
        if failing.left > 0:
            break
        for run in list_runs(target):
            target.delete_run(run.info.run_id)
        (experiment,) = {run.info.experiment_id for run in list_runs(source)}
        for model in target.search_logged_models([experiment]):
            target.delete_logged_model(model.model_id)
    assert interrupted > 20


def test_an_interrupted_start_leaves_no_half_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow.store.tracking.sqlalchemy_store as stores

    def stop(uri: str, root: str) -> None:
        Path(uri.removeprefix("sqlite:///")).write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stores, "SqlAlchemyStore", stop)
        with pytest.raises(KeyboardInterrupt):
            make_store(tmp_path / "mlflow.db")
    assert not (tmp_path / "mlflow.db").exists()
    make_store(tmp_path / "mlflow.db")
    assert [path.name for path in tmp_path.glob("mlflow.db*")] in (
        ["mlflow.db", "mlflow.db.lock"],
        ["mlflow.db.lock", "mlflow.db"],
    )
    assert MlflowClient(f"sqlite:///{tmp_path}/mlflow.db").search_experiments()


def test_a_second_copy_by_a_retried_request_is_removed(
    source: MlflowClient, target: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = MlflowClient.create_run

    def create_twice(client: MlflowClient, *args: Any, **kwargs: Any) -> Run:
        create(client, *args, **kwargs)
        return create(client, *args, **kwargs)

    monkeypatch.setattr(MlflowClient, "create_run", create_twice)
    deliver_runs(source, target)
    check_whole(source, target)
