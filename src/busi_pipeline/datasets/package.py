"""Exported networks, and packages of models: folders, and models of the MLflow run."""

import warnings
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset

from busi_pipeline.caching.places import fetch_and_keep, find_place, replace_folder
from busi_pipeline.caching.whole_files import write_whole
from busi_pipeline.errors import BadInputError
from busi_pipeline.models.exporting import ExportedNetworks
from busi_pipeline.models.package_parts import COMPUTING, PackageParts, write_package
from busi_pipeline.models.packaged import (
    PACKAGE_FILE,
    PackagedModel,
    load_package,
)
from busi_pipeline.tracking.active_run import use_run

from .record import find_run

_LOCALIZER = "localizer"
_SUFFIX, _PHONE_SUFFIX = ".onnx", ".tflite"
# What a package imports, MLflow included.
_REQUIREMENTS = ("mlflow", *COMPUTING, "click", "pandas", "scipy")


class ExportedNetworksDataset(AbstractDataset[ExportedNetworks, ExportedNetworks]):
    """A folder of ONNX files, and LiteRT files for a phone.

    Args:
        path: the folder.
        metadata: for Kedro-Viz.
    """

    def __init__(self, *, path: str, metadata: dict[str, Any] | None = None):
        self._path = find_place(path)
        self.metadata = metadata

    def load(self) -> ExportedNetworks:
        """Return the files' content; raises DatasetError where there are none."""
        if not self._exists():
            raise BadInputError(f"no exported networks in {self._path}: package the model first.")
        files, phone = (
            {file.stem: file.read_bytes() for file in self._path.glob(f"*{suffix}")}
            for suffix in (_SUFFIX, _PHONE_SUFFIX)
        )
        localizer = files.pop(_LOCALIZER, None)
        return ExportedNetworks(dict(sorted(files.items())), localizer, dict(sorted(phone.items())))

    def save(self, data: ExportedNetworks) -> None:
        """Write the files; those of an earlier export go."""
        self._path.mkdir(parents=True, exist_ok=True)
        for suffix in (_SUFFIX, _PHONE_SUFFIX):
            for file in self._path.glob(f"*{suffix}"):
                file.unlink()
        files = {f"{name}{_SUFFIX}": content for name, content in data.classifiers.items()}
        if data.localizer is not None:
            files[f"{_LOCALIZER}{_SUFFIX}"] = data.localizer
        files |= {f"{name}{_PHONE_SUFFIX}": content for name, content in data.phone.items()}
        for name, content in files.items():
            with write_whole(self._path / name) as written:
                written.write(content)

    def _exists(self) -> bool:
        return any(self._path.glob(f"*{_SUFFIX}"))

    def _describe(self) -> dict[str, Any]:
        return {"path": str(self._path)}


def log_package(
    folder: Path,
    name: str,
    described: Mapping[str, Any],
    registered_name: str | None = None,
) -> Any:
    """Log a package to the active MLflow run; return MLflow's ModelInfo.

    Args:
        folder: of the package.
        name: of the experiment.
        described: what `package.json` says.
        registered_name: of the model in MLflow's registry; None does not register it.
    """
    import mlflow.pyfunc

    from busi_pipeline.datasets import package_service

    code = Path(__file__).with_name("package_code.py")
    with warnings.catch_warnings():
        # MLflow asks for an example, with which it would start the model in a new process.
        warnings.filterwarnings("ignore", message=".*(input example|type hints)")
        return mlflow.pyfunc.log_model(
            name=f"{name}_package",
            python_model=str(code),
            artifacts={package_service.PACKAGE: str(folder)},
            code_paths=[str(code.parents[1])],
            signature=package_service.make_signature(),
            pip_requirements=[f"{package}=={version(package)}" for package in _REQUIREMENTS],
            metadata=dict(described),
            registered_model_name=registered_name,
        )


class PackageDataset(AbstractDataset[PackageParts, PackagedModel]):
    """A folder with a packaged model; on saving, logged to the MLflow run as well.

    The logged model takes rows with the bytes of an image, see datasets.package_service. It carries
    this package's own code, so that its environment needs only what computes.

    Args:
        path: the folder.
        name: of the experiment.
        metadata: for Kedro-Viz.

    Attributes:
        run_id: of the MLflow run to log to, which a hook sets; None for the active one.
    """

    def __init__(self, *, path: str, name: str, metadata: dict[str, Any] | None = None):
        self._path, self._name = find_place(path), name
        self.metadata = metadata
        self.run_id: str | None = None
        self._logging_activated = True  # kedro-mlflow switches it off for untracked pipelines

    def load(self) -> PackagedModel:
        """Return the model; see models.packaged.load_package."""
        return load_package(fetch_and_keep(self._path))

    def save(self, data: PackageParts) -> None:
        """Write the folder; log it to the MLflow run, if there is one."""
        with replace_folder(self._path, PACKAGE_FILE) as folder:
            described = write_package(data, self._name, folder)
            run_id = find_run(self.run_id)
            if run_id is not None and self._logging_activated:
                with use_run(run_id):
                    log_package(folder, self._name, described)

    def _exists(self) -> bool:
        return (self._path / PACKAGE_FILE).is_file()

    def _describe(self) -> dict[str, Any]:
        return {"path": str(self._path), "name": self._name}
