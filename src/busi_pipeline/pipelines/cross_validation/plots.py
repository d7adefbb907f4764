"""The plots of an evaluation, of out-of-fold predictions."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from busi_pipeline.pipelines.evaluation.decision_plots import draw_calibration, draw_decisions
from busi_pipeline.pipelines.evaluation.plots import draw_confusion_matrix, draw_ranking_curves


def draw_fold_confusion_matrix(
    predictions: pd.DataFrame, metrics: Mapping[str, Any], classes: list[str]
) -> Figure:
    """Draw true against predicted class."""
    return draw_confusion_matrix(predictions, _describe(metrics), classes)


def draw_fold_ranking_curves(
    predictions: pd.DataFrame, metrics: Mapping[str, Any], classes: list[str]
) -> Figure:
    """Draw ROC and precision-recall curves."""
    scores = metrics["cross_validation"]
    return draw_ranking_curves(predictions, scores, _describe(metrics), classes)


def draw_fold_calibration(
    predictions: pd.DataFrame, metrics: Mapping[str, Any], classes: list[str]
) -> Figure:
    """Draw how often the networks were right against how sure they were."""
    scores = metrics["cross_validation"]
    return draw_calibration(predictions, scores, _describe(metrics), classes)


def draw_fold_decisions(
    predictions: pd.DataFrame,
    metrics: Mapping[str, Any],
    judging: Mapping[str, Any],
    classes: list[str],
) -> Figure:
    """Draw threshold, referral and net benefit; the line is the median of the folds' thresholds."""
    decision = {"decision": {"threshold": float(predictions["threshold"].median())}}
    scores = metrics["cross_validation"]
    described = {"title": _describe(metrics)["title"] + " (a threshold a fold; drawn: the median)"}
    return draw_decisions(predictions, decision, scores, described, judging, classes)


def _describe(metrics: Mapping[str, Any]) -> dict[str, str]:
    scores = metrics["cross_validation"]
    repeats, judgements = scores["repeats"], scores["test"]["images"]
    title = f"{metrics['title']}, {scores['folds']}-fold cross-validation"
    if repeats > 1:  # or three judgements of an image would pass for three images
        title += f", each of {judgements // repeats} images judged {repeats} times"
    return {"title": title}
