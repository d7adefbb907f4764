"""Show the inflation."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from busi_pipeline.config.schemas import ModelSettings
from busi_pipeline.plotting.style import PALETTE, SMALL_TEXT, new_panels, wrap_label

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
        "without (grouped folds). Above each line the difference and its 95 % confidence interval",
        len(metrics),
    )
    for axis, metric in zip(axes, metrics, strict=True):
        # An AUC has no unit; the others are shares.
        unit, digits = (1, 3) if metric.startswith("AUC") else (100, 1)
        of_metric = leakage_table[leakage_table["metric"] == metric].set_index(keys)
        for place, key in enumerate(rows):
            row = of_metric.loc[key]
            ends = [unit * row[GROUPED], unit * row[RANDOM]]
            axis.plot(ends, [place, place], color="#999999", linewidth=2, zorder=1)
            for end, name, colour in zip(ends, (GROUPED, RANDOM), PALETTE[:2], strict=True):
                label = None if place else f"{name} folds"
                axis.scatter(end, place, color=colour, label=label, zorder=2)
            found = [unit * row[f"inflation{end}"] for end in ("", "_ci_low", "_ci_high")]
            axis.annotate(
                "{} ({} to {})".format(*(f"{value:+.{digits}f}" for value in found)),
                (0.5, place),
                xycoords=axis.get_yaxis_transform(),
                xytext=(0, 6),
                textcoords="offset points",
                ha="center",
                fontsize=SMALL_TEXT,
            )
        axis.set(
            title=wrap_label(metric, 2.8, 10),
            xlabel="AUC (0.5: chance, 1: perfect)"
            if unit == 1
            else "%; the difference in percentage points",
        )
        axis.title.set_fontsize(10)
        labels = [
            f"{experiments[name].title if name in experiments else name}\n{model}"
            for name, model in rows
        ]
        axis.set_yticks(range(len(rows)), labels, fontsize=SMALL_TEXT)
        axis.xaxis.set_major_locator(MaxNLocator(5))
        axis.margins(x=0.15, y=0.12)
        axis.grid(axis="x", alpha=0.3)
    axes[0].invert_yaxis()
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=9)
    return figure
