"""What a model is worth at a site it has not seen: one kind of image against the other.

A site need not have every class of the model, so all that counts here is whether an image is
positive, its positive score, and whether it was flagged at the delivered threshold.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score

from busi_pipeline.stats.bootstrap import HIGH, LOW, Denominators, Trials, add_intervals
from busi_pipeline.stats.classes import Classes
from busi_pipeline.stats.decision_curve import measure_net_benefit
from busi_pipeline.stats.operating_point import (
    list_flag_denominators,
    measure_specificity,
    score_flag,
)
from busi_pipeline.stats.scoring import probability_columns

# Threshold probabilities at which the net benefit is reported: where a found positive is worth 19,
# 9, 4 and 2 false alarms.
NET_BENEFIT_AT = (0.05, 0.1, 0.2, 0.3)
_TINY = 1e-7
_FARTHEST_SHIFT = 40.0  # nats; no odds of real scores are farther off


def measure_sensitivity(is_positive: np.ndarray, score: np.ndarray, specificity: float) -> float:
    """Return the share of positives found where this share of the negatives is left alone.

    Args:
        is_positive: bool (n,).
        score: float (n,).
        specificity: above 0, at most 1.

    Raises ValueError where either kind of image is missing.
    """
    return measure_specificity(~is_positive, -score, specificity)


def measure_calibration(is_positive: np.ndarray, score: np.ndarray) -> dict[str, float]:
    """Compare positive scores, taken as probabilities, with what was observed.

    Args:
        is_positive: bool (n,), both kinds present.
        score: float (n,), 0 to 1.

    Returns
        slope: of a logistic regression of the outcome on the log odds of the score; 1 where the
            scores are as extreme as they should be, below 1 where they are too extreme.
        intercept: by which the log odds have to be shifted; above 0 where too few are expected.
        observed_expected: number of positives over the sum of the scores.
        brier: mean squared error of the scores, 0 to 1.

    Source: Van Calster et al. 2019, "Calibration: the Achilles heel of predictive analytics", BMC
    Medicine 17:230. Raises ValueError where either kind of image is missing.
    """
    odds = logit(np.clip(score, _TINY, 1 - _TINY))
    if is_positive.all() or not is_positive.any():
        raise ValueError("positive and negative images are needed to measure calibration")

    def miss(shift: float) -> float:
        return float(expit(odds + shift).sum() - is_positive.sum())

    regression = LogisticRegression(C=np.inf, max_iter=1000).fit(odds[:, None], is_positive)
    return {
        "slope": float(regression.coef_[0, 0]),
        "intercept": float(brentq(miss, -_FARTHEST_SHIFT, _FARTHEST_SHIFT)),
        "observed_expected": float(is_positive.sum() / max(score.sum(), _TINY)),
        "brier": float(((is_positive - score) ** 2).mean()),
    }


def score_site(
    table: pd.DataFrame, prevalence: float, n_resamples: int, seed: int
) -> dict[str, Any]:
    """Score one site; every share gets `_ci_low` and `_ci_high`.

    Args:
        table: one row an image or a patient: `is_positive` (bool), `positive_score` (0 to 1),
            `flagged` (bool), `group` (what is resampled as a whole).
        prevalence: share of positives where the model is to be used, for predictive values.
        n_resamples, seed: of the bootstrap.

    Returns auc, average_precision, specificity_at_90_sensitivity, sensitivity_at_90_specificity,
    `net_benefit` (see decision_curve.measure_net_benefit, at NET_BENEFIT_AT, `at_5` for 0.05, and
    the same of flagging all, `of_all_at_5`), `flag` (see operating_point.score_flag),
    `calibration` (see measure_calibration). Raises BadInputError where too few samples hold both
    kinds, ValueError where the table does not.
    """
    is_positive = table["is_positive"].to_numpy(dtype=bool)
    score = table["positive_score"].to_numpy(dtype=float)
    flagged = table["flagged"].to_numpy(dtype=bool)

    def measure(rows: np.ndarray) -> dict[str, Any]:
        truth, of_rows = is_positive[rows], score[rows]
        flag = score_flag(truth, flagged[rows], prevalence)  # first: it says what is missing
        return {
            "auc": float(roc_auc_score(truth, of_rows)),
            "average_precision": float(average_precision_score(truth, of_rows)),
            "specificity_at_90_sensitivity": measure_specificity(truth, of_rows, 0.9),
            "sensitivity_at_90_specificity": measure_sensitivity(truth, of_rows, 0.9),
            "net_benefit": _measure_net_benefit(truth, of_rows),
            "flag": flag,
            "calibration": measure_calibration(truth, of_rows),
        }

    no_share = Trials(np.ones(len(table), bool), by_percentiles=True)
    ranking = Trials(is_positive, ~is_positive)
    denominators: Denominators = {
        "auc": ranking,
        "average_precision": ranking,
        "specificity_at_90_sensitivity": Trials(~is_positive, by_percentiles=True),
        "sensitivity_at_90_specificity": Trials(is_positive, by_percentiles=True),
        "net_benefit": dict.fromkeys(_measure_net_benefit(is_positive, score), no_share),
        "flag": list_flag_denominators(is_positive, flagged, prevalence),
        "calibration": dict.fromkeys(
            ("slope", "intercept", "observed_expected", "brier"), no_share
        ),
    }
    return add_intervals(
        measure(np.arange(len(table))),
        measure,
        table["group"].tolist(),
        n_resamples,
        seed,
        denominators,
    )


def _measure_net_benefit(is_positive: np.ndarray, score: np.ndarray) -> dict[str, float]:
    thresholds = np.array(NET_BENEFIT_AT)
    of_model = measure_net_benefit(is_positive, score, thresholds)
    of_all = measure_net_benefit(is_positive, np.ones(len(score)), thresholds)
    names = [f"at_{100 * threshold:.0f}" for threshold in NET_BENEFIT_AT]
    return dict(zip(names, of_model.tolist(), strict=True)) | {
        f"of_all_{name}": value for name, value in zip(names, of_all.tolist(), strict=True)
    }


def add_positive_score(table: pd.DataFrame, classes: Classes) -> pd.DataFrame:
    """Return calibrated predictions with `is_positive` and `positive_score`, for `score_site`."""
    probabilities = table[probability_columns(classes)].to_numpy()
    return table.assign(
        is_positive=classes.is_positive(table["label"]),
        positive_score=classes.positive_score(probabilities),
    )


def gather_patients(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row a patient: what its worst image says.

    Args:
        table: as of `score_site`, with `patient` ("" where it is not known: then left out).

    A patient is positive where one image is, has the score of its highest-scored image, and is
    flagged where one image is.
    """
    known = table[table["patient"] != ""]
    patients = known.groupby("patient", sort=True).agg(
        is_positive=("is_positive", "any"),
        positive_score=("positive_score", "max"),
        flagged=("flagged", "any"),
        group=("group", "first"),
    )
    return patients.reset_index()


