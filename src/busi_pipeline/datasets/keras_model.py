"""A Keras model as a `.keras` file, and as a model of the MLflow run."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
from kedro.io import AbstractDataset, DatasetError


class KerasModelDataset(AbstractDataset[Any, Any]):
    """Saves to `<filepath>`, which ends in `.keras`, and logs the model to the active MLflow run.

    The logged model carries its signature, an input example (black images: no patient's picture
    leaves with a model), pinned requirements and the order of its classes.

    Args:
        filepath: ends in `.keras`; other endings do not load again.
        name: of the model in MLflow; letters, digits and underscores.
        classes: in the order of the model's probabilities.
        metadata: for kedro-viz.
    """

    def __init__(
        self,
        *,
        filepath: str,
        name: str,
        classes: list[str],
        metadata: dict[str, Any] | None = None,
    ):
        if not filepath.endswith(".keras"):
            raise ValueError(f"filepath of a Keras model must end in .keras; got {filepath!r}")
        if not name.isidentifier():
            raise ValueError(f"an MLflow model's name may hold no dot or slash; got {name!r}")
        self._filepath = Path(filepath)
        self._name = name
        self._classes = list(classes)
        self.metadata = metadata
        self._logging_activated = True  # kedro-mlflow switches it off for untracked pipelines

    def load(self) -> Any:
        """Return the model, not compiled: it is for prediction."""
        import keras

        if not self._exists():
            raise DatasetError(f"no model at {self._filepath}: train the experiment first.")
        return keras.saving.load_model(self._filepath, compile=False)

    def save(self, data: Any) -> None:
        """Write the file; log to MLflow if a run is active."""
        self._filepath.parent.mkdir(parents=True, exist_ok=True)
        data.save(self._filepath)
        if mlflow.active_run() is not None and self._logging_activated:
            self._log_model(data)

    def _log_model(self, model: Any) -> None:
        import mlflow.tensorflow
        import numpy as np
        from mlflow.models import ModelSignature
        from mlflow.types import Schema, TensorSpec

        shape = (-1, *model.input_shape[1:])
        signature = ModelSignature(
            inputs=Schema([TensorSpec(np.dtype("uint8"), shape)]),
            outputs=Schema([TensorSpec(np.dtype("float32"), (-1, len(self._classes)))]),
        )
        mlflow.tensorflow.log_model(
            model,
            name=self._name,
            signature=signature,
            input_example=np.zeros((1, *shape[1:]), dtype=np.uint8),
            # Left to itself, MLflow loads the model in a new process to find these out.
            pip_requirements=[f"{p}=={version(p)}" for p in ("tensorflow", "keras", "numpy")],
            metadata={"classes": self._classes},
        )

    def _exists(self) -> bool:
        return self._filepath.is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath), "name": self._name}
