"""Which is better: experiments paired on the same images."""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from sklearn.metrics import roc_auc_score

from busi_pipeline.decisions import measure_specificity
from busi_pipeline.figures import PALETTE, new_figure, new_panels
from busi_pipeline.judging import CANCER, select_test
from busi_pipeline.pairing import (
    BETTER,
    CANNOT_TELL,
    WORSE,
    compare_auc,
    compare_paired,
    correct_for_many,
    draw_metric,
    find_mcnemar_p,
    judge,
)

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
_COLOURS = {BETTER: PALETTE[2], WORSE: PALETTE[1], CANNOT_TELL: "#777777"}

ACCURACY, AUC = "accuracy", "malignant AUC"


def _measure_accuracy(table: pd.DataFrame) -> Callable[[np.ndarray], float]:
    correct = table["correct"].to_numpy(float)
    return lambda rows: correct[rows].mean()


def _measure_ranking(
    metric: Callable[[np.ndarray, np.ndarray], float],
) -> Callable[[pd.DataFrame], Callable[[np.ndarray], float]]:
    def prepare(table: pd.DataFrame) -> Callable[[np.ndarray], float]:
        is_cancer = (table["label"] == CANCER).to_numpy()
        score = table[f"p_{CANCER}"].to_numpy()
        return lambda rows: metric(is_cancer[rows], score[rows])

    return prepare


def _measure_flag(of_cancers: bool) -> Callable[[pd.DataFrame], Callable[[np.ndarray], float]]:
    def prepare(table: pd.DataFrame) -> Callable[[np.ndarray], float]:
        judged = ((table["label"] == CANCER) == of_cancers).to_numpy()
        right = (table["flagged"] == of_cancers).to_numpy(float)
        return lambda rows: right[rows][judged[rows]].mean()

    return prepare


METRICS: dict[str, Callable[[pd.DataFrame], Callable[[np.ndarray], float]]] = {
    ACCURACY: _measure_accuracy,
    AUC: _measure_ranking(roc_auc_score),
    "specificity at 90 % sensitivity": _measure_ranking(
        partial(measure_specificity, sensitivity=0.9)
    ),
    "sensitivity of the flag": _measure_flag(True),
    "specificity of the flag": _measure_flag(False),
}


def compare_rows(judging: Mapping[str, Any], **predictions: pd.DataFrame | None) -> pd.DataFrame:
    """Compare every two experiments in every one of METRICS, on the images both have judged.

    Args:
        judging: `draws` and `seed` of the bootstrap over groups.
        predictions: {experiment: test predictions as `judging.apply_decision` returns them}; with a
            column `repeat`, if images are judged more than once. Where it was not run yet (None),
            or on other images than the first one, it is left out.

    Returns one row a metric and pair: `metric`, `first`, `second`, `first_value`, `second_value`,
    `difference` with `difference_ci_low` and `difference_ci_high`, `p_value` of the bootstrap,
    `p_corrected` (Holm, over all rows of the table), `p_independent` (McNemar's test for accuracy,
    DeLong's for AUC; of the first repeat, counting images as independent) and `verdict`: is the
    first "better" or "worse" than the second, or can one not tell?
    No row where fewer than two are left.
    """
    tables = _align(predictions)
    if len(tables) < 2:
        logger.warning("fewer than two experiments judged the same images: nothing to pair")
        return pd.DataFrame(columns=COLUMNS)
    groups = next(iter(tables.values()))["group"].tolist()
    names = list(tables)
    draws = {name: judging[name] for name in ("draws", "seed")}
    rows: list[dict[str, Any]] = []
    for metric, prepare in METRICS.items():
        measures = [prepare(table) for table in tables.values()]
        drawn = draw_metric(partial(_measure_all, measures), groups, **draws)
        for first, second in combinations(range(len(names)), 2):
            found = compare_paired(drawn, first, second)
            rows.append(
                {
                    "metric": metric,
                    "first": names[first],
                    "second": names[second],
                    "first_value": drawn.observed[first],
                    "second_value": drawn.observed[second],
                    "difference": found.difference,
                    "difference_ci_low": found.low,
                    "difference_ci_high": found.high,
                    "p_value": found.p_value,
                    "p_independent": _find_independent_p(
                        metric, tables[names[first]], tables[names[second]]
                    ),
                }
            )
    corrected = correct_for_many([row["p_value"] for row in rows])
    for row, p_value in zip(rows, corrected.tolist(), strict=True):
        row |= {"p_corrected": p_value, "verdict": judge(row["difference"], p_value)}
    return pd.DataFrame(rows)[COLUMNS]


