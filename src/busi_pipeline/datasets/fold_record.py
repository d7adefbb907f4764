"""The record of one fold of a cross-validation: JSON on disk, a child run in MLflow."""

from typing import Any

from kedro_datasets.json import JSONDataset
from mlflow.entities import Metric
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME
from mlflow.utils.time import get_current_time_millis

from busi_pipeline.tracking.children import adopt_child, find_child

from .record import find_run, flatten, name_keys


class FoldRecordDataset(JSONDataset):
    """{`metrics`: numbers, nested, `tags`: texts} of a fold; saved, a child of the MLflow run.

    A training that was taken from the cache and has its child run already gets no second one, nor
    does a fold that is saved again for the same run.

    Args:
        filepath: of the JSON file.
        name: of the child run.
        metadata: for Kedro-Viz.

    Attributes:
        run_id: of the parent run, which a hook sets; None is the one active in the thread.
    """

    def __init__(self, *, filepath: str, name: str, metadata: dict[str, Any] | None = None):
        super().__init__(filepath=filepath, save_args={"indent": 2}, metadata=metadata)
        self._name = name
        self.run_id: str | None = None

    def save(self, data: dict[str, Any]) -> None:
        """Write the JSON file and log a child run, if there is a run."""
        super().save(data)
        parent = find_run(self.run_id)
        if parent is None:
            return
        # By the client, since the fluent functions know only the run of their own thread.
        client = MlflowClient()
        experiment = client.get_run(parent).info.experiment_id
        own = {key: str(value) for key, value in flatten(data["tags"])}
        tags = own | {MLFLOW_PARENT_RUN_ID: parent, MLFLOW_RUN_NAME: self._name}
        if adopt_child(client, experiment, tags, parent) is not None:
            return
        begun = find_child(client, experiment, tags, parent)
        if begun is not None and begun.info.status == "FINISHED":
            return
        child = (begun or client.create_run(experiment, tags=tags)).info.run_id
        now = get_current_time_millis()
        client.log_batch(
            child,
            metrics=[
                Metric(key, float(value), now, 0)
                for key, value in name_keys(flatten(data["metrics"])).items()
                if isinstance(value, int | float)
            ],
        )
        client.set_terminated(child)
