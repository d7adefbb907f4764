"""One table and one plot over the latest run of each experiment."""

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from busi_pipeline.errors import BadInputError
from busi_pipeline.figures import PALETTE, new_figure
from busi_pipeline.intervals import HIGH, LOW

logger = logging.getLogger(__name__)

OURS, REPLICATION, PUBLISHED = "this project", "published recipe, run here", "published"
SOURCES = (PUBLISHED, REPLICATION, OURS)


def compare_experiments(**metrics: Mapping[str, Any] | None) -> pd.DataFrame:
    """Put every experiment's latest test metrics in one table, published rows beside them.

    Args:
        metrics: {experiment: its metrics, or None where it was not run yet}.

    Returns one row a result: `model` (what is compared), `source`, `experiment`, `accuracy` and
    `malignant_sensitivity` as shares with their counts, `specificity` of malignant, `macro_f1`,
    `malignant_auc`, `loss`, `loss_smoothed` (as the published work has it), each with its interval
    in `<name>_ci_low` and `<name>_ci_high`, `seconds` of training, `split` (first digits of the
    split's hash: only rows with the same one compare), `split_method`, `weights`.
    What the published work does not give is empty. Raises BadInputError where none was run, or one
    by an earlier version.
    """
    runs = {name: record for name, record in metrics.items() if record is not None}
    if not runs:
        raise BadInputError(
            "nothing to compare: no experiment was run yet. Run one, for example "
            f"`kedro run --pipeline=train_{next(iter(metrics))}`."
        )
    for name in (name for name in metrics if name not in runs):
        logger.warning("%s was not run yet: `kedro run --pipeline=train_%s`", name, name)
    rows = []
    for name, record in runs.items():
        rows.append(_describe_run(name, record, runs))
        if "published" in record["experiment"]:
            rows.append(_describe_published(record["experiment"]))
    table = pd.DataFrame(rows)
    splits = set(table["split"].dropna())
    if len(splits) > 1:
        logger.warning("experiments ran on different splits (%s): compare with care", splits)
    order = {model: i for i, model in enumerate(dict.fromkeys(table["model"]))}
    keys = pd.DataFrame(
        {"model": table["model"].map(order), "source": table["source"].map(SOURCES.index)}
    )
    return table.loc[keys.sort_values(["model", "source"]).index].reset_index(drop=True)


def _describe_run(
    name: str, record: Mapping[str, Any], runs: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    experiment, test, depends_on = record["experiment"], record["test"], record["depends_on"]
    if "accuracy" + LOW not in test:
        raise BadInputError(
            f"{name} was evaluated before metrics had intervals: run it again "
            f"(`kedro run --pipeline=train_{name}`), or delete its metrics.json."
        )
    baseline_of = experiment.get("baseline_of")
    compared = runs[baseline_of]["experiment"] if baseline_of in runs else experiment
    malignant = test["malignant"]
    measured = {
        "accuracy": (test, "accuracy"),
        "malignant_sensitivity": (malignant, "sensitivity"),
        "specificity": (malignant, "specificity"),
        "macro_f1": (test, "macro_f1"),
        "malignant_auc": (malignant, "auc"),
        "loss": (test, "loss"),
        "loss_smoothed": (test, "loss_smoothed"),
    }
    return {
        "model": compared["title"],
        "source": REPLICATION if baseline_of else OURS,
        "experiment": name,
        "correct": test["correct"],
        "images": test["images"],
        "malignant_found": malignant["found"],
        "malignant_images": malignant["images"],
        **{
            column + end: scores[metric + end]
            for column, (scores, metric) in measured.items()
            for end in ("", LOW, HIGH)
        },
        "seconds": record["training_seconds"],
        "split": depends_on["split_sha256"][:12],
        "split_method": depends_on["split_method"],
        "weights": depends_on["weights"],
    }


def _describe_published(experiment: Mapping[str, Any]) -> dict[str, Any]:
    published = experiment["published"]
    return {
        "model": experiment["title"],
        "source": PUBLISHED,
        "experiment": published["source"],
        "accuracy": published["accuracy"],
        "malignant_sensitivity": published["malignant_sensitivity"],
        "loss_smoothed": published["loss"],
        "seconds": published["seconds"],
        "split_method": "random",  # as the work on BUSI that rows are compared with
    }


def draw_comparison(comparison_table: pd.DataFrame) -> Figure:
    """Draw accuracy, malignant sensitivity and training time of every row, models side by side."""
    table = comparison_table
    models = list(dict.fromkeys(table["model"]))
    sources = [source for source in SOURCES if (table["source"] == source).any()]
    colours = dict(zip(SOURCES, ("#999999", PALETTE[5], PALETTE[0]), strict=True))
    figure = new_figure(13, 1.3 * len(models) + 1.6, "Test images: every experiment's latest run")
    panels = [
        ("accuracy", "accuracy (%)", 100),
        ("malignant_sensitivity", "malignant sensitivity (%)", 100),
        ("seconds", "training time (minutes)", 1 / 60),
    ]
    height = 0.8 / len(sources)
    for axis, (column, label, unit) in zip(figure.subplots(1, 3, sharey=True), panels, strict=True):
        highest = float(np.nanmax(table[column].to_numpy(float))) * unit
        limit = 112 if unit == 100 else highest * 1.2
        for i, source in enumerate(sources):
            rows = table[table["source"] == source]
            methods = " and ".join(sorted(rows["split_method"].unique()))
            y = [models.index(m) + (i - (len(sources) - 1) / 2) * height for m in rows["model"]]
            values = rows[column].to_numpy(float) * unit
            axis.barh(
                y, values, height * 0.92, color=colours[source], label=f"{source} ({methods} split)"
            )
            for at, value in zip(y, values, strict=True):
                fits = value > 0.1 * limit
                axis.text(
                    value / 2 if fits else value + 0.01 * limit,
                    at,
                    f"{value:.1f}",
                    color="white" if fits else "black",
                    ha="center" if fits else "left",
                    va="center",
                    fontsize=8,
                )
            if column + LOW in rows:
                ends = rows[[column + LOW, column + HIGH]].to_numpy(float).T * unit
                axis.errorbar(
                    values, y, xerr=np.abs(ends - values), fmt="none", ecolor="black", capsize=2
                )
        axis.set(xlabel=label, xlim=(0, limit))
        axis.set_yticks(range(len(models)), models)
        axis.grid(axis="x", alpha=0.3)
        axis.set_axisbelow(True)
    axis.invert_yaxis()
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(sources), fontsize=9)
    return figure
