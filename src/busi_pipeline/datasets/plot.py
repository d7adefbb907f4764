"""A figure as PNG, which can be read again."""

from pathlib import Path

from kedro_datasets.matplotlib import MatplotlibDataset
from matplotlib.figure import Figure


class PlotDataset(MatplotlibDataset):
    """`matplotlib.MatplotlibDataset` that gives the PNG's bytes back; None where there is none."""

    optional = True  # for `hooks.ClearErrors`: a report shows what there is

    def load(self) -> bytes | None:
        """Return the PNG file as it was written, or None."""
        return Path(str(self._filepath)).read_bytes() if self._exists() else None

    def save(self, data: Figure) -> None:
        """Write the figure."""
        super().save(data)
