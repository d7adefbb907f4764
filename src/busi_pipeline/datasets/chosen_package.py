"""A packaged model to ask: by role, version, experiment, folder, or from MLflow."""

from pathlib import Path
from typing import Any

import mlflow
from kedro.io import AbstractDataset, DatasetError
from mlflow.exceptions import MlflowException

from busi_pipeline.caching.places import find_place
from busi_pipeline.datasets.model_registry import ModelRegistry
from busi_pipeline.errors import BadInputError
from busi_pipeline.models.ledger import ROLES
from busi_pipeline.models.model_store import ModelStore
from busi_pipeline.models.onnx_networks import share_cores
from busi_pipeline.models.packaged import PACKAGE_FILE, PackagedModel, load_package

_MLFLOW_SCHEMES = ("models:/", "runs:/", "mlflow-artifacts:/")


def _fetch(uri: str) -> Path:
    """Return the folder of a package that is logged in MLflow."""
    try:
        model = mlflow.artifacts.download_artifacts(artifact_uri=uri)
    except (MlflowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise BadInputError(f"no packaged model at {uri}: {reason}") from None
    # MLflow keeps the folder's own name.
    found = sorted((Path(model) / "artifacts").glob(f"*/{PACKAGE_FILE}"))
    if not found:
        raise BadInputError(
            f"{uri} is no packaged model: name one that `kedro run --pipeline=package_<experiment>`"
            " logged."
        )
    return found[0].parent


class ChosenPackageDataset(AbstractDataset[None, PackagedModel]):
    """A packaged model to ask about many images at once, by name or folder.

    Args:
        path: folder of the models.
        name: of the model in MLflow's registry.
        choice: see models.model_store.ModelStore.find; or a model in MLflow, as
            `models:/breast_ultrasound@champion`, `models:/<model id>` or
            `runs:/<run id>/<experiment>_package`.
        metadata: for Kedro-Viz.
    """

    def __init__(
        self,
        *,
        path: str,
        name: str,
        choice: str | None = None,
        metadata: dict[str, Any] | None = None,
    ):
        self._path, self._name, self._choice = find_place(path), name, choice
        self.metadata = metadata
        self._model: PackagedModel | None = None

    def load(self) -> PackagedModel:
        """Return the model; see models.model_store.ModelStore.find.

        Raises BadInputError, one line, where there is none, or where its files are damaged.
        Where a role is asked for, what is wrong with the roles in MLflow is logged.
        """
        if self._model is None:  # all nodes of a run ask the same model, whatever happens meanwhile
            self._model = self._load_chosen()
        return self._model

    def _load_chosen(self) -> PackagedModel:
        if self._choice is not None and self._choice.startswith(_MLFLOW_SCHEMES):
            return load_package(_fetch(self._choice), share_cores().threads)
        store = ModelStore(self._path)
        if self._choice is None or self._choice in ROLES:
            ModelRegistry(store, self._name).warn()
        return load_package(store.find(self._choice), share_cores().threads)

    def save(self, data: None) -> None:
        """Refuse: a package is written by its pipeline."""
        raise DatasetError("a package is chosen here, not written")

    def _describe(self) -> dict[str, Any]:
        return {"path": str(self._path), "choice": self._choice}
