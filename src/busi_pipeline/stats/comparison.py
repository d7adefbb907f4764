"""Which experiment is better: every two, paired on the same images."""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import combinations
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from busi_pipeline.stats.classes import Classes
from busi_pipeline.stats.operating_point import measure_specificity
from busi_pipeline.stats.paired_tests import (
    adjust_p_values,
    bootstrap_metric,
    compare_paired,
    decide_verdict,
    delong_test,
    mcnemar_p_value,
)
from busi_pipeline.stats.scoring import Evaluation, probability_columns, select_test

logger = logging.getLogger(__name__)

COLUMNS = [
    "metric",
    "first",
    "second",
    "first_value",
    "second_value",
    "difference",
    "difference_ci_low",
    "difference_ci_high",
    "p_value",
    "p_corrected",
    "p_independent",
    "verdict",
]
_KEYS = ["repeat", "image_id"]

# Takes row positions of one table, gives its metric on them; ValueError where it has none there.
Measure: TypeAlias = Callable[[np.ndarray], float]

ACCURACY = "accuracy"
AUC = "AUC of {positive}"


def _measure_accuracy(table: pd.DataFrame, classes: Classes) -> Measure:
    correct = table["correct"].to_numpy(float)
    return lambda rows: float(correct[rows].mean())


def _measure_ranking(
    metric: Callable[[np.ndarray, np.ndarray], float],
) -> Callable[[pd.DataFrame, Classes], Measure]:
    def prepare(table: pd.DataFrame, classes: Classes) -> Measure:
        is_positive, score = _read_scores(table, classes)

        def measure(rows: np.ndarray) -> float:
            positive = is_positive[rows]
            if positive.all() or not positive.any():
                raise ValueError("positive and negative images are needed for a ranking")
            return float(metric(positive, score[rows]))

        return measure

    return prepare


def _measure_flag(of_positives: bool) -> Callable[[pd.DataFrame, Classes], Measure]:
    def prepare(table: pd.DataFrame, classes: Classes) -> Measure:
        counted = classes.is_positive(table["label"]) == of_positives
        right = (table["flagged"] == of_positives).to_numpy(float)

        def measure(rows: np.ndarray) -> float:
            shown = rows[counted[rows]]
            if not len(shown):
                raise ValueError("no image of the kind that the share is counted over")
            return float(right[shown].mean())

        return measure

    return prepare


METRICS: dict[str, Callable[[pd.DataFrame, Classes], Measure]] = {
    ACCURACY: _measure_accuracy,
    AUC: _measure_ranking(roc_auc_score),
    "specificity at 90 % sensitivity": _measure_ranking(
        partial(measure_specificity, sensitivity=0.9)
    ),
    "sensitivity of the flag": _measure_flag(True),
    "specificity of the flag": _measure_flag(False),
}


def name_metric(metric: str, classes: Classes) -> str:
    """Return the name under which one of METRICS stands in a table: `AUC of malignant`."""
    return metric.format(positive=classes.positive_name)


def compare_predictions(
    classes: Classes, evaluation: Evaluation, **predictions: pd.DataFrame | None
) -> pd.DataFrame:
    """Compare every two experiments in every one of METRICS, on the images both have scored.

    Args:
        classes: in the order of the probabilities.
        evaluation: its `n_resamples` and `seed`.
        predictions: {experiment: predictions as `scoring.apply_operating_point` returns them, with
            `repeat`}. An experiment that was not run yet (None), or on other test images than the
            first one, is left out.

    Returns one row a metric and pair: `metric`, `first`, `second`, `first_value`, `second_value`,
    `difference` with `difference_ci_low` and `difference_ci_high`, `p_value` of the bootstrap,
    `p_corrected` (Holm, over all rows of the table), `p_independent` (McNemar's test for accuracy,
    DeLong's for AUC; of the first repeat, counting images as independent) and `verdict`: the first
    is "better" or "worse" than the second, or the comparison is "inconclusive".
    No row where fewer than two experiments are left.
    """
    tables = _align(predictions)
    if len(tables) < 2:
        logger.warning("fewer than two experiments have the same test images: nothing to compare")
        return pd.DataFrame(columns=COLUMNS)
    groups = next(iter(tables.values()))["group"].tolist()
    names = list(tables)
    rows: list[dict[str, Any]] = []
    for metric, prepare in METRICS.items():
        measures = [prepare(table, classes) for table in tables.values()]
        bootstrapped = bootstrap_metric(
            partial(_measure_all, measures), groups, evaluation.n_resamples, evaluation.seed
        )
        for first, second in combinations(range(len(names)), 2):
            found = compare_paired(bootstrapped, first, second)
            rows.append(
                {
                    "metric": name_metric(metric, classes),
                    "first": names[first],
                    "second": names[second],
                    "first_value": bootstrapped.observed[first],
                    "second_value": bootstrapped.observed[second],
                    "difference": found.difference,
                    "difference_ci_low": found.low,
                    "difference_ci_high": found.high,
                    "p_value": found.p_value,
                    "p_independent": _find_independent_p(
                        metric, tables[names[first]], tables[names[second]], classes
                    ),
                }
            )
    corrected = adjust_p_values([row["p_value"] for row in rows])
    for row, p_value in zip(rows, corrected.tolist(), strict=True):
        row |= {"p_corrected": p_value, "verdict": decide_verdict(row["difference"], p_value)}
    return pd.DataFrame(rows)[COLUMNS]


def _read_scores(table: pd.DataFrame, classes: Classes) -> tuple[np.ndarray, np.ndarray]:
    """Return bool (n,) is the image positive, and float (n,) its positive score."""
    probabilities = table[probability_columns(classes)].to_numpy()
    return classes.is_positive(table["label"]), classes.positive_score(probabilities)


def _measure_all(measures: Sequence[Measure], rows: np.ndarray) -> list[float]:
    return [measure(rows) for measure in measures]


def _align(predictions: Mapping[str, pd.DataFrame | None]) -> dict[str, pd.DataFrame]:
    """Bring the tables of the same test images into one order."""
    tables: dict[str, pd.DataFrame] = {}
    for name, table in predictions.items():
        if table is None:
            continue
        test = select_test(table).sort_values(_KEYS, ignore_index=True)
        first = next(iter(tables), name)
        if first != name and not test[_KEYS].equals(tables[first][_KEYS]):
            logger.warning(
                "%s has other test images than %s and cannot be compared with it: run it again",
                name,
                first,
            )
            continue
        tables[name] = test
    return tables


def _find_independent_p(
    metric: str, first: pd.DataFrame, second: pd.DataFrame, classes: Classes
) -> float:
    once = (first["repeat"] == first["repeat"].min()).to_numpy()
    one, other = first[once], second[once]
    if metric == ACCURACY:
        return mcnemar_p_value(one["correct"].to_numpy(bool), other["correct"].to_numpy(bool))
    if metric == AUC:
        is_positive, score = _read_scores(one, classes)
        return delong_test(is_positive, score, _read_scores(other, classes)[1]).p_value
    return float("nan")
