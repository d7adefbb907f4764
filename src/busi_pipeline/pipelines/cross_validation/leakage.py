"""What copies of training images among the test images are worth: the same recipe, both ways."""

import logging
from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from busi_pipeline.figures import PALETTE, new_panels
from busi_pipeline.judging import CANCER
from busi_pipeline.pairing import correct_for_many
from busi_pipeline.pipelines.comparison.pairs import ACCURACY, compare_rows

from .folds import Folds, assign_folds

logger = logging.getLogger(__name__)

RANDOM, GROUPED = "random", "grouped"
FINE_TUNED, PROBE = "fine-tuned", "frozen probe"


def assign_random_folds(
    manifest: pd.DataFrame,
    image_groups: pd.DataFrame,
    split: Mapping[str, Any],
    cross_validation: Mapping[str, Any],
) -> Folds:
    """Deal the same images blind to copies, once: see `assign_folds`."""
    return assign_folds(
        manifest,
        image_groups,
        {**split, "method": RANDOM},
        {**cross_validation, "repeats": 1},
    )


def measure_leakage(
    grouped: pd.DataFrame,
    grouped_probe: pd.DataFrame,
    random: pd.DataFrame,
    random_probe: pd.DataFrame,
    judging: Mapping[str, Any],
) -> pd.DataFrame:
    """Compare out-of-fold predictions of random folds with those of grouped ones, image by image.

    Args:
        grouped, grouped_probe: of the recipe and its frozen probe; the first repeat is used.
        random, random_probe: likewise, copies parted.
        judging: `draws` and `seed` of the bootstrap over groups.

    Returns one row a metric and model: `model` ("fine-tuned" or "frozen probe"), `metric`,
    `random`, `grouped`, `inflation` (random less grouped) with `inflation_ci_low`,
    `inflation_ci_high`, and `p_value`.
    """
    tables = []
    for model, parted, together in (
        (FINE_TUNED, random, grouped),
        (PROBE, random_probe, grouped_probe),
    ):
        once = together[together["repeat"] == 1]
        found = compare_rows(judging, random=parted, grouped=once)
        named = found.rename(
            columns={"first_value": RANDOM, "second_value": GROUPED}
            | {
                c: c.replace("difference", "inflation")
                for c in map(str, found)
                if "difference" in c
            }
        )
        tables.append(named.assign(model=model))
    return pd.concat(tables, ignore_index=True)[
        [
            "model",
            "metric",
            RANDOM,
            GROUPED,
            "inflation",
            "inflation_ci_low",
            "inflation_ci_high",
            "p_value",
        ]
    ]


def report_leakage(**leakage: pd.DataFrame) -> pd.DataFrame:
    """Put the rows of all experiments together: column `experiment` first, `p_corrected` (Holm,
    over all of them) last."""
    table = pd.concat(
        [one.assign(experiment=name) for name, one in leakage.items()], ignore_index=True
    )
    table["p_corrected"] = correct_for_many(table["p_value"].tolist())
    shares = [RANDOM, GROUPED, "inflation", "inflation_ci_low", "inflation_ci_high"]
    for row in table[table["metric"] == ACCURACY].to_dict("records"):
        logger.info(
            "%s, %s: accuracy %.1f %% where copies are parted, %.1f %% where they are not; "
            "inflation %.1f points (%.1f to %.1f)",
            row["experiment"],
            row["model"],
            *(100 * row[name] for name in shares),
        )
    return table[["experiment", *(c for c in table if c != "experiment")]]


def draw_leakage(leakage_report: pd.DataFrame) -> Figure:
    """Draw every metric under both ways of dealing, and the interval of what lies between."""
    table = leakage_report
    metrics = list(dict.fromkeys(table["metric"]))
    rows = list(dict.fromkeys(zip(table["experiment"], table["model"], strict=True)))
    figure, axes = new_panels(
        len(rows),
        "What copies are worth: out-of-fold scores with copies in training and test (random folds) "
        "and without (grouped folds)",
        len(metrics),
    )
    for axis, metric in zip(axes, metrics, strict=True):
        of_metric = table[table["metric"] == metric].set_index(["experiment", "model"])
        for place, key in enumerate(rows):
            row = of_metric.loc[key]
            ends = [100 * row[GROUPED], 100 * row[RANDOM]]
            axis.plot(ends, [place, place], color="#999999", linewidth=2, zorder=1)
            axis.scatter(ends[0], place, color=PALETTE[0], label=None if place else GROUPED)
            axis.scatter(ends[1], place, color=PALETTE[1], label=None if place else RANDOM)
            low, high = (100 * row[f"inflation_ci_{end}"] for end in ("low", "high"))
            axis.annotate(
                f"{100 * row['inflation']:+.1f} ({low:+.1f} to {high:+.1f})",
                (sum(ends) / 2, place),
                xytext=(0, 6),
                textcoords="offset points",
                ha="center",
                fontsize=8,
            )
        axis.set(title=metric.replace(CANCER, "cancer"), xlabel="%")
        axis.title.set_fontsize(10)
        axis.set_yticks(range(len(rows)), [f"{name}, {model}" for name, model in rows])
        axis.margins(x=0.3, y=0.12)
        axis.grid(axis="x", alpha=0.3)
    axes[0].invert_yaxis()
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=9)
    return figure