def score_reader(
    is_positive: np.ndarray,
    reader_positive: np.ndarray,
    score: np.ndarray,
    groups: list[str],
    n_resamples: int,
    seed: int,
) -> dict[str, Any]:
    """Score a reader's call, and the model where it is as sensitive or as specific as the reader.

    Args:
        is_positive, reader_positive: bool (n,).
        score: float (n,), the model's.
        groups, n_resamples, seed: of the bootstrap.

    Returns sensitivity, specificity of the reader, `model_specificity` at the reader's sensitivity
    and `model_sensitivity` at the reader's specificity, each with its interval. Raises ValueError
    where either kind of image is missing, or the reader calls all or none positive.
    """

    def measure(rows: np.ndarray) -> dict[str, Any]:
        truth, called, of_rows = is_positive[rows], reader_positive[rows], score[rows]
        if truth.all() or not truth.any() or not called[truth].any() or called[~truth].all():
            raise ValueError("both kinds of images are needed, and a reader who parts them")
        sensitivity, specificity = float(called[truth].mean()), float(1 - called[~truth].mean())
        return {
            "sensitivity": sensitivity,
            "specificity": specificity,
            "model_specificity": measure_specificity(truth, of_rows, sensitivity),
            "model_sensitivity": measure_sensitivity(truth, of_rows, specificity),
        }

    positives, negatives = Trials(is_positive), Trials(~is_positive)
    denominators: Denominators = {
        "sensitivity": positives,
        "specificity": negatives,
        "model_specificity": Trials(~is_positive, by_percentiles=True),
        "model_sensitivity": Trials(is_positive, by_percentiles=True),
    }
    return add_intervals(
        measure(np.arange(len(score))), measure, groups, n_resamples, seed, denominators
    )


