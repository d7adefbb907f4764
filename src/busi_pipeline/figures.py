"""How the project's plots look: one palette, one colour a class."""

from collections.abc import Sequence

from matplotlib.figure import Figure

# Okabe and Ito's colours, which people with colour-vision deficiency can tell apart.
PALETTE = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000"]


def class_colours(classes: Sequence[str]) -> dict[str, str]:
    """Return one colour a class, the same in every plot."""
    return {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(classes)}


def new_figure(width: float, height: float, title: str) -> Figure:
    """Return an empty figure (inches) whose parts make room for each other.

    Not through pyplot: nodes keep no global state, and a figure nobody holds is freed.
    """
    figure = Figure(figsize=(width, height), layout="constrained", dpi=130)
    figure.suptitle(title, fontsize=12)
    return figure
