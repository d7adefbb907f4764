"""Draws docs/figures/results.png from the table of the figures to go by in docs/results.md.

python docs/draw_results.py
"""

import re
from pathlib import Path

from matplotlib.figure import Figure

DOCS = Path(__file__).resolve().parent
MODELS = ("Ensemble", "ResNet50", "VGG16", "InceptionV3, RMSprop", "InceptionV3, AdamW")
SECTION = "## The figures to go by\n"
PANELS = ("accuracy (%)", "malignant AUC", "specificity at 90 % sensitivity (%)")


def read_figures() -> dict[str, list[tuple[float, float, float]]]:
    """Return {model: (value, low, high) of each panel}."""
    found: dict[str, list[tuple[float, float, float]]] = {}
    section = (DOCS / "results.md").read_text().partition(SECTION)[2].partition("\n## ")[0]
    for line in section.splitlines():
        cells = [cell.strip(" *") for cell in line.strip("|").split("|")]
        name = next((name for name in MODELS if cells[0].replace("*", "").startswith(name)), None)
        if name and name not in found:
            numbers = [re.findall(r"\d+\.\d+", cell) for cell in cells[1:4]]
            found[name] = [(float(v), float(low), float(high)) for v, low, high in numbers]
    return found


def draw() -> Figure:
    """Draw one panel a metric, one line a model."""
    figures = read_figures()
    figure = Figure(figsize=(11, 2.6), layout="constrained")
    for panel, axis in enumerate(figure.subplots(1, 3, sharey=True)):
        for place, name in enumerate(figures):
            value, low, high = figures[name][panel]
            colour = "#0072b2" if name == "Ensemble" else "#555555"
            axis.plot([low, high], [place, place], color=colour, linewidth=2)
            axis.plot(value, place, "o", color=colour, markersize=7)
            axis.annotate(
                f"{value:.3f}" if value < 1 else f"{value:.1f}",
                (value, place),
                xytext=(0, 6),
                textcoords="offset points",
                ha="center",
                fontsize=8,
            )
        axis.set_xlabel(PANELS[panel])
        axis.set_yticks(range(len(figures)), list(figures))
        axis.margins(y=0.18)
        axis.grid(axis="x", alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    figure.axes[0].invert_yaxis()
    figure.suptitle("BUSI, out-of-fold predictions, with 95 % intervals", fontsize=10)
    return figure


if __name__ == "__main__":
    draw().savefig(DOCS / "figures" / "results.png", dpi=150)
