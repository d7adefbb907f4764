"""What a table of probabilities is worth: the project's metrics, by scikit-learn."""

from typing import Any

import numpy as np
from sklearn import config_context
from sklearn.metrics import (
    average_precision_score,
    log_loss,
    multilabel_confusion_matrix,
    roc_auc_score,
)

from busi_pipeline.decisions import measure_specificity


def smoothed_log_loss(labels: np.ndarray, probabilities: np.ndarray, smoothing: float) -> float:
    """Cross-entropy in nats against smoothed labels, as Keras' CategoricalCrossentropy has it.

    Args:
        labels: int (n,), class positions.
        probabilities: float (n, classes).
        smoothing: share of each label spread evenly over all classes.
    """
    classes = probabilities.shape[1]
    targets = np.eye(classes)[labels] * (1 - smoothing) + smoothing / classes
    logs = np.log(np.clip(probabilities, 1e-7, 1.0))
    return float(-(targets * logs).sum(axis=1).mean())


def score_classification(
    labels: np.ndarray, probabilities: np.ndarray, classes: list[str]
) -> dict[str, Any]:
    """Score probabilities against labels.

    Args:
        labels: int (n,), class positions; every class must occur.
        probabilities: float (n, classes), rows sum to 1. The class with the highest is predicted.
        classes: names, in the order of the columns.

    Returns a dictionary of plain numbers:
        images, correct: counts; accuracy, balanced_accuracy, macro_f1, macro_auc: shares.
        loss: cross-entropy in nats; loss_smoothed: the same with label smoothing 0.1, which is what
            the published work reports as its test loss.
        <class>: one against the rest: sensitivity, specificity, precision, f1, auc (ROC),
            average_precision, specificity_at_90_sensitivity (at the threshold that finds nine in
            ten of these very images: to compare models by, not to be expected of one), and the
            counts images, found, missed, false_alarms.

    Raises ValueError where a class does not occur: its sensitivity would be a made-up number.
    """
    absent = [name for i, name in enumerate(classes) if not (labels == i).any()]
    if absent:
        raise ValueError(f"no image of class {absent} among the {len(labels)} to be scored")
    predicted = probabilities.argmax(axis=1)
    positions = list(range(len(classes)))
    of_class: dict[str, dict[str, Any]] = {}
    with config_context(assume_finite=True, skip_parameter_validation=True):
        tables = multilabel_confusion_matrix(labels, predicted, labels=positions)
        for i, (name, ((rejected, false_alarms), (missed, found))) in enumerate(
            zip(classes, tables, strict=True)
        ):
            is_class = labels == i
            of_class[name] = {
                "sensitivity": found / (found + missed),
                "specificity": rejected / (rejected + false_alarms),
                "precision": found / max(1, found + false_alarms),
                "f1": 2 * found / (2 * found + missed + false_alarms),
                "auc": roc_auc_score(is_class, probabilities[:, i]),
                "average_precision": average_precision_score(is_class, probabilities[:, i]),
                "specificity_at_90_sensitivity": measure_specificity(
                    is_class, probabilities[:, i], 0.9
                ),
                "images": found + missed,
                "found": found,
                "missed": missed,
                "false_alarms": false_alarms,
            }
        loss = log_loss(labels, probabilities, labels=positions)

    def average(metric: str) -> float:
        return float(np.mean([scores[metric] for scores in of_class.values()]))

    overall = {
        "images": len(labels),
        "correct": int((predicted == labels).sum()),
        "accuracy": (predicted == labels).mean(),
        "balanced_accuracy": average("sensitivity"),
        "macro_f1": average("f1"),
        "macro_auc": average("auc"),
        "loss": loss,
        "loss_smoothed": smoothed_log_loss(labels, probabilities, 0.1),
    }
    return {key: _to_plain(value) for key, value in (overall | of_class).items()}


def _to_plain(value: Any) -> Any:
    """NumPy numbers to Python's, which JSON can hold."""
    if isinstance(value, dict):
        return {key: _to_plain(inner) for key, inner in value.items()}
    return value.item() if isinstance(value, np.generic) else value
