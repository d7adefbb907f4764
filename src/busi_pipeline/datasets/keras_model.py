"""Keras models as `.keras` files, and as models of the MLflow run."""

from functools import lru_cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from kedro.io import AbstractDataset

from busi_pipeline.caching.places import Place, describe, fetch, find_place, replace_folder
from busi_pipeline.caching.whole_files import replace_whole
from busi_pipeline.errors import BadInputError
from busi_pipeline.models.delivered import (
    DESCRIPTION_FILE,
    DeliveredModel,
    load_delivered_model,
    save_delivered_model,
)
from busi_pipeline.models.keras_files import load_keras_file
from busi_pipeline.tracking.active_run import use_run

from .record import find_run

if TYPE_CHECKING:
    import keras


class KerasModelDataset(AbstractDataset["keras.Model", "keras.Model"]):
    """A model as a file.

    Args:
        filepath: ends in `.keras`; other endings do not load again.
        metadata: for kedro-viz.
    """

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None):
        if not filepath.endswith(".keras"):
            raise ValueError(f"filepath of a Keras model must end in .keras; got {filepath!r}")
        self._filepath = find_place(filepath)
        self.metadata = metadata

    def load(self) -> "keras.Model":
        """Return the model, not compiled: it is for prediction."""
        if not self._exists():
            raise BadInputError(f"no model at {self._filepath}: train the experiment first.")
        return _load_model(self._filepath, describe(self._filepath))

    def save(self, data: Any) -> None:
        """Write the file."""
        with replace_whole(self._filepath) as unfinished:
            data.save(unfinished)

    def _exists(self) -> bool:
        return self._filepath.is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}


@lru_cache(maxsize=1)
def _load_model(path: Place, changed: tuple[int, int]) -> "keras.Model":
    """Read the file, once for the nodes of a run that ask for it one after the other."""
    with fetch(path) as local:
        return load_keras_file(local)


class DeliveredModelDataset(AbstractDataset[DeliveredModel, DeliveredModel]):
    """A folder with a model and its description; on saving, logged to the MLflow run as well.

    The logged model carries its signature, an input example (a black image: no patient's picture
    leaves with a model), pinned requirements, and the description as metadata.

    Args:
        path: the folder.
        name: of the model in MLflow; letters, digits and underscores.
        metadata: for Kedro-Viz.

    Attributes:
        run_id: of the MLflow run to log to; None for the active one.
    """

    def __init__(self, *, path: str, name: str, metadata: dict[str, Any] | None = None):
        if not name.isidentifier():
            raise ValueError(f"an MLflow model's name may hold no dot or slash; got {name!r}")
        self._path, self._name = find_place(path), name
        self.metadata = metadata
        self.run_id: str | None = None
        self._logging_activated = True  # kedro-mlflow switches it off for untracked pipelines

    def load(self) -> DeliveredModel:
        """Return the model; see models.delivered.load_delivered_model."""
        with fetch(self._path) as folder:
            return load_delivered_model(folder)

    def save(self, data: DeliveredModel) -> None:
        """Write the folder, with the id of the MLflow run if one is known; log to that run."""
        run_id = find_run(self.run_id)
        if run_id is not None:
            data = data._replace(description=data.description | {"mlflow_run_id": run_id})
        with replace_folder(self._path, DESCRIPTION_FILE) as folder:
            save_delivered_model(data, folder)
        if run_id is not None and self._logging_activated:
            self._log_model(data, run_id)

    def _log_model(self, delivered: DeliveredModel, run_id: str) -> None:
        import keras
        import mlflow.tensorflow
        import numpy as np
        from mlflow.models import ModelSignature
        from mlflow.types import Schema, TensorSpec

        shape = (-1, *delivered.model.input_shape[1:])
        count = len(delivered.description["classes"])
        signature = ModelSignature(
            inputs=Schema([TensorSpec(np.dtype("uint8"), shape)]),
            outputs=Schema(
                [
                    TensorSpec(np.dtype("float32"), (-1, count), "probabilities"),
                    TensorSpec(np.dtype("float32"), (-1,), "positive_score"),
                    TensorSpec(np.dtype("bool"), (-1,), "flagged"),
                ]
            ),
        )
        # MLflow predicts the example, for which Keras would draw a bar. It forgets this whenever a
        # session is cleared.
        keras.config.disable_interactive_logging()
        with use_run(run_id):
            mlflow.tensorflow.log_model(
                delivered.model,
                name=self._name,
                signature=signature,
                input_example=np.zeros((1, *shape[1:]), dtype=np.uint8),
                # Left to itself, MLflow loads the model in a new process to find these out.
                pip_requirements=[f"{p}=={version(p)}" for p in ("tensorflow", "keras", "numpy")],
                metadata=delivered.description,
            )

    def _exists(self) -> bool:
        return (self._path / DESCRIPTION_FILE).is_file()

    def _describe(self) -> dict[str, Any]:
        return {"path": str(self._path), "name": self._name}
