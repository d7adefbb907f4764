"""Everything that is measured on a table of predictions, with its intervals."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd

from busi_pipeline.errors import BadInputError
from busi_pipeline.stats.bootstrap import HIGH, LOW, Denominators, Trials, add_intervals
from busi_pipeline.stats.calibration import (
    Calibration,
    apply_calibration,
    fit_calibration,
    measure_calibration_error,
)
from busi_pipeline.stats.classes import Classes
from busi_pipeline.stats.metrics import (
    brier_score,
    list_classification_denominators,
    score_classification,
)
from busi_pipeline.stats.operating_point import (
    ThresholdRule,
    choose_threshold_by_rule,
    list_flag_denominators,
    score_flag,
)


class Evaluation(Protocol):
    """The settings that scoring reads.

    Attributes:
        target_sensitivity: of the flag on positive images, above 0 and at most 1.
        threshold_rule: by which it is meant, see operating_point.choose_threshold_by_rule.
        prevalence: share of positives where the model is to be used, between 0 and 1.
        n_resamples, seed: of the bootstrap over groups.
    """

    @property
    def target_sensitivity(self) -> float: ...
    @property
    def threshold_rule(self) -> ThresholdRule: ...
    @property
    def prevalence(self) -> float: ...
    @property
    def n_resamples(self) -> int: ...
    @property
    def seed(self) -> int: ...


@dataclass(frozen=True)
class OperatingPoint:
    """What is chosen on validation images and goes with the model.

    Attributes:
        calibration: see calibration.fit_calibration.
        threshold: calibrated positive score from which an image is flagged for review.
        expected_sensitivity: see operating_point.ChosenThreshold.
        threshold_given_lesion: the same of the score given a lesion, chosen on the images that show
            one; None where every class does, or all of these are positive.
    """

    calibration: Calibration
    threshold: float
    expected_sensitivity: float
    threshold_given_lesion: float | None = None

    def describe(self) -> dict[str, Any]:
        """Return `temperature`, `offsets`, `threshold` and `expected_sensitivity`, for files and
        for MLflow; `threshold_given_lesion` where there is one.
        """
        temperature, offsets = self.calibration
        described = {
            "temperature": temperature,
            "offsets": list(offsets),
            "threshold": self.threshold,
            "expected_sensitivity": self.expected_sensitivity,
        }
        if self.threshold_given_lesion is not None:
            described["threshold_given_lesion"] = self.threshold_given_lesion
        return described


def probability_columns(classes: Classes, uncalibrated: bool = False) -> list[str]:
    """Return the names of the columns of probabilities, after or before calibration."""
    return [f"{'uncalibrated' if uncalibrated else 'p'}_{name}" for name in classes]


def select_test(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the test images."""
    return predictions[predictions["split"] == "test"]


def describe_target(evaluation: Evaluation, classes: Classes) -> dict[str, Any]:
    """Return what an operating point is chosen for, for files beside what it is."""
    return {
        "target_sensitivity": evaluation.target_sensitivity,
        "threshold_rule": evaluation.threshold_rule,
        "positive_classes": list(classes.positive),
        "lesion_free_classes": list(classes.lesion_free),
    }


def fit_operating_point(
    predictions: pd.DataFrame,
    classes: Classes,
    evaluation: Evaluation,
    fit: Callable[[np.ndarray, np.ndarray], Calibration] = fit_calibration,
) -> OperatingPoint:
    """Fit the calibration, then choose the threshold that has the sensitivity by the rule.

    Args:
        predictions: of validation images alone: `label` and the uncalibrated probabilities.
        classes: in the order of the probabilities.
        evaluation: its `target_sensitivity` and `threshold_rule`.
        fit: takes class positions and probabilities, returns the calibration.

    Raises BadInputError where no image is positive.
    """
    is_positive = classes.is_positive(predictions["label"])
    if not is_positive.any():
        raise BadInputError(
            f"none of the {len(predictions)} validation images is {classes.positive_name}: nothing "
            "to choose a threshold on. Give the validation part more images."
        )
    uncalibrated = predictions[probability_columns(classes, uncalibrated=True)].to_numpy()
    calibration = fit(classes.positions(predictions["label"]), uncalibrated)
    calibrated = apply_calibration(uncalibrated, calibration)
    rule = evaluation.target_sensitivity, evaluation.threshold_rule
    chosen = choose_threshold_by_rule(is_positive, classes.positive_score(calibrated), *rule)
    given_lesion = None
    has_lesion = classes.has_lesion(predictions["label"])
    if classes.lesion_free and not is_positive[has_lesion].all():
        score = classes.positive_score(classes.given_lesion(calibrated))[has_lesion]
        given_lesion = choose_threshold_by_rule(is_positive[has_lesion], score, *rule).threshold
    return OperatingPoint(calibration, chosen.threshold, chosen.expected_sensitivity, given_lesion)


