"""Everything that is measured on a table of predictions, with its intervals."""

from collections.abc import Mapping
from typing import Any, NamedTuple, get_args

import numpy as np
import pandas as pd
from sklearn.metrics import brier_score_loss

from busi_pipeline.calibration import (
    Calibration,
    apply_calibration,
    fit_calibration,
    measure_calibration_error,
)
from busi_pipeline.decisions import ThresholdRule, choose_operating_point, score_decisions
from busi_pipeline.errors import BadInputError
from busi_pipeline.intervals import HIGH, LOW, add_intervals
from busi_pipeline.labels import find_positions
from busi_pipeline.metrics import score_classification

CANCER = "malignant"


class Decision(NamedTuple):
    """What is chosen on validation images and goes with the model.

    Attributes:
        calibration: see calibration.fit_calibration.
        threshold: calibrated probability of `malignant` from which an image is flagged.
        expected_sensitivity: see decisions.OperatingPoint.
    """

    calibration: Calibration
    threshold: float
    expected_sensitivity: float

    def describe(self) -> dict[str, Any]:
        """Return `temperature`, `offsets`, `threshold` and `expected_sensitivity`, for files and
        for MLflow.
        """
        temperature, offsets = self.calibration
        return {
            "temperature": temperature,
            "offsets": list(offsets),
            "threshold": self.threshold,
            "expected_sensitivity": self.expected_sensitivity,
        }


def probability_columns(classes: list[str], raw: bool = False) -> list[str]:
    """Return the names of the columns of probabilities; `raw` before calibration."""
    return [f"{'raw' if raw else 'p'}_{name}" for name in classes]


def select_test(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the test images."""
    return predictions[predictions["split"] == "test"]


def choose_decision(
    predictions: pd.DataFrame, classes: list[str], judging: Mapping[str, Any]
) -> Decision:
    """Fit the calibration, then choose the threshold that has the sensitivity by the rule.

    Args:
        predictions: of validation images alone: `label` and the raw probabilities.
        classes: in the order of the probabilities.
        judging: `target_sensitivity` of the flag for `malignant`, above 0 and at most 1, and the
            `threshold_rule` by which it is meant, see decisions.choose_operating_point.

    Raises BadInputError for another rule.
    """
    rule = judging["threshold_rule"]
    if rule not in get_args(ThresholdRule):
        raise BadInputError(
            f"judging.threshold_rule must be one of {list(get_args(ThresholdRule))}; got {rule!r}."
        )
    raw = predictions[probability_columns(classes, raw=True)].to_numpy()
    calibration = fit_calibration(find_positions(predictions["label"], classes), raw)
    score = apply_calibration(raw, calibration)[:, classes.index(CANCER)]
    is_cancer = (predictions["label"] == CANCER).to_numpy()
    return Decision(
        calibration,
        *choose_operating_point(is_cancer, score, judging["target_sensitivity"], rule),
    )


def has_enough_cancers(decision: Decision, judging: Mapping[str, Any]) -> bool:
    """Tell whether there were enough cancers for the target to be promised, where it is to be."""
    return (
        judging["threshold_rule"] != "conformal"
        or decision.expected_sensitivity >= judging["target_sensitivity"]
    )


def apply_decision(
    predictions: pd.DataFrame, decision: Decision, classes: list[str]
) -> pd.DataFrame:
    """Return the table with calibrated `p_<class>`, `predicted`, `correct` and `flagged`.

    `flagged` tells whether the probability of `malignant` is at the threshold or above: what is
    done about the image. `predicted` is the likeliest class.
    """
    raw = predictions[probability_columns(classes, raw=True)].to_numpy()
    calibrated = apply_calibration(raw, decision.calibration)
    table = predictions.copy()
    table["predicted"] = np.array(classes)[calibrated.argmax(axis=1)]
    table["correct"] = table["predicted"] == table["label"]
    table["flagged"] = calibrated[:, classes.index(CANCER)] >= decision.threshold
    table[probability_columns(classes)] = calibrated
    return table


def score_predictions_with_intervals(
    predictions: pd.DataFrame, classes: list[str], judging: Mapping[str, Any]
) -> dict[str, Any]:
    """Score a table of predictions; every share gets `_ci_low` and `_ci_high`.

    Args:
        predictions: as `apply_decision` returns it, with a column `group`; one row an image.
        classes: in the order of the probabilities.
        judging: `draws` and `seed` of the bootstrap over groups, `prevalence` of cancer for the
            predictive values.

    Returns what `metrics.score_classification` does, and
        calibration: expected calibration error and Brier score (mean squared error of the
            probabilities, 0 to 2), `raw` and `calibrated`.
        decision: see decisions.score_decisions.
    """
    labels = find_positions(predictions["label"], classes)
    calibrated = predictions[probability_columns(classes)].to_numpy()
    raw = predictions[probability_columns(classes, raw=True)].to_numpy()
    is_cancer = (predictions["label"] == CANCER).to_numpy()
    flagged = predictions["flagged"].to_numpy(dtype=bool)

    def score(rows: np.ndarray) -> dict[str, Any]:
        before, after = (_score_probabilities(labels[rows], p[rows]) for p in (raw, calibrated))
        return score_classification(labels[rows], calibrated[rows], classes) | {
            "calibration": {"raw": before, "calibrated": after},
            "decision": score_decisions(is_cancer[rows], flagged[rows], judging["prevalence"]),
        }

    everything = score(np.arange(len(predictions)))
    groups = predictions["group"].tolist()
    return add_intervals(everything, score, groups, judging["draws"], judging["seed"])


def _score_probabilities(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    predicted = probabilities.argmax(axis=1)
    return {
        "error": measure_calibration_error(predicted == labels, probabilities.max(axis=1)),
        "brier": float(
            brier_score_loss(
                labels,
                probabilities,
                labels=list(range(probabilities.shape[1])),
                scale_by_half=False,
            )
        ),
    }


def tell_number(scores: Mapping[str, Any], name: str) -> str:
    """Return a number with its interval, as `0.872 (0.729 to 0.974)`; a dash for none."""
    return _tell(scores, name, 1, ".3f", "")


def tell_share(scores: Mapping[str, Any], name: str) -> str:
    """Return a share with its interval, as `85.5 % (78.6 to 91.5)`; a dash for none."""
    return _tell(scores, name, 100, ".1f", " %")


def _tell(scores: Mapping[str, Any], name: str, unit: float, form: str, sign: str) -> str:
    value, low, high = (scores[name + end] for end in ("", LOW, HIGH))
    if np.isnan(value):
        return "–"
    return f"{value * unit:{form}}{sign} ({low * unit:{form}} to {high * unit:{form}})"
