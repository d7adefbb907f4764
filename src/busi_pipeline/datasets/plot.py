"""A figure as PNG, which can be read again."""

from pathlib import Path
from typing import Any, ClassVar

from kedro_datasets.matplotlib import MatplotlibDataset
from matplotlib.figure import Figure


class PlotDataset(MatplotlibDataset):
    """`matplotlib.MatplotlibDataset` that gives the PNG's bytes back; None where there is none."""

    # A third of the time for a sheet of images, for a file a tenth larger.
    DEFAULT_SAVE_ARGS: ClassVar[dict[str, Any]] = {"pil_kwargs": {"compress_level": 3}}
    optional = True  # for `hooks.ClearErrors`: a report shows what there is

    def load(self) -> bytes | None:
        """Return the PNG file as it was written, or None."""
        return Path(str(self._filepath)).read_bytes() if self._exists() else None

    def save(self, data: Figure) -> None:
        """Write the figure."""
        super().save(data)