def can_promise_target(operating_point: OperatingPoint, evaluation: Evaluation) -> bool:
    """Were there enough positives to promise the target, where the rule is to promise it?

    Equal to rounding counts as reached: 99 positives promise 1 - 7 / 100, which is 0.93.
    """
    return (
        evaluation.threshold_rule != "conformal"
        or operating_point.expected_sensitivity >= evaluation.target_sensitivity - 1e-9
    )


def apply_operating_point(
    predictions: pd.DataFrame, operating_point: OperatingPoint, classes: Classes
) -> pd.DataFrame:
    """Return the table with calibrated `p_<class>`, `predicted`, `correct` and `flagged`.

    `predicted` is the likeliest class. `flagged` says that the image is flagged for review: its
    positive score is at the threshold or above.
    """
    uncalibrated = predictions[probability_columns(classes, uncalibrated=True)].to_numpy()
    calibrated = apply_calibration(uncalibrated, operating_point.calibration)
    table = predictions.copy()
    table[probability_columns(classes)] = calibrated
    table["predicted"] = np.array(classes.names)[calibrated.argmax(axis=1)]
    table["correct"] = table["predicted"] == table["label"]
    table["flagged"] = classes.positive_score(calibrated) >= operating_point.threshold
    return table


def score_predictions(
    predictions: pd.DataFrame, classes: Classes, evaluation: Evaluation
) -> dict[str, Any]:
    """Score a table of predictions; every share gets `_ci_low` and `_ci_high`.

    Args:
        predictions: as `apply_operating_point` returns it, with a column `group`; a row an image.
        classes: in the order of the probabilities.
        evaluation: its `n_resamples`, `seed` and `prevalence`.

    Returns what `metrics.score_classification` does, and
        calibration: expected calibration error and Brier score (mean squared error of the
            probabilities, 0 to 2), `uncalibrated` and `calibrated`.
        flag: see operating_point.score_flag.

    Raises BadInputError where a class does not occur, or in too few resamples.
    """
    labels = classes.positions(predictions["label"])
    calibrated = predictions[probability_columns(classes)].to_numpy()
    uncalibrated = predictions[probability_columns(classes, uncalibrated=True)].to_numpy()
    is_positive = classes.is_positive(predictions["label"])
    flagged = predictions["flagged"].to_numpy(dtype=bool)
    prevalence = evaluation.prevalence

    def score(rows: np.ndarray) -> dict[str, Any]:
        return score_classification(labels[rows], calibrated[rows], classes) | {
            "calibration": {
                "uncalibrated": _score_probabilities(labels[rows], uncalibrated[rows]),
                "calibrated": _score_probabilities(labels[rows], calibrated[rows]),
            },
            "flag": score_flag(is_positive[rows], flagged[rows], prevalence),
        }

    no_share = Trials(np.ones(len(predictions), bool), by_percentiles=True)
    of_probabilities: Denominators = {"error": no_share, "brier": no_share}
    denominators: Denominators = {
        **list_classification_denominators(labels, calibrated, classes),
        "calibration": {"uncalibrated": of_probabilities, "calibrated": of_probabilities},
        "flag": list_flag_denominators(is_positive, flagged, prevalence),
    }
    return add_intervals(
        score(np.arange(len(predictions))),
        score,
        predictions["group"].tolist(),
        evaluation.n_resamples,
        evaluation.seed,
        denominators,
    )


def _score_probabilities(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    correct = probabilities.argmax(axis=1) == labels
    return {
        "error": measure_calibration_error(correct, probabilities.max(axis=1)),
        "brier": brier_score(labels, probabilities),
    }


def ranks_like_chance(scores: Mapping[str, Any]) -> bool:
    """Return whether the interval of the AUC of the positive classes holds 0.5, or lies below it.

    Args:
        scores: as `score_predictions` returns.
    """
    return bool(scores["positive"]["auc" + LOW] <= 0.5)


def say_chance(scores: Mapping[str, Any], classes: Classes) -> str:
    """Return what it means that a model ranks like chance, in one sentence."""
    return (
        f"it is not shown that {classes.positive_name} is ranked better than by chance, AUC "
        f"{format_number(scores['positive'], 'auc')}: labels that do not belong to their images "
        "look like this, and so do images that are too few"
    )


def format_number(scores: Mapping[str, Any], name: str) -> str:
    """Return a number with its interval, as `0.872 (0.729 to 0.974)`; a dash for none."""
    return _format_interval(scores, name, 1, ".3f", "")


def format_share(scores: Mapping[str, Any], name: str) -> str:
    """Return a share with its interval, as `85.5 % (78.6 to 91.5)`; a dash for none."""
    return _format_interval(scores, name, 100, ".1f", " %")


def _format_interval(
    scores: Mapping[str, Any], name: str, unit: float, form: str, sign: str
) -> str:
    value, low, high = (scores[name + end] for end in ("", LOW, HIGH))
    if np.isnan(value):
        return "–"
    return f"{value * unit:{form}}{sign} ({low * unit:{form}} to {high * unit:{form}})"
