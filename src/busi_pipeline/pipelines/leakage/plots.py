"""Show the inflation."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from busi_pipeline.config.schemas import ModelSettings
from busi_pipeline.plotting.style import PALETTE, new_panels

from .nodes import GROUPED, RANDOM


def plot_leakage(leakage_table: pd.DataFrame, experiments: Mapping[str, ModelSettings]) -> Figure:
    """Draw every metric on both kinds of folds, and the interval of the difference.

    Args:
        leakage_table: see `summarise_leakage`.
        experiments: by name, for their titles.
    """
    metrics = list(dict.fromkeys(leakage_table["metric"]))
    keys = ["experiment", "model"]
    rows = list(dict.fromkeys(leakage_table[keys].itertuples(index=False, name=None)))
    figure, axes = new_panels(
        len(rows),
        "Leakage: out-of-fold scores with duplicates in both training and test (random folds) and "
        "without (grouped folds). In brackets the 95 % confidence interval of the difference, in "
        "percentage points",
        len(metrics),
    )
    for axis, metric in zip(axes, metrics, strict=True):
        of_metric = leakage_table[leakage_table["metric"] == metric].set_index(keys)
        for place, key in enumerate(rows):
            row = of_metric.loc[key]
            ends = [100 * row[GROUPED], 100 * row[RANDOM]]
            axis.plot(ends, [place, place], color="#999999", linewidth=2, zorder=1)
            for end, name, colour in zip(ends, (GROUPED, RANDOM), PALETTE[:2], strict=True):
                label = None if place else f"{name} folds"
                axis.scatter(end, place, color=colour, label=label, zorder=2)
            low, high = (100 * row[f"inflation_ci_{end}"] for end in ("low", "high"))
            axis.annotate(
                f"{100 * row['inflation']:+.1f} ({low:+.1f} to {high:+.1f})",
                (sum(ends) / 2, place),
                xytext=(0, 6),
                textcoords="offset points",
                ha="center",
                fontsize=8,
            )
        axis.set(title=metric, xlabel="%")
        axis.title.set_fontsize(10)
        labels = [
            f"{experiments[name].title if name in experiments else name}\n{model}"
            for name, model in rows
        ]
        axis.set_yticks(range(len(rows)), labels, fontsize=8)
        axis.margins(x=0.3, y=0.12)
        axis.grid(axis="x", alpha=0.3)
    axes[0].invert_yaxis()
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=9)
    return figure