def _measure_all(
    measures: Sequence[Callable[[np.ndarray], float]], rows: np.ndarray
) -> list[float]:
    return [measure(rows) for measure in measures]


def _align(predictions: Mapping[str, pd.DataFrame | None]) -> dict[str, pd.DataFrame]:
    """Bring the tables of the same test images into one order."""
    tables: dict[str, pd.DataFrame] = {}
    for name, table in predictions.items():
        if table is None:
            continue
        test = select_test(table)
        test = test if "repeat" in test else test.assign(repeat=1)
        test = test.sort_values(_KEYS, ignore_index=True)
        first = next(iter(tables), name)
        if first != name and not test[_KEYS].equals(tables[first][_KEYS]):
            logger.warning(
                "%s judged other test images than %s and cannot be paired with it: run it again",
                name,
                first,
            )
            continue
        tables[name] = test
    return tables


def _find_independent_p(metric: str, first: pd.DataFrame, second: pd.DataFrame) -> float:
    once = (first["repeat"] == first["repeat"].min()).to_numpy()
    one, other = first[once], second[once]
    if metric == ACCURACY:
        return find_mcnemar_p(one["correct"].to_numpy(bool), other["correct"].to_numpy(bool))
    if metric == AUC:
        is_cancer = (one["label"] == CANCER).to_numpy()
        scores = (table[f"p_{CANCER}"].to_numpy() for table in (one, other))
        return compare_auc(is_cancer, *scores).p_value
    return float("nan")


def draw_pairs(pairs: pd.DataFrame) -> Figure:
    """Draw the difference of every pair with its interval, one panel a metric."""
    metrics = list(dict.fromkeys(pairs["metric"]))
    if not metrics:
        return new_figure(6, 1, "Fewer than two experiments judged the same images")
    per_metric = len(pairs) // len(metrics)
    figure, axes = new_panels(
        per_metric,
        "Paired on the same images: the first less the second, with 95 % intervals; "
        "verdicts corrected for all comparisons (Holm)",
        len(metrics),
    )
    for axis, metric in zip(axes, metrics, strict=True):
        rows = pairs[pairs["metric"] == metric].reset_index(drop=True)
        for place, row in rows.iterrows():
            colour = _COLOURS[row["verdict"]]
            ends = [row["difference_ci_low"], row["difference_ci_high"]]
            axis.plot([100 * end for end in ends], [place, place], color=colour, linewidth=2)
            axis.plot(100 * row["difference"], place, "o", color=colour)
        axis.axvline(0, color="black", linewidth=0.8)
        axis.set(title=metric, xlabel="difference (percentage points)")
        axis.title.set_fontsize(10)
        axis.set_yticks(
            range(len(rows)),
            [f"{a} - {b}" for a, b in zip(rows["first"], rows["second"], strict=True)],
        )
        axis.grid(axis="x", alpha=0.3)
    axes[0].invert_yaxis()
    handles = [
        axes[0].plot([], [], "o-", color=colour, label=f"the first is {verdict}")[0]
        if verdict != CANNOT_TELL
        else axes[0].plot([], [], "o-", color=colour, label=verdict)[0]
        for verdict, colour in _COLOURS.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=9)
    return figure
