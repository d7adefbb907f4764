"""The folder of raw images, as partitions of bytes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset, DatasetError
from kedro_datasets.partitions import PartitionedDataset

from busi_pipeline.errors import BadInputError

HOW_TO_GET_BUSI = (
    "Get BUSI ('Dataset of breast ultrasound images', Al-Dhabyani et al. 2020, Data in Brief "
    "28:104863; on Kaggle as aryashah2k/breast-ultrasound-images-dataset) and unpack it so that "
    "<folder>/benign/benign (1).png exists, or name its place in the environment variable "
    "BUSI_RAW_DIR. `pip install -e '.[download]'` and `python -m busi_pipeline.download` do both."
)


class BytesDataset(AbstractDataset[bytes, bytes]):
    """One file as bytes."""

    def __init__(self, filepath: str):
        self._filepath = Path(filepath)

    def load(self) -> bytes:
        """Return the content of the file."""
        return self._filepath.read_bytes()

    def save(self, data: bytes) -> None:
        """Refuse: raw data is never written."""
        raise DatasetError("raw images are read-only")

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}


class RawImagesDataset(PartitionedDataset):
    """Every file below the raw-data folder: {path relative to it: function that reads its bytes}.

    A folder that is missing or empty stops the run with a line that says how to get the data.
    """

    def __init__(self, path: str, metadata: dict[str, Any] | None = None):
        super().__init__(path=path, dataset=BytesDataset, metadata=metadata)

    def load(self) -> dict[str, Callable[[], bytes]]:
        """Return the files, sorted by path; raises BadInputError where there are none."""
        if not Path(self._path).is_dir():
            raise BadInputError(
                f"no raw data: the folder {self._path} is missing. {HOW_TO_GET_BUSI}"
            )
        if not self._list_partitions():
            raise BadInputError(f"no raw data: the folder {self._path} is empty. {HOW_TO_GET_BUSI}")
        return dict(sorted(super().load().items()))
