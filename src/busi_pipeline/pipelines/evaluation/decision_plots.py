"""Plots for whoever acts on a probability: calibration, threshold, referral, net benefit."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from busi_pipeline.config.schemas import EvaluationSettings
from busi_pipeline.plotting.curves import (
    draw_flag,
    draw_net_benefit,
    draw_reliability,
    format_percent,
    format_threshold,
    list_bins,
    list_thresholds,
    mark_threshold,
    put_legend_below,
    scale_thresholds,
    stretch_small_probabilities,
)
from busi_pipeline.plotting.style import FLAG_STYLE, PAGE_WIDTH, PALETTE, new_figure
from busi_pipeline.stats.bootstrap import HIGH, LOW, percentile_interval, resample_groups
from busi_pipeline.stats.classes import Classes
from busi_pipeline.stats.decision_curve import measure_net_benefit
from busi_pipeline.stats.referral import trace_risk_coverage
from busi_pipeline.stats.reliability import measure_reliability
from busi_pipeline.stats.scoring import (
    format_number,
    format_share,
    probability_columns,
    select_test,
)

from .nodes import ON_EACH_FOLD, ON_VALIDATION, OUT_OF_FOLD
from .plots import describe_evaluation, name_images

# Whose a threshold is, in a legend.
_THRESHOLD_OF = {
    ON_VALIDATION: "threshold",
    ON_EACH_FOLD: "median of the folds' thresholds,",
    OUT_OF_FOLD: "threshold of the delivered model,",
}

# What is drawn of the bins.
_DRAWN = {
    "uncalibrated": ("predicted", "observed"),
    "calibrated": ("predicted", f"observed{LOW}"),
}


def plot_calibration(
    predictions: pd.DataFrame,
    metrics: Mapping[str, Any],
    evaluation: EvaluationSettings,
    classes: Classes,
) -> Figure:
    """Draw observed share against predicted probability, in bins of equally many images.

    On the left of the likeliest class, on the right of the positive classes, on axes on which small
    probabilities can be seen. Below are the numbers of the calibrated curve.
    """
    test = select_test(predictions)
    errors = metrics["test"]["calibration"]
    figure = new_figure(
        PAGE_WIDTH,
        7.3,
        f"{describe_evaluation(metrics)}: calibration on {len(test)} {name_images(metrics)}. "
        "A point below the dotted line: the probability is too high",
    )
    grid = figure.subplots(2, 2, height_ratios=(5, 1))
    is_positive = classes.is_positive(test["label"])
    resampling = test["group"].tolist(), evaluation.n_resamples, evaluation.seed
    found: dict[str, list[pd.DataFrame]] = {}
    for kind in ("uncalibrated", "calibrated"):
        columns = probability_columns(classes, uncalibrated=kind == "uncalibrated")
        table = test[columns].to_numpy()
        right = table.argmax(axis=1) == classes.positions(test["label"])
        found[kind] = [
            measure_reliability(right, table.max(axis=1), *resampling),
            measure_reliability(is_positive, classes.positive_score(table), *resampling),
        ]
    (likeliest, positive), tables = grid
    for axis, below, bins, small in zip(
        (likeliest, positive), tables, found["calibrated"], found["uncalibrated"], strict=True
    ):
        label = f"calibrated: {len(bins)} groups of equally many images, 95 % intervals"
        draw_reliability(axis, bins, label, PALETTE[0], small)
        list_bins(below, bins)
    lowest = min(
        float(bins[name].min())
        for kind, names in _DRAWN.items()
        for bins in [found[kind][0]]
        for name in names
    )
    lowest = np.floor(10 * lowest - 0.1) / 10
    likeliest.set(
        title="The likeliest class; expected calibration error, over ten bins of equal width:\n"
        + "\n".join(
            f"{name} calibration {format_number(errors[kind], 'error')}"
            for kind, name in (("uncalibrated", "before"), ("calibrated", "after"))
        ),
        xlabel="predicted probability of the likeliest class",
        ylabel="observed frequency: share of images of that class",
        xlim=(lowest, 1.02),
        ylim=(lowest, 1.02),
    )
    positive.set(
        title=f"{classes.positive_name}\n"
        f"{is_positive.sum()} of {len(test)} {name_images(metrics)}\n"
        "(axes stretched near 0, where most images lie)",
        xlabel=f"predicted probability of {classes.positive_name} (%)",
        ylabel=f"observed frequency of {classes.positive_name} (%)",
    )
    stretch_small_probabilities(
        positive,
        max(
            found["uncalibrated"][1][["predicted", "observed"]].max().max(),
            found["calibrated"][1][["predicted", f"observed{HIGH}"]].max().max(),
        ),
    )
    for axis in (likeliest, positive):
        put_legend_below(axis)
    return figure


def plot_decision_curve(
    predictions: pd.DataFrame,
    operating_point: Mapping[str, Any],
    metrics: Mapping[str, Any],
    evaluation: EvaluationSettings,
    classes: Classes,
) -> Figure:
    """Draw what each threshold costs, what the flag does, net benefit, and what referral gains.

    The curves show one threshold for all images. The flag of a cross-validation has a threshold in
    each fold, so its figures have a panel of their own, in which nothing else is drawn.
    """
    test = select_test(predictions)
    is_positive = classes.is_positive(test["label"])
    table = test[probability_columns(classes)].to_numpy()
    score = classes.positive_score(table)
    flag = metrics["test"]["flag"]
    point = operating_point["operating_point"]
    threshold, whose = point["threshold"], _THRESHOLD_OF[point["chosen_on"]]
    figure = new_figure(
        PAGE_WIDTH,
        10.6,
        f"{describe_evaluation(metrics)}: {len(test)} {name_images(metrics)}. "
        f"Missed (not flagged for review): {flag['missed']} of "
        f"{flag['positives']} {classes.positive_name}. False alarms: {flag['false_alarms']} of "
        f"{flag['images'] - flag['positives']} {classes.negative_name}",
    )
    (operating, figures), (benefit, referral) = figure.subplots(2, 2)
    thresholds = list_thresholds(score, threshold)
    _plot_thresholds(operating, is_positive, score, thresholds, test, flag, point)
    operating.set(
        title="one threshold for all images" if _has_folds(test) else "threshold",
        xlabel=f"probability of {classes.positive_name} from which an image is flagged",
        ylabel=f"share of {name_images(metrics)}",
        ylim=(0, 1.04),
    )
    one_kind = len(classes.positive) == 1
    draw_flag(
        figures,
        flag,
        {name: format_share(flag, name) for name in ("sensitivity", "specificity", "ppv", "npv")},
        {
            "positive": classes.positive_name,
            "negative": classes.negative_name if one_kind else "the others",
            "title": "the flag, by the threshold of each fold"
            if _has_folds(test)
            else f"the flag, from a probability of {format_threshold(threshold)} on",
        },
    )
    draw_net_benefit(
        benefit,
        thresholds,
        lambda at: (
            measure_net_benefit(is_positive, score, at),
            measure_net_benefit(is_positive, np.ones_like(score), at),
        ),
        threshold,
        float(is_positive.mean()),
        {
            "positive": classes.positive_name,
            "threshold": whose,
            "images": name_images(metrics),
        },
    )
    _plot_referral(referral, test, table.max(axis=1), metrics, evaluation)
    for axis in (operating, benefit, referral):
        axis.grid(alpha=0.3)
        put_legend_below(axis)
    return figure


def _has_folds(test: pd.DataFrame) -> bool:
    return bool(test["threshold"].nunique() > 1)


def _plot_thresholds(
    axis: Axes,
    is_positive: np.ndarray,
    score: np.ndarray,
    thresholds: np.ndarray,
    test: pd.DataFrame,
    flag: Mapping[str, Any],
    point: Mapping[str, Any],
) -> None:
    """Draw sensitivity and specificity of every threshold, and mark the one that was chosen."""
    threshold, whose = point["threshold"], _THRESHOLD_OF[point["chosen_on"]]
    place = mark_threshold(axis, threshold, thresholds, f"{whose} {format_threshold(threshold)}")
    for name, shown, colour in (
        ("sensitivity", is_positive, PALETTE[1]),
        ("specificity", ~is_positive, PALETTE[0]),
    ):
        flagged = (score[shown][None] >= thresholds[:, None]).mean(axis=1)
        share = flagged if name == "sensitivity" else 1 - flagged
        # Only where all images have this threshold is the flag a point of the curve.
        label = name if _has_folds(test) else f"{name}, at the threshold {format_share(flag, name)}"
        axis.plot(thresholds, share, color=colour, label=label)
        if not _has_folds(test):
            axis.plot(place, flag[name], **FLAG_STYLE)
    if _has_folds(test):
        of_folds = np.clip(test["threshold"].unique(), thresholds[0], 1)
        axis.plot(
            of_folds,
            np.full(len(of_folds), 0.02),
            "|",
            color="black",
            markersize=12,
            label=f"thresholds of the {len(of_folds)} folds",
        )
    scale_thresholds(axis, thresholds)


def _plot_referral(
    axis: Axes,
    test: pd.DataFrame,
    confidence: np.ndarray,
    metrics: Mapping[str, Any],
    evaluation: EvaluationSettings,
) -> None:
    """Draw error against the share handed to a human, with the bootstrap interval over groups."""
    correct = test["correct"].to_numpy(dtype=bool)
    shares = np.linspace(0, 0.9, 46)

    def follow(rows: np.ndarray) -> np.ndarray:
        curve = trace_risk_coverage(correct[rows], confidence[rows])
        return np.interp(1 - shares, curve.coverage, curve.error)

    rows = resample_groups(test["group"].tolist(), evaluation.n_resamples, evaluation.seed)
    resampled = np.array([follow(sample) for sample in rows])
    low, high = np.array([percentile_interval(column) for column in resampled.T]).T
    everything = follow(np.arange(len(test)))
    axis.plot(
        100 * shares,
        100 * everything,
        color=PALETTE[0],
        label=f"error of the likeliest class; of all images {format_percent(everything[0])} %",
    )
    axis.fill_between(
        *(100 * shares, 100 * low, 100 * high), color=PALETTE[0], alpha=0.2, label="95 % interval"
    )
    axis.set(
        title="referral of the least certain images",
        xlabel=f"{name_images(metrics)} handed to a human (%)",
        ylabel="error on the images that are left (%)",
        # Without an error, the line must not pass for the axis.
        ylim=(-0.02, 1.05 * max(1.0, 100 * float(high.max()))),
    )
