"""What a table of probabilities is worth: the project's metrics, by scikit-learn."""

from typing import Any

import numpy as np
from sklearn import config_context
from sklearn.metrics import average_precision_score, roc_auc_score

from busi_pipeline.errors import BadInputError
from busi_pipeline.stats.bootstrap import Denominators, Derived, Trials
from busi_pipeline.stats.classes import Classes
from busi_pipeline.stats.operating_point import measure_specificity


def mean_log_loss(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the cross-entropy in nats.

    Args:
        labels: int (n,), class positions.
        probabilities: float64 (n, classes).

    It is scikit-learn's `log_loss`, without its check that rows sum to 1 to 1e-8, which the
    float32 probabilities of a network do not.
    """
    of_label = probabilities[np.arange(len(labels)), labels]
    tiny = np.finfo(probabilities.dtype).eps
    return float(-np.log(np.clip(of_label, tiny, 1 - tiny)).mean())


def brier_score(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the mean squared error of the probabilities, 0 to 2, summed over the classes.

    Args: see mean_log_loss. It is scikit-learn's `brier_score_loss(scale_by_half=False)`, without
    the check that mean_log_loss leaves out as well.
    """
    targets = np.eye(probabilities.shape[1])[labels]
    return float(((targets - probabilities) ** 2).sum(axis=1).mean())


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
    labels: np.ndarray, probabilities: np.ndarray, classes: Classes
) -> dict[str, Any]:
    """Score probabilities against labels.

    Args:
        labels: int (n,), class positions; every class must occur.
        probabilities: float (n, classes), rows sum to 1. The class with the highest is predicted.
        classes: in the order of the columns.

    Returns a dictionary of plain numbers:
        images, correct: counts; accuracy, balanced_accuracy, macro_f1, macro_auc: shares.
        loss: cross-entropy in nats; loss_smoothed: the same with label smoothing 0.1, which is what
            the published work reports as its test loss.
        <class>: one against the rest: sensitivity, specificity, precision, f1, auc (ROC),
            average_precision, specificity_at_90_sensitivity (at the threshold that finds nine in
            ten of these very images: to compare models by, not to be expected of one), and the
            counts images, found, missed, false_alarms, all by the likeliest class.
        positive: the same for the positive classes against the others. An image is found where its
            likeliest class is a positive one; auc and the like are those of the positive score.

    Raises BadInputError where a class does not occur: its sensitivity would be a made-up number.
    """
    absent = [name for i, name in enumerate(classes) if not (labels == i).any()]
    if absent:
        raise BadInputError(
            f"no image of class {absent} among the {len(labels)} to be scored. Give each part of "
            "the split images of every class."
        )
    predicted = probabilities.argmax(axis=1)
    of_class: dict[str, dict[str, Any]] = {}
    with config_context(assume_finite=True, skip_parameter_validation=True):
        for i, name in enumerate(classes):
            of_class[name] = _score_against_rest(labels == i, predicted == i, probabilities[:, i])
        if len(classes.positive) == 1:
            positive = dict(of_class[classes.positive[0]])
        else:
            positive = _score_against_rest(
                _among_positive(labels, classes),
                _among_positive(predicted, classes),
                classes.positive_score(probabilities),
            )

    def average(metric: str) -> float:
        return _mean(*(scores[metric] for scores in of_class.values()))

    return {
        "images": len(labels),
        "correct": int((predicted == labels).sum()),
        "accuracy": float((predicted == labels).mean()),
        "balanced_accuracy": average("sensitivity"),
        "macro_f1": average("f1"),
        "macro_auc": average("auc"),
        "loss": mean_log_loss(labels, probabilities),
        "loss_smoothed": smoothed_log_loss(labels, probabilities, 0.1),
        **of_class,
        "positive": positive,
    }


def list_classification_denominators(
    labels: np.ndarray, probabilities: np.ndarray, classes: Classes
) -> Denominators:
    """Return what each share of score_classification, of the same arguments, is counted over.

    A mean over the classes is counted over no rows of its own: its bounds are the means of the
    classes' bounds.
    """
    predicted = probabilities.argmax(axis=1)
    rows = np.ones(len(labels), bool)
    no_share = Trials(rows, by_percentiles=True)

    def average(metric: str) -> Derived:
        return Derived(tuple((name, metric) for name in classes), _mean)

    return {
        "accuracy": Trials(rows),
        "balanced_accuracy": average("sensitivity"),
        "macro_f1": average("f1"),
        "macro_auc": average("auc"),
        "loss": no_share,
        "loss_smoothed": no_share,
        **{
            name: _list_denominators_against_rest(labels == i, predicted == i)
            for i, name in enumerate(classes)
        },
        "positive": _list_denominators_against_rest(
            _among_positive(labels, classes), _among_positive(predicted, classes)
        ),
    }


def _score_against_rest(
    is_class: np.ndarray, predicted: np.ndarray, score: np.ndarray
) -> dict[str, Any]:
    """Score one kind of image against the rest; all (n,), both kinds present."""
    found = int((is_class & predicted).sum())
    missed = int((is_class & ~predicted).sum())
    false_alarms = int((~is_class & predicted).sum())
    rejected = len(is_class) - found - missed - false_alarms
    return {
        "sensitivity": found / (found + missed),
        "specificity": rejected / (rejected + false_alarms),
        "precision": found / max(1, found + false_alarms),
        "f1": 2 * found / (2 * found + missed + false_alarms),
        "auc": float(roc_auc_score(is_class, score)),
        "average_precision": float(average_precision_score(is_class, score)),
        "specificity_at_90_sensitivity": measure_specificity(is_class, score, 0.9),
        "images": found + missed,
        "found": found,
        "missed": missed,
        "false_alarms": false_alarms,
    }


def _list_denominators_against_rest(is_class: np.ndarray, predicted: np.ndarray) -> Denominators:
    ranking = Trials(is_class, ~is_class)
    return {
        "sensitivity": Trials(is_class),
        "specificity": Trials(~is_class),
        "precision": Trials(predicted),
        "f1": Derived(("sensitivity", "precision"), _harmonic_mean),
        "auc": ranking,
        "average_precision": ranking,
        "specificity_at_90_sensitivity": Trials(~is_class, by_percentiles=True),
    }


def _among_positive(positions: np.ndarray, classes: Classes) -> np.ndarray:
    return np.isin(positions, [classes.index(name) for name in classes.positive])


def _mean(*values: float) -> float:
    return float(np.mean(values))


def _harmonic_mean(first: float, second: float) -> float:
    return 2 * first * second / (first + second) if first + second else 0.0