def score_subgroups(
    table: pd.DataFrame,
    variables: Mapping[str, pd.Series],
    min_images: int,
    n_resamples: int,
    seed: int,
) -> pd.DataFrame:
    """Score each value of each variable on its own.

    Args:
        table: as of `score_site`.
        variables: {name: text (n,) in the table's order, "" where it is not known}.
        min_images: fewer positive or negative images, or groups of them, leave a figure out.
        n_resamples, seed: of the bootstrap.

    Returns one row a value (none of a variable that has one value for all): `variable`, `value`,
    `images`, `positives`, `groups`, and `auc`, `sensitivity`, `specificity` (of the flag) with
    their intervals, nan where too few images are there. Unknown values are a row of their own,
    `not known`, where some are known.
    """
    rows = []
    for name, values in variables.items():
        named = values.where(values != "", "not known")
        if len(set(named)) < 2:
            continue  # nothing is parted
        for value in sorted(set(named), key=lambda v: (v == "not known", v)):
            part = table[(named == value).to_numpy()]
            row = {
                "variable": name,
                "value": value,
                "images": len(part),
                "positives": int(part["is_positive"].sum()),
                "groups": int(part["group"].nunique()),
            }
            rows.append(row | _score_subgroup(part, min_images, n_resamples, seed))
    shares = [
        f"{name}{end}" for name in ("auc", "sensitivity", "specificity") for end in ("", LOW, HIGH)
    ]
    return pd.DataFrame(
        rows, columns=["variable", "value", "images", "positives", "groups", *shares]
    )


def _score_subgroup(
    part: pd.DataFrame, min_images: int, n_resamples: int, seed: int
) -> dict[str, float]:
    truth = part["is_positive"].to_numpy(dtype=bool)
    score, flagged = part["positive_score"].to_numpy(), part["flagged"].to_numpy(dtype=bool)
    groups = part["group"].to_numpy()
    positives, negatives = (
        rows.sum() >= min_images and len(set(groups[rows])) >= min_images
        for rows in (truth, ~truth)
    )
    measures: dict[str, tuple[Callable[[np.ndarray], float], Trials]] = {}
    if positives:
        measures["sensitivity"] = (lambda rows: _share(flagged[rows][truth[rows]]), Trials(truth))
    if negatives:
        measures["specificity"] = (
            lambda rows: _share(~flagged[rows][~truth[rows]]),
            Trials(~truth),
        )
    if positives and negatives:
        measures["auc"] = (
            lambda rows: float(roc_auc_score(truth[rows], score[rows])),
            Trials(truth, ~truth),
        )

    def measure(rows: np.ndarray) -> dict[str, float]:
        if positives and negatives and len(set(truth[rows])) < 2:
            raise ValueError("one kind of image alone")
        return {name: of_rows(rows) for name, (of_rows, _) in measures.items()}

    if not measures:
        return {}
    denominators = {name: trials for name, (_, trials) in measures.items()}
    everything = measure(np.arange(len(part)))
    return add_intervals(everything, measure, groups.tolist(), n_resamples, seed, denominators)


def _share(values: np.ndarray) -> float:
    if not len(values):
        raise ValueError("nothing to take a share of")
    return float(values.mean())
