"""What a table of probabilities is worth: the project's metrics, all from scikit-learn."""

from typing import Any

import numpy as np
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    f1_score,
    log_loss,
    multilabel_confusion_matrix,
    precision_recall_fscore_support,
    roc_auc_score,
)


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
            average_precision, and the counts images, found, missed, false_alarms.

    Raises ValueError where a class does not occur: its sensitivity would be a made-up number.
    """
    absent = [name for i, name in enumerate(classes) if not (labels == i).any()]
    if absent:
        raise ValueError(f"no image of class {absent} among the {len(labels)} to be scored")
    predicted = probabilities.argmax(axis=1)
    positions = list(range(len(classes)))
    precision, _, f1, _ = precision_recall_fscore_support(
        labels, predicted, labels=positions, zero_division=0
    )
    scores: dict[str, Any] = {
        "images": len(labels),
        "correct": int((predicted == labels).sum()),
        "accuracy": accuracy_score(labels, predicted),
        "balanced_accuracy": balanced_accuracy_score(labels, predicted),
        "macro_f1": f1_score(labels, predicted, average="macro", zero_division=0),
        "macro_auc": roc_auc_score(labels, probabilities, multi_class="ovr", labels=positions),
        "loss": log_loss(labels, probabilities, labels=positions),
        "loss_smoothed": smoothed_log_loss(labels, probabilities, 0.1),
    }
    tables = multilabel_confusion_matrix(labels, predicted, labels=positions)
    for i, (name, ((rejected, false_alarms), (missed, found))) in enumerate(
        zip(classes, tables, strict=True)
    ):
        is_class = labels == i
        scores[name] = {
            "sensitivity": found / (found + missed),
            "specificity": rejected / (rejected + false_alarms),
            "precision": precision[i],
            "f1": f1[i],
            "auc": roc_auc_score(is_class, probabilities[:, i]),
            "average_precision": average_precision_score(is_class, probabilities[:, i]),
            "images": found + missed,
            "found": found,
            "missed": missed,
            "false_alarms": false_alarms,
        }
    return {key: _to_plain(value) for key, value in scores.items()}


def _to_plain(value: Any) -> Any:
    """NumPy numbers to Python's, which JSON can hold."""
    if isinstance(value, dict):
        return {key: _to_plain(inner) for key, inner in value.items()}
    return value.item() if isinstance(value, np.generic) else value
