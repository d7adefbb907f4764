"""Where pretrained weights come from, and what exactly they were."""

import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from kedro.io import AbstractDataset, DatasetError

from busi_pipeline.caching.fingerprints import hash_file
from busi_pipeline.caching.places import fetch_and_keep, find_place
from busi_pipeline.errors import BadInputError
from busi_pipeline.models.backbones import get_backbone
from busi_pipeline.models.weights import PretrainedWeights


class WeightsSource:
    """Finds the weights of a backbone; knows the folder of weight files, if there is one."""

    def __init__(self, directory: str | None):
        self._directory = find_place(directory) if directory else None
        self._chosen: dict[tuple[str, str], PretrainedWeights] = {}

    def choose(self, backbone: str, choice: str) -> PretrainedWeights:
        """Return what `choice` ("imagenet", "directory" or "none") means for the backbone.

        Raises BadInputError in one line naming the choices where the weights cannot be had; random
        weights are given only where "none" was asked for.
        """
        # Every node asks, and to find out Keras builds the network, and the file is hashed.
        if (backbone, choice) not in self._chosen:
            self._chosen[backbone, choice] = self._find(backbone, choice)
        return self._chosen[backbone, choice]

    def check(self, backbone: str, choice: str) -> None:
        """Raise BadInputError, one line, where the weights cannot be had, or are damaged or no
        numbers.

        Of a damaged file, every array is read. Whether they are those of the backbone, Keras sees
        when the network is built.
        """
        argument = self.choose(backbone, choice).argument
        if argument is None:
            return
        try:
            with h5py.File(argument) as file:
                wrong = file.visititems(lambda name, item: name if _has_no_numbers(item) else None)
        except (OSError, RuntimeError) as error:
            raise BadInputError(
                f"no weights for {backbone}: {argument} is damaged, or no HDF5 file "
                f"({str(error).splitlines()[0]}). Delete it and get it again. {_CHOICES}"
            ) from None
        if wrong is not None:
            raise BadInputError(
                f"no weights for {backbone}: {wrong} in {argument} has values that are no numbers "
                f"(nan or infinite). Delete it and get it again. {_CHOICES}"
            )

    def _find(self, backbone: str, choice: str) -> PretrainedWeights:
        tags = {"weights": choice}
        if choice == "none":
            return PretrainedWeights(
                None, tags | {"weights_file": "none", "weights_sha256": "none"}
            )
        find = self._find_file if choice == "directory" else self._download_imagenet
        path = find(backbone)
        return PretrainedWeights(
            str(path), tags | {"weights_file": path.name, "weights_sha256": hash_file(path)}
        )

    def _find_file(self, backbone: str) -> Path:
        name = f"{backbone}_notop.weights.h5"
        if self._directory is None:
            raise BadInputError(
                "training.weights is 'directory', but the environment variable BUSI_WEIGHTS_DIR is "
                f"not set: name the folder that holds {name}. {_CHOICES}"
            )
        path = self._directory / name
        if not path.is_file():
            found = sorted(p.name for p in self._directory.glob("*.h5"))
            raise BadInputError(
                f"no weights for {backbone}: {path} is missing; the folder holds {found}. "
                + _CHOICES
            )
        return fetch_and_keep(path)

    def _download_imagenet(self, backbone: str) -> Path:
        """Let Keras fetch (or find) its ImageNet file, and return the file."""
        import keras

        preset = get_backbone(backbone)
        builder = getattr(keras.applications, preset.builder)
        size = (preset.image_size, preset.image_size, 3)
        models = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "models"
        try:
            builder(include_top=False, weights="imagenet", input_shape=size)
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise BadInputError(
                f"no weights for {backbone}: Keras could not download its ImageNet weights "
                f"({reason}). {_CHOICES}"
            ) from None
        files = sorted(models.glob(f"{preset.imagenet_file}*notop*"))
        if not files:
            raise BadInputError(
                f"Keras loaded ImageNet weights, but no {preset.imagenet_file}*notop* lies in "
                f"{models}: set KERAS_HOME to Keras' folder, so that the run can say which file it "
                "used. " + _CHOICES
            )
        return files[0]


_CHOICES = (
    "Choices for training.weights: 'imagenet' (Keras downloads them), 'directory' (a folder of "
    "<backbone>_notop.weights.h5, named in BUSI_WEIGHTS_DIR), or 'none' (random, from scratch)."
)


def _has_no_numbers(item: Any) -> bool:
    """Read an array from end to end; say whether a value of it is nan or infinite."""
    if not isinstance(item, h5py.Dataset):
        return False
    values = np.asarray(item[()])
    return values.dtype.kind == "f" and not bool(np.isfinite(values).all())


class PretrainedWeightsDataset(AbstractDataset[None, WeightsSource]):
    """The source of pretrained weights; `directory` may be empty.

    A folder that was named but does not exist stops the run.
    """

    def __init__(self, directory: str | None = None, metadata: dict[str, Any] | None = None):
        self._directory = directory
        self._source = WeightsSource(directory)
        self.metadata = metadata

    def load(self) -> WeightsSource:
        """Return the source; raises BadInputError where the folder is missing."""
        if self._directory and not find_place(self._directory).is_dir():
            raise BadInputError(
                f"BUSI_WEIGHTS_DIR names {self._directory}, which is no folder. {_CHOICES}"
            )
        return self._source

    def save(self, data: None) -> None:
        """Refuse: pretrained weights are never written."""
        raise DatasetError("pretrained weights are read-only")

    def _exists(self) -> bool:
        return True

    def _describe(self) -> dict[str, Any]:
        return {"directory": self._directory}
