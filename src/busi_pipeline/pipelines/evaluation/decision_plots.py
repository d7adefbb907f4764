"""Plots for whoever acts on a probability: calibration, threshold, referral, net benefit."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from sklearn.calibration import calibration_curve

from busi_pipeline.config.schemas import EvaluationSettings
from busi_pipeline.plotting.style import PALETTE, new_figure
from busi_pipeline.stats.bootstrap import percentile_interval, resample_groups
from busi_pipeline.stats.classes import Classes
from busi_pipeline.stats.decision_curve import measure_net_benefit
from busi_pipeline.stats.referral import trace_risk_coverage
from busi_pipeline.stats.scoring import (
    format_number,
    format_share,
    probability_columns,
    select_test,
)

from .nodes import ON_EACH_FOLD, OUT_OF_FOLD
from .plots import describe_evaluation, name_images

_BINS = 10
# What a title says of a threshold that is not that of the images which are shown.
_OF_FOLDS = {
    ON_EACH_FOLD: " (median; each fold has its own threshold)",
    OUT_OF_FOLD: " (of the delivered model; what is counted here was flagged fold by fold)",
}
_THRESHOLDS = np.linspace(0.01, 0.6, 60)


def plot_calibration(
    predictions: pd.DataFrame, metrics: Mapping[str, Any], classes: Classes
) -> Figure:
    """Draw how often the model was right against how sure it was, before and after calibration.

    The larger a dot, the more images are in that tenth.
    """
    test = select_test(predictions)
    figure = new_figure(
        11,
        5.4,
        f"{describe_evaluation(metrics)}: calibration on {len(test)} {name_images(metrics)} "
        "(large dots: many images)",
    )
    likeliest, positive = figure.subplots(1, 2)
    errors = metrics["test"]["calibration"]
    is_positive = classes.is_positive(test["label"])
    for kind, colour in (("uncalibrated", PALETTE[1]), ("calibrated", PALETTE[0])):
        columns = probability_columns(classes, uncalibrated=kind == "uncalibrated")
        table = test[columns].to_numpy()
        right = table.argmax(axis=1) == classes.positions(test["label"])
        label = f"{kind}: expected error {format_number(errors[kind], 'error')}"
        _plot_reliability(likeliest, right, table.max(axis=1), label, colour)
        _plot_reliability(positive, is_positive, classes.positive_score(table), kind, colour)
    likeliest.set(
        title="the likeliest class",
        xlabel="its probability, mean of a tenth",
        ylabel="share of images of that class",
    )
    positive.set(
        title=f"{classes.positive_name}",
        xlabel=f"probability of {classes.positive_name}, mean of a tenth",
        ylabel=f"share of images that are {classes.positive_name}",
    )
    for axis in (likeliest, positive):
        axis.plot([0, 1], [0, 1], color="grey", linestyle=":", label="perfect")
        axis.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.05), aspect="equal")
        axis.grid(alpha=0.3)
        # A dot of the legend stands for a colour, not for a number of images.
        for handle in axis.legend(fontsize=8, loc="lower right").legend_handles:
            if isinstance(handle, PathCollection):
                handle.set_sizes([40])
    return figure


def _plot_reliability(
    axis: Axes, truth: np.ndarray, probability: np.ndarray, label: str, colour: str
) -> None:
    shares, means = calibration_curve(truth, probability, n_bins=_BINS, strategy="uniform")
    counts = np.histogram(probability, _BINS, (0, 1))[0]
    axis.plot(means, shares, color=colour, alpha=0.5)
    sizes = 8 + 350 * counts[counts > 0] / len(truth)
    axis.scatter(means, shares, s=sizes, color=colour, label=label)


def plot_decision_curve(
    predictions: pd.DataFrame,
    operating_point: Mapping[str, Any],
    metrics: Mapping[str, Any],
    evaluation: EvaluationSettings,
    classes: Classes,
) -> Figure:
    """Draw what the threshold costs, what referring the uncertain ones gains, and net benefit."""
    test = select_test(predictions)
    is_positive = classes.is_positive(test["label"])
    table = test[probability_columns(classes)].to_numpy()
    score = classes.positive_score(table)
    flag = metrics["test"]["flag"]
    point = operating_point["operating_point"]
    threshold, chosen_on = point["threshold"], point["chosen_on"]
    figure = new_figure(
        15,
        5.2,
        f"{describe_evaluation(metrics)}: {len(test)} {name_images(metrics)}. "
        f"Missed (not flagged for review): {flag['missed']} of "
        f"{flag['positives']} {classes.positive_name}. False alarms: {flag['false_alarms']} of "
        f"{flag['images'] - flag['positives']} {classes.negative_name}. Flagged from a probability "
        f"of {threshold:.3f} on" + _OF_FOLDS.get(chosen_on, ""),
    )
    operating, referral, benefit = figure.subplots(1, 3)
    grid = np.linspace(0, 1, 201)
    for name, shown, colour in (
        ("sensitivity", is_positive, PALETTE[1]),
        ("specificity", ~is_positive, PALETTE[0]),
    ):
        flagged = score[shown][None] >= grid[:, None]
        share = flagged.mean(axis=1) if name == "sensitivity" else 1 - flagged.mean(axis=1)
        operating.plot(grid, share, color=colour, label=f"{name} {format_share(flag, name)}")
    label = (
        "threshold, median over folds"
        if chosen_on == ON_EACH_FOLD
        else f"threshold, chosen on {chosen_on}"
    )
    operating.axvline(threshold, color="black", linestyle="--", label=label)
    operating.set(
        title="threshold",
        xlabel=f"probability of {classes.positive_name} from which an image is flagged",
        ylabel=f"share of {name_images(metrics)}",
        ylim=(0, 1.02),
    )
    _plot_referral(referral, test, table.max(axis=1), metrics, evaluation)
    for label, probability, colour in (
        ("model", score, PALETTE[0]),
        ("flag all", np.ones_like(score), PALETTE[1]),
    ):
        values = measure_net_benefit(is_positive, probability, _THRESHOLDS)
        benefit.plot(_THRESHOLDS, values, color=colour, label=label)
    benefit.axhline(0, color="grey", linestyle=":", label="flag none")
    benefit.set(
        title="net benefit (decision curve)",
        xlabel=f"probability of {classes.positive_name} from which one would act",
        ylabel="found per image, less weighted false alarms",
        ylim=(-0.05, is_positive.mean() * 1.1),
    )
    for axis in (operating, referral, benefit):
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    return figure


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
        100 * shares, 100 * everything, color=PALETTE[0], label="error of the likeliest class"
    )
    axis.fill_between(
        *(100 * shares, 100 * low, 100 * high), color=PALETTE[0], alpha=0.2, label="95 % interval"
    )
    axis.set(
        title="referral of the least certain images",
        xlabel=f"{name_images(metrics)} handed to a human (%)",
        ylabel="error on the images that are left (%)",
        ylim=(0, None),
    )
