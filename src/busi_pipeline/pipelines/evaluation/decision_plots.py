"""Plots for whoever has to act on a probability: calibration, threshold, referral, net benefit."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from sklearn.calibration import calibration_curve

from busi_pipeline.decisions import measure_net_benefit, trace_risk_coverage
from busi_pipeline.figures import PALETTE, new_figure
from busi_pipeline.intervals import draw_groups, find_interval
from busi_pipeline.judging import CANCER, probability_columns, select_test, tell_number, tell_share

_BINS = 10
_THRESHOLDS = np.linspace(0.01, 0.6, 60)


def draw_calibration(
    predictions: pd.DataFrame,
    metrics: Mapping[str, Any],
    settings: Mapping[str, Any],
    classes: list[str],
) -> Figure:
    """Draw how often the model was right against how sure it was, before and after calibration.

    The larger a dot, the more images are in that tenth.
    """
    test = select_test(predictions)
    figure = new_figure(
        11,
        5.4,
        f"{settings['title']}: is a probability what it says? {len(test)} test images "
        "(large dots: many images)",
    )
    sure, cancer = figure.subplots(1, 2)
    errors = metrics["test"]["calibration"]
    for kind, colour in (("raw", PALETTE[1]), ("calibrated", PALETTE[0])):
        table = test[probability_columns(classes, raw=kind == "raw")].to_numpy()
        right = np.array(classes)[table.argmax(axis=1)] == test["label"].to_numpy()
        told = f"{kind}: expected error {tell_number(errors[kind], 'error')}"
        _draw_reliability(sure, right, table.max(axis=1), told, colour)
        is_cancer = (test["label"] == CANCER).to_numpy()
        _draw_reliability(cancer, is_cancer, table[:, classes.index(CANCER)], kind, colour)
    sure.set(
        title="the class that is named",
        xlabel="its probability, mean of a tenth",
        ylabel="share that was right",
    )
    cancer.set(
        title=f"the probability of {CANCER}",
        xlabel="mean of a tenth",
        ylabel="share that was cancer",
    )
    for axis in (sure, cancer):
        axis.plot([0, 1], [0, 1], color="grey", linestyle=":", label="perfect")
        axis.set(xlim=(0, 1), ylim=(0, 1.02), aspect="equal")
        axis.grid(alpha=0.3)
        # A dot of the legend stands for a colour, not for a number of images.
        for handle in axis.legend(fontsize=8, loc="lower right").legend_handles:
            if isinstance(handle, PathCollection):
                handle.set_sizes([40])
    return figure


def _draw_reliability(
    axis: Axes, truth: np.ndarray, probability: np.ndarray, label: str, colour: str
) -> None:
    shares, means = calibration_curve(truth, probability, n_bins=_BINS, strategy="uniform")
    counts = np.histogram(probability, _BINS, (0, 1))[0]
    axis.plot(means, shares, color=colour, alpha=0.5)
    axis.scatter(means, shares, s=8 + 3 * counts[counts > 0], color=colour, label=label)


def draw_decisions(
    predictions: pd.DataFrame,
    decision: Mapping[str, Any],
    metrics: Mapping[str, Any],
    settings: Mapping[str, Any],
    judging: Mapping[str, Any],
    classes: list[str],
) -> Figure:
    """Draw what the threshold costs, what referring the uncertain ones gains, and net benefit."""
    test = select_test(predictions)
    is_cancer = (test["label"] == CANCER).to_numpy()
    score = test[f"p_{CANCER}"].to_numpy()
    scores = metrics["test"]["decision"]
    threshold = decision["decision"]["threshold"]
    others = scores["images"] - scores["cancers"]
    figure = new_figure(
        15,
        5.2,
        f"{settings['title']}: {scores['missed_cancers']} of {scores['cancers']} cancers missed, "
        f"{scores['false_alarms']} false alarms among {others} others "
        f"(test images, flagged from a probability of {threshold:.3f} on)",
    )
    operating, referral, benefit = figure.subplots(1, 3)
    grid = np.linspace(0, 1, 201)
    for name, shown, colour in (
        ("sensitivity", is_cancer, PALETTE[1]),
        ("specificity", ~is_cancer, PALETTE[0]),
    ):
        flagged = score[shown][None] >= grid[:, None]
        share = flagged.mean(axis=1) if name == "sensitivity" else 1 - flagged.mean(axis=1)
        operating.plot(grid, share, color=colour, label=f"{name} {tell_share(scores, name)}")
    operating.axvline(threshold, color="black", linestyle="--", label="threshold (validation)")
    operating.set(
        title="the threshold", xlabel=f"probability of {CANCER} from which an image is flagged"
    )
    operating.set(ylabel="share of test images", ylim=(0, 1.02))
    confidence = test[probability_columns(classes)].to_numpy().max(axis=1)
    _draw_referral(referral, test, confidence, judging)
    for label, probability, colour in (
        ("model", score, PALETTE[0]),
        ("refer all", np.ones_like(score), PALETTE[1]),
    ):
        values = measure_net_benefit(is_cancer, probability, _THRESHOLDS)
        benefit.plot(_THRESHOLDS, values, color=colour, label=label)
    benefit.axhline(0, color="grey", linestyle=":", label="refer none")
    benefit.set(
        title="net benefit",
        xlabel="probability from which one would refer",
        ylabel="cancers found per image, less false alarms at that rate",
        ylim=(-0.05, is_cancer.mean() * 1.1),
    )
    for axis in (operating, referral, benefit):
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    return figure


def _draw_referral(
    axis: Axes, test: pd.DataFrame, confidence: np.ndarray, judging: Mapping[str, Any]
) -> None:
    """Draw error against the share handed on, with the interval from groups drawn anew."""
    correct = test["correct"].to_numpy(dtype=bool)
    shares = np.linspace(0, 0.9, 46)

    def follow(rows: np.ndarray) -> np.ndarray:
        curve = trace_risk_coverage(correct[rows], confidence[rows])
        return np.interp(1 - shares, curve.coverage, curve.error)

    rows = draw_groups(test["group"].tolist(), judging["draws"], judging["seed"])
    drawn = np.array([follow(sample) for sample in rows])
    low, high = np.array([find_interval(column) for column in drawn.T]).T
    everything = follow(np.arange(len(test)))
    axis.plot(100 * shares, 100 * everything, color=PALETTE[0], label="error on the rest")
    axis.fill_between(100 * shares, 100 * low, 100 * high, color=PALETTE[0], alpha=0.2)
    axis.set(
        title="referral",
        xlabel="test images handed to a human, the least certain first (%)",
        ylabel="error on the images that are left (%)",
        ylim=(0, None),
    )
