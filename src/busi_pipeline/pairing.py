"""Two classifiers on the same images: is one better, or can nobody tell?"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import binomtest, norm, rankdata

from busi_pipeline.intervals import draw_groups, find_interval

BETTER, WORSE, CANNOT_TELL = "better", "worse", "cannot tell"


class Difference(NamedTuple):
    """A metric of one classifier less that of the other, with its interval and p-value."""

    difference: float
    low: float
    high: float
    p_value: float


class Drawn(NamedTuple):
    """A metric of k classifiers: `observed` float (k,), and in `samples` float (draws, k)."""

    observed: np.ndarray
    samples: np.ndarray


def draw_metric(
    measure: Callable[[np.ndarray], Sequence[float]], groups: Sequence[str], draws: int, seed: int
) -> Drawn:
    """Measure a metric of several classifiers on all images and on samples of groups of them.

    Args:
        measure: takes row positions, gives the metric of each classifier on them; raises ValueError
            where it cannot be had of such a sample, which then does not count.
        groups: (n,), the group of each row.
        draws: samples of groups.
        seed: of the drawing.
    """
    samples = []
    for rows in draw_groups(groups, draws, seed):
        try:
            samples.append(measure(rows))
        except ValueError:
            continue
    return Drawn(np.asarray(measure(np.arange(len(groups)))), np.asarray(samples))


def compare_paired(drawn: Drawn, first: int, second: int) -> Difference:
    """Return by how much one classifier's metric is above another's, on the same samples.

    The p-value is that of the difference over its bootstrap standard error, against the normal
    distribution (Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapters 6 and 13).
    Counting samples on the other side of 0 would end at 2 / draws, which a correction for many
    comparisons lifts above every level.
    """
    values = drawn.samples[:, first] - drawn.samples[:, second]
    observed = float(drawn.observed[first] - drawn.observed[second])
    error = float(np.std(values, ddof=1))
    if error == 0:
        p_value = 1.0 if observed == 0 else 0.0
    else:
        p_value = float(2 * norm.sf(abs(observed) / error))
    return Difference(observed, *find_interval(values), p_value)


def find_mcnemar_p(first_correct: np.ndarray, second_correct: np.ndarray) -> float:
    """Return the exact p-value of McNemar's test: do two classifiers err equally often?

    Args:
        first_correct, second_correct: bool (n,), on the same images.

    Source: McNemar 1947. Counts every image as independent, which copies of one scan are not:
    `compare_paired` is for those.
    """
    only_first = int((first_correct & ~second_correct).sum())
    only_second = int((~first_correct & second_correct).sum())
    if not only_first + only_second:
        return 1.0
    return float(binomtest(only_first, only_first + only_second).pvalue)


def compare_auc(is_positive: np.ndarray, first: np.ndarray, second: np.ndarray) -> Difference:
    """Return the difference of two AUCs on the same images, its interval and p-value.

    Args:
        is_positive: bool (n,), both kinds present.
        first, second: float (n,), scores.

    Source: DeLong, DeLong and Clarke-Pearson 1988, by the mid-ranks of Sun and Xu 2014, "Fast
    implementation of DeLong's algorithm". Counts every image as independent.
    """
    parts = [_place(is_positive, scores) for scores in (first, second)]
    difference = parts[0][0].mean() - parts[1][0].mean()
    variance = sum(
        np.var(one - other, ddof=1) / len(one)
        for one, other in zip(parts[0], parts[1], strict=True)
    )
    if variance == 0:
        return Difference(float(difference), float(difference), float(difference), 1.0)
    error = np.sqrt(variance)
    half = norm.ppf(0.975) * error
    p_value = 2 * norm.sf(abs(difference) / error)
    return Difference(
        float(difference), float(difference - half), float(difference + half), float(p_value)
    )


def _place(is_positive: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each positive, the share of negatives below it; for each negative, of positives above."""
    ranks = rankdata(scores)
    positives, negatives = scores[is_positive], scores[~is_positive]
    above = (ranks[is_positive] - rankdata(positives)) / len(negatives)
    below = 1 - (ranks[~is_positive] - rankdata(negatives)) / len(positives)
    return above, below


def correct_for_many(p_values: Sequence[float]) -> np.ndarray:
    """Return float (n,), the p-values as n comparisons at once allow them: Holm 1979, step down."""
    values = np.asarray(p_values, dtype=float)
    order = np.argsort(values)
    corrected = np.empty_like(values)
    corrected[order] = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    return np.minimum(corrected, 1.0)


def judge(difference: float, corrected_p_value: float) -> str:
    """Return "better", "worse" or "cannot tell", at 5 % over all comparisons together."""
    if corrected_p_value >= 0.05:
        return CANNOT_TELL
    return BETTER if difference > 0 else WORSE
