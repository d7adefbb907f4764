"""Keras models as `.keras` files, and as models of the MLflow run."""

from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import mlflow
from kedro.io import AbstractDataset, DatasetError

if TYPE_CHECKING:
    import keras


class DeliveredModel(NamedTuple):
    """A model for those who will use it.

    Attributes:
        model: uint8 (n, height, width, 3) RGB -> float32 (n, classes) calibrated probabilities.
        decision: what was chosen with it on validation images; the threshold above all.
    """

    model: "keras.Model"
    decision: dict[str, Any]


class KerasModelDataset(AbstractDataset["keras.Model", "keras.Model"]):
    """A model as a file.

    Args:
        filepath: ends in `.keras`; other endings do not load again.
        metadata: for kedro-viz.
    """

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None):
        if not filepath.endswith(".keras"):
            raise ValueError(f"filepath of a Keras model must end in .keras; got {filepath!r}")
        self._filepath = Path(filepath)
        self.metadata = metadata

    def load(self) -> "keras.Model":
        """Return the model, not compiled: it is for prediction."""
        if not self._exists():
            raise DatasetError(f"no model at {self._filepath}: train the experiment first.")
        return _load_model(self._filepath, self._filepath.stat().st_mtime_ns)

    def save(self, data: Any) -> None:
        """Write the file."""
        self._filepath.parent.mkdir(parents=True, exist_ok=True)
        data.save(self._filepath)

    def _exists(self) -> bool:
        return self._filepath.is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}


@lru_cache(maxsize=1)
def _load_model(path: Path, changed: int) -> "keras.Model":
    """Read the file, once for the nodes of a run that ask for it one after the other."""
    import keras

    return keras.saving.load_model(path, compile=False)


class DeliveredModelDataset(KerasModelDataset):
    """Takes a DeliveredModel: writes the model's file and logs it to the active MLflow run.

    The logged model carries its signature, an input example (black images: no patient's picture
    leaves with a model), pinned requirements, the order of its classes and the decision.

    Args:
        filepath: see KerasModelDataset.
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
        super().__init__(filepath=filepath, metadata=metadata)
        if not name.isidentifier():
            raise ValueError(f"an MLflow model's name may hold no dot or slash; got {name!r}")
        self._name = name
        self._classes = list(classes)
        self._logging_activated = True  # kedro-mlflow switches it off for untracked pipelines

    def save(self, data: DeliveredModel) -> None:
        """Write the file; log to MLflow if a run is active."""
        super().save(data.model)
        if mlflow.active_run() is not None and self._logging_activated:
            self._log_model(data)

    def _log_model(self, delivered: DeliveredModel) -> None:
        import mlflow.tensorflow
        import numpy as np
        from mlflow.models import ModelSignature
        from mlflow.types import Schema, TensorSpec

        shape = (-1, *delivered.model.input_shape[1:])
        signature = ModelSignature(
            inputs=Schema([TensorSpec(np.dtype("uint8"), shape)]),
            outputs=Schema([TensorSpec(np.dtype("float32"), (-1, len(self._classes)))]),
        )
        mlflow.tensorflow.log_model(
            delivered.model,
            name=self._name,
            signature=signature,
            input_example=np.zeros((1, *shape[1:]), dtype=np.uint8),
            # Left to itself, MLflow loads the model in a new process to find these out.
            pip_requirements=[f"{p}=={version(p)}" for p in ("tensorflow", "keras", "numpy")],
            metadata={"classes": self._classes} | delivered.decision,
        )

    def _describe(self) -> dict[str, Any]:
        return super()._describe() | {"name": self._name}
