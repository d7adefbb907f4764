"""Show the comparison: every experiment's latest run, and their paired differences."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from busi_pipeline.config.experiments import ENSEMBLE
from busi_pipeline.config.schemas import EnsembleSettings, ModelSettings
from busi_pipeline.plotting.style import (
    PAGE_WIDTH,
    PALETTE,
    SMALL_TEXT,
    NothingToShow,
    new_figure,
    new_panels,
    wrap_label,
)
from busi_pipeline.stats.bootstrap import HIGH, LOW
from busi_pipeline.stats.classes import Classes
from busi_pipeline.stats.paired_tests import BETTER, INCONCLUSIVE, WORSE

from .nodes import SOURCES

_VERDICT_COLOURS = {BETTER: PALETTE[2], WORSE: PALETTE[1], INCONCLUSIVE: "#777777"}


def plot_model_comparison(comparison_table: pd.DataFrame, classes: Classes) -> Figure:
    """Draw accuracy, sensitivity and training time of every result, models side by side."""
    table = comparison_table
    models = list(dict.fromkeys(table["model"]))
    sources = [source for source in SOURCES if (table["source"] == source).any()]
    colours = dict(zip(SOURCES, ("#999999", PALETTE[5], PALETTE[0]), strict=True))
    figure = new_figure(
        PAGE_WIDTH,
        (0.3 * len(sources) + 0.3) * len(models) + 1.8,
        "Test images: latest run of every experiment, with 95 % confidence intervals",
    )
    panels = [
        ("accuracy", "accuracy (%)", 100),
        ("positive_sensitivity", f"{classes.positive_name} classified as such (%)", 100),
        ("seconds", "training time (minutes)", 1 / 60),
    ]
    height = 0.8 / len(sources)
    for axis, (column, label, unit) in zip(figure.subplots(1, 3, sharey=True), panels, strict=True):
        highest = float(np.nanmax(table[column].to_numpy(float))) * unit
        limit = 112 if unit == 100 else max(highest * 1.2, 1e-3)
        for i, source in enumerate(sources):
            rows = table[table["source"] == source]
            methods = " and ".join(sorted(rows["split_method"].unique()))
            y = [models.index(m) + (i - (len(sources) - 1) / 2) * height for m in rows["model"]]
            values = rows[column].to_numpy(float) * unit
            axis.barh(
                y, values, height * 0.92, color=colours[source], label=f"{source} ({methods} split)"
            )
            for place, value in zip(y, values, strict=True):
                if np.isnan(value):
                    continue
                fits = value > 0.1 * limit
                axis.text(
                    value / 2 if fits else value + 0.01 * limit,
                    place,
                    f"{value:.1f}",
                    color="white" if fits else "black",
                    ha="center" if fits else "left",
                    va="center",
                    fontsize=SMALL_TEXT,
                )
            if column + LOW in rows:
                ends = rows[[column + LOW, column + HIGH]].to_numpy(float).T * unit
                axis.errorbar(
                    values, y, xerr=np.abs(ends - values), fmt="none", ecolor="black", capsize=2
                )
        axis.set(xlabel=label, xlim=(0, limit))
        axis.set_yticks(
            range(len(models)), [wrap_label(name, 1.6, 10) for name in models], fontsize=10
        )
        axis.grid(axis="x", alpha=0.3)
        axis.set_axisbelow(True)
    axis.invert_yaxis()
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(sources), fontsize=9)
    return figure


def plot_pairwise_comparisons(
    pairwise_comparisons: pd.DataFrame,
    experiments: Mapping[str, ModelSettings],
    ensemble: EnsembleSettings,
) -> Figure | NothingToShow:
    """Draw the difference of every pair with its interval, one panel a metric.

    Args:
        pairwise_comparisons: see stats.comparison.compare_predictions; may be empty.
        experiments: by name, for their titles.
        ensemble: likewise.
    """
    table = pairwise_comparisons
    metrics = list(dict.fromkeys(table["metric"]))
    if not metrics:
        return NothingToShow(
            "Fewer than two experiments predicted the same images: there is nothing to compare."
        )
    titles = {name: settings.title for name, settings in experiments.items()}
    titles[ENSEMBLE] = ensemble.title
    figure, axes = new_panels(
        len(table) // len(metrics),
        "Paired on the same images: how far the first is above the second, with 95 % confidence "
        "intervals; verdicts are corrected for all comparisons (Holm)",
        len(metrics),
    )
    for axis, metric in zip(axes, metrics, strict=True):
        unit = 1 if metric.startswith("AUC") else 100  # an AUC has no unit; the others are shares
        rows = table[table["metric"] == metric].reset_index(drop=True)
        for place, row in enumerate(rows.to_dict("records")):
            colour = _VERDICT_COLOURS[row["verdict"]]
            ends = [row["difference_ci_low"], row["difference_ci_high"]]
            axis.plot([unit * end for end in ends], [place, place], color=colour, linewidth=2)
            axis.plot(unit * row["difference"], place, "o", color=colour)
        axis.axvline(0, color="black", linewidth=0.8)
        axis.xaxis.set_major_locator(MaxNLocator(4))
        axis.set(
            title=wrap_label(metric, 2.8, 10),
            xlabel="difference of the AUC" if unit == 1 else "difference (percentage points)",
        )
        axis.title.set_fontsize(10)
        axis.set_yticks(
            range(len(rows)),
            [
                f"{titles.get(first, first)}\nvs {titles.get(second, second)}"
                for first, second in zip(rows["first"], rows["second"], strict=True)
            ],
            fontsize=SMALL_TEXT,
        )
        axis.grid(axis="x", alpha=0.3)
    axes[0].invert_yaxis()
    handles = [
        axes[0].plot([], [], "o-", color=colour, label=label)[0]
        for label, colour in (
            ("first is better", _VERDICT_COLOURS[BETTER]),
            ("first is worse", _VERDICT_COLOURS[WORSE]),
            (INCONCLUSIVE, _VERDICT_COLOURS[INCONCLUSIVE]),
        )
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=9)
    return figure
