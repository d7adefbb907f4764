"""How the project's plots look: one palette, one colour a class, one banner, text that is read."""

from collections.abc import Iterable
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle

# Okabe and Ito's colours, which people with colour-vision deficiency can distinguish.
PALETTE = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000"]

# For every plot and page that is made of synthetic images.
DEMO_BANNER = "DEMO on synthetic images: these figures say nothing about patients"

# Inches. The report's column has 1056 pixels, 96 an inch, so a point is 1.33 pixels there.
PAGE_WIDTH = 11.0
# Points of the smallest text: 11 pixels in the report.
SMALL_TEXT = 8.5
# For what stands beside a positive image that was missed, or taken for a negative one.
ALARM = PALETTE[1]
# Of the flag and its threshold, in every plot.
FLAG_STYLE: dict[str, Any] = {"color": "black", "marker": "D", "markersize": 7, "linestyle": "none"}

_TITLE_SIZE = 12
_BANNER_COLOUR = "#B00020"
_BANNER_SIZE = 11
# Inches: padding around the title and the banner's text, height of a line of the banner.
_PADDING = 0.08
_BANNER_LINE = 0.21
# Width of a letter, as a share of the size of the text: of a long line of small letters.
_LETTER = 0.55


class NothingToShow(str):
    """In place of a figure that would be empty: one sentence that says why there is none."""


def class_colours(classes: Iterable[str]) -> dict[str, str]:
    """Return one colour a class, the same in every plot."""
    return {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(classes)}


def new_panels(rows: int, title: str, panels: int) -> tuple[Figure, list[Axes]]:
    """Return a figure of panels that share the `rows` of their y axis, three beside each other."""
    lines = -(-panels // 3)
    figure = new_figure(PAGE_WIDTH, lines * (0.36 * rows + 1.1) + 0.9, title)
    columns = min(3, panels)
    axes = list(figure.subplots(lines, columns, sharey=True, squeeze=False).ravel())
    for axis in axes[panels:]:
        axis.remove()
    return figure, axes[:panels]


def new_figure(width: float, height: float, title: str) -> Figure:
    """Return an empty figure (inches) whose parts make room for each other.

    Wider than PAGE_WIDTH, its text would be too small in the report. Not through pyplot: nodes keep
    no global state, and a figure nobody holds is freed.
    """
    figure = Figure(figsize=(width, height), layout="constrained", dpi=130)
    figure.suptitle(_wrap(title, max(30, round(10.5 * width))), fontsize=_TITLE_SIZE)
    return figure


def wrap_label(text: str, inches: float, size: float = SMALL_TEXT) -> str:
    """Return the text in lines that fit into so many inches at this size (points)."""
    letters = max(8, int(72 * inches / (_LETTER * size)))
    return "\n".join(_wrap(line, letters) for line in text.split("\n"))


def _wrap(text: str, width: int) -> str:
    """Return the text in as few lines of up to `width` letters as it needs, of like length.

    A percent sign stays beside its number.
    """
    text = text.replace(" %", "\u00a0%")
    wrapped = fill(text, width)
    for narrower in range(width - 1, width // 2, -1):
        tried = fill(text, narrower)
        if tried.count("\n") > wrapped.count("\n"):
            break
        wrapped = tried
    return wrapped.replace("\u00a0%", " %")


def new_picture_grid(
    shape: tuple[int, int], picture: tuple[float, float], title: str
) -> tuple[Figure, np.ndarray]:
    """Return a figure of (rows, columns) axes without frames, each (width, height) inches."""
    (rows, columns), (width, height) = shape, picture
    figure = new_figure(width * columns, height * rows + 0.75, title)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    return figure, axes


def show_picture(axis: Axes, pixels: np.ndarray, title: str, colour: str = "black") -> None:
    """Show RGB pixels under a title, whose lines are broken where the picture's cell ends."""
    axis.imshow(pixels)
    axis.set_anchor("N")  # pictures of a row have their titles at one height, whatever their shape
    place = axis.get_subplotspec()
    columns = 1 if place is None else place.get_gridspec().ncols
    width = axis.figure.bbox.width / axis.figure.dpi / columns - _PADDING
    # Without a height of its own, a title is placed by the ticks, which takes seconds over a grid.
    title = wrap_label(title, width)
    axis.set_title(title, fontsize=SMALL_TEXT, color=colour, y=1.0)


def add_banner(figure: Figure, text: str) -> None:
    """Put a red strip with `text` at the top of a figure, above its title.

    The figure grows by the strip; its panels keep their size. For what must not be overlooked:
    a plot of synthetic images, say. Call it once, on a finished figure.
    """
    width, height = figure.get_size_inches()
    lines = _wrap(text, max(20, round(9.5 * width)))
    strip = _BANNER_LINE * (lines.count("\n") + 1) + 2 * _PADDING
    total = height + strip
    figure.set_size_inches(width, total)
    top = height / total
    figure.add_artist(
        Rectangle((0, top), 1, 1 - top, transform=figure.transFigure, color=_BANNER_COLOUR)
    )
    figure.text(
        0.5,
        (1 + top) / 2,
        lines,
        ha="center",
        va="center",
        color="white",
        weight="bold",
        fontsize=_BANNER_SIZE,
    )
    # A title with a place of its own gets no room from the layout: the panels end below it.
    title = figure.suptitle(
        figure.get_suptitle(), fontsize=_TITLE_SIZE, y=top - _PADDING / total, va="top"
    )
    below = title.get_window_extent().y0 / figure.bbox.height - _PADDING / total
    engine = figure.get_layout_engine()
    if isinstance(engine, ConstrainedLayoutEngine):
        engine.set(rect=(0, 0, 1, below))
