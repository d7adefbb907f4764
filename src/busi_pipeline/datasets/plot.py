"""A figure as PNG, which can be read again."""

from typing import Any, ClassVar

from kedro_datasets.matplotlib import MatplotlibDataset
from matplotlib.figure import Figure

from busi_pipeline.caching.places import Place
from busi_pipeline.caching.whole_files import write_whole
from busi_pipeline.plotting.style import DEMO_BANNER, NothingToShow, add_banner

from .record import find_file


class PlotDataset(MatplotlibDataset):
    """`matplotlib.MatplotlibDataset` that gives the PNG's bytes back; None where there is none.

    Where there is nothing to show, no PNG is written, an earlier one is removed, and a text file of
    the same name says why. Loading gives this sentence then.

    Args:
        filepath: of the PNG.
        synthetic: whether the figure is of images of no patient; it then carries a banner.
        metadata: for Kedro-Viz.
    """

    # A third of the time for a sheet of images, for a file a tenth larger.
    DEFAULT_SAVE_ARGS: ClassVar[dict[str, Any]] = {"pil_kwargs": {"compress_level": 3}}
    optional = True  # for `hooks.ClearErrors`: a report shows what there is
    _logging_activated = True  # of kedro-mlflow, which switches it where runs are not tracked

    def __init__(
        self, *, filepath: str, synthetic: bool = False, metadata: dict[str, Any] | None = None
    ):
        super().__init__(filepath=filepath, metadata=metadata)
        self._synthetic = synthetic

    def load(self) -> bytes | NothingToShow | None:
        """Return the PNG file as it was written, why there is none, or None if it was not made."""
        picture, reason = self._list_paths()
        if picture.exists():
            return picture.read_bytes()
        return NothingToShow(reason.read_text(encoding="utf-8")) if reason.exists() else None

    def save(self, data: Figure | NothingToShow) -> None:
        """Write the figure, or why there is none, and remove the other."""
        picture, reason = self._list_paths()
        # kedro-mlflow, which wraps this dataset, would log a picture that is not there.
        self._logging_activated = self._logging_activated and isinstance(data, Figure)
        if isinstance(data, NothingToShow):
            picture.unlink(missing_ok=True)
            with write_whole(reason) as file:
                file.write(data.encode())
            return
        if self._synthetic:
            add_banner(data, DEMO_BANNER)
        super().save(data)
        reason.unlink(missing_ok=True)

    def _exists(self) -> bool:
        return any(path.exists() for path in self._list_paths())

    def _list_paths(self) -> tuple[Place, Place]:
        """Return where the picture lies, and where the text in its place."""
        picture = find_file(self)
        return picture, picture.with_suffix(".txt")
