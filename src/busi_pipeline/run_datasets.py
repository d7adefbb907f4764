"""The datasets of a pipeline, and the MLflow run that they log to.

MLflow's active run is one of a thread: what loads and saves in another one, or in another process,
finds none, or opens another. So each dataset that has a `run_id` gets the run.
"""

from collections.abc import Iterable
from typing import Any

from kedro.framework.hooks import hook_impl
from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline
from kedro_mlflow.io.artifacts import MlflowArtifactDataset
from mlflow.tracking import MlflowClient

from busi_pipeline.caching.places import fetch, is_remote
from busi_pipeline.datasets.record import find_file

# Folder of a run's artifacts that are of its experiment.
RESULTS = "results"


def list_experiments(pipeline: Pipeline, settings: Iterable[str]) -> list[str]:
    """Return the experiments that have a node in the pipeline: the first part of a namespace."""
    first = {node.namespace.split(".")[0] for node in pipeline.nodes if node.namespace}
    return sorted(first & set(settings))


class RunDatasets:
    """Binds the datasets of a catalog to their run; its hooks are those of their saving."""

    def __init__(
        self, catalog: CatalogProtocol, run_id: str | None, experiments: Iterable[str] = ()
    ):
        """Take the run.

        Args:
            catalog: of the datasets.
            run_id: None logs nothing.
            experiments: of the run; where it is one, its artifacts lie where those of every other
                one do, since MLflow's UI sets artifacts of one path beside each other.
        """
        self._catalog, self._run_id = catalog, run_id
        own = list(experiments)
        self._only = own[0] if len(own) == 1 else None

    def bind(self, names: Iterable[str]) -> None:
        """Give those named their run and their place in it; artifacts get it when saved."""
        for name in names:
            dataset: Any = self._catalog.get(name)
            if self._run_id is None:
                if hasattr(dataset, "_logging_activated"):
                    dataset._logging_activated = False
                continue
            if hasattr(dataset, "run_id") and not is_artifact(dataset):
                dataset.run_id = self._run_id
            if getattr(dataset, "artifact_path", None) and self._only is not None:
                dataset.artifact_path = _share_path(dataset.artifact_path, self._only)

    @hook_impl
    def before_dataset_saved(self, dataset_name: str) -> None:
        """Give an artifact its run; not before, since it would then be loaded from that run."""
        dataset = self._find_artifact(dataset_name)
        if dataset is not None:
            dataset.run_id = self._run_id
            # kedro-mlflow takes a file in object storage for one of this machine.
            dataset.is_logged_here = dataset._logging_activated and is_remote(find_file(dataset))
            if dataset.is_logged_here:
                dataset._logging_activated = False

    @hook_impl
    def after_dataset_saved(self, dataset_name: str) -> None:
        """Let the artifact be loaded from its file, and log one in object storage."""
        dataset = self._find_artifact(dataset_name)
        if dataset is None:
            return
        dataset.run_id = None
        if not dataset.is_logged_here:
            return
        dataset._logging_activated = True
        place = find_file(dataset)
        if place.exists():  # there is no picture where there is nothing to show
            with fetch(place) as file:
                MlflowClient().log_artifact(self._run_id, str(file), dataset.artifact_path)

    def _find_artifact(self, name: str) -> Any:
        """Return the dataset if it is logged to the run as an artifact, else None."""
        dataset = self._catalog.get(name)
        return dataset if self._run_id is not None and is_artifact(dataset) else None


def is_artifact(dataset: object) -> bool:
    """Whether a dataset is kedro-mlflow's, which logs a file beside saving it."""
    return type(dataset).__module__ == MlflowArtifactDataset.__module__


def _share_path(path: str, experiment: str) -> str:
    """Return the folder of artifacts of the one experiment of a run, the same for each."""
    first, _, rest = path.partition("/")
    return path if first != experiment else f"{RESULTS}/{rest}".rstrip("/")
