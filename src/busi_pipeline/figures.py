"""How the project's plots look: one palette, one colour a class."""

from collections.abc import Sequence
from textwrap import fill

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's colours, which people with colour-vision deficiency can tell apart.
PALETTE = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000"]


def class_colours(classes: Sequence[str]) -> dict[str, str]:
    """Return one colour a class, the same in every plot."""
    return {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(classes)}


def new_panels(rows: int, title: str, panels: int) -> tuple[Figure, list[Axes]]:
    """Return a figure of panels that share the `rows` of their y axis, three beside each other.

    For a page of a report: wider, its letters would be too small there.
    """
    lines = -(-panels // 3)
    figure = new_figure(13, lines * (0.36 * rows + 1.1) + 0.8, title)
    axes = list(figure.subplots(lines, 3, sharey=True, squeeze=False).ravel())
    for axis in axes[panels:]:
        axis.remove()
    return figure, axes[:panels]


def new_figure(width: float, height: float, title: str) -> Figure:
    """Return an empty figure (inches) whose parts make room for each other.

    Not through pyplot: nodes keep no global state, and a figure nobody holds is freed.
    """
    figure = Figure(figsize=(width, height), layout="constrained", dpi=130)
    figure.suptitle(fill(title, max(30, round(10.5 * width))), fontsize=12)
    return figure


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
    """Show RGB pixels under a title of up to two lines."""
    axis.imshow(pixels)
    # Without a height of its own, a title is placed by the ticks, which takes seconds over a grid.
    axis.set_title(title, fontsize=8, color=colour, y=1.0)
