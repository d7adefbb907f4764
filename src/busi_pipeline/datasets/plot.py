"""A figure as PNG, which can be read again."""

from pathlib import Path
from typing import Any, ClassVar

from kedro_datasets.matplotlib import MatplotlibDataset
from matplotlib.figure import Figure

from busi_pipeline.plotting.style import DEMO_BANNER, add_banner


class PlotDataset(MatplotlibDataset):
    """`matplotlib.MatplotlibDataset` that gives the PNG's bytes back; None where there is none.

    Args:
        filepath: of the PNG.
        synthetic: whether the figure is of images of no patient; it then carries a banner.
        metadata: for Kedro-Viz.
    """

    # A third of the time for a sheet of images, for a file a tenth larger.
    DEFAULT_SAVE_ARGS: ClassVar[dict[str, Any]] = {"pil_kwargs": {"compress_level": 3}}
    optional = True  # for `hooks.ClearErrors`: a report shows what there is

    def __init__(
        self, *, filepath: str, synthetic: bool = False, metadata: dict[str, Any] | None = None
    ):
        super().__init__(filepath=filepath, metadata=metadata)
        self._synthetic = synthetic

    def load(self) -> bytes | None:
        """Return the PNG file as it was written, or None."""
        return Path(str(self._filepath)).read_bytes() if self._exists() else None

    def save(self, data: Figure) -> None:
        """Write the figure."""
        if self._synthetic:
            add_banner(data, DEMO_BANNER)
        super().save(data)
