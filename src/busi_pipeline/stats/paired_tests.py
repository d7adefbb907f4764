"""Two classifiers on the same images: is one better, or is the comparison inconclusive?"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy.stats import binomtest, norm, rankdata

from busi_pipeline.stats.bootstrap import measure_resamples, percentile_interval

Verdict = Literal["better", "worse", "inconclusive"]
BETTER: Verdict = "better"
WORSE: Verdict = "worse"
INCONCLUSIVE: Verdict = "inconclusive"


class Difference(NamedTuple):
    """A metric of one classifier less that of the other, with its interval and p-value."""

    difference: float
    low: float
    high: float
    p_value: float


class BootstrappedMetric(NamedTuple):
    """A metric of k classifiers: `observed` float (k,), and in `samples` float (n_resamples, k)."""

    observed: np.ndarray
    samples: np.ndarray


def bootstrap_metric(
    measure: Callable[[np.ndarray], Sequence[float]],
    groups: Sequence[str],
    n_resamples: int,
    seed: int,
) -> BootstrappedMetric:
    """Measure a metric of several classifiers on all images and on samples of groups of them.

    Args:
        measure: takes row positions, gives the metric of each classifier on them; raises ValueError
            where a sample lacks what is to be measured. Such samples do not count.
        groups: (n,), the group of each row.
        n_resamples: samples of groups.
        seed: of the resampling.

    Raises BadInputError where fewer than half of the samples count.
    """
    samples = measure_resamples(measure, groups, n_resamples, seed)
    return BootstrappedMetric(np.asarray(measure(np.arange(len(groups)))), np.asarray(samples))


def compare_paired(metric: BootstrappedMetric, first: int, second: int) -> Difference:
    """Return by how much one classifier's metric is above another's, on the same samples.

    The p-value is that of the difference over its bootstrap standard error, against the normal
    distribution (Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapters 6 and 13).
    Counting samples on the other side of 0 would end at 2 / n_resamples, which a correction for
    many comparisons lifts above every level.
    """
    values = metric.samples[:, first] - metric.samples[:, second]
    observed = float(metric.observed[first] - metric.observed[second])
    return Difference(
        observed, *percentile_interval(values), _normal_p_value(observed, np.std(values, ddof=1))
    )


def mcnemar_p_value(first_correct: np.ndarray, second_correct: np.ndarray) -> float:
    """Return the exact p-value of McNemar's test: do two classifiers err equally often?

    Args:
        first_correct, second_correct: bool (n,), on the same images.

    Source: McNemar 1947. Counts every image as independent, which duplicates of one scan are not:
    `compare_paired` is for those.
    """
    only_first = int((first_correct & ~second_correct).sum())
    only_second = int((~first_correct & second_correct).sum())
    if not only_first + only_second:
        return 1.0
    return float(binomtest(only_first, only_first + only_second).pvalue)


def delong_test(is_positive: np.ndarray, first: np.ndarray, second: np.ndarray) -> Difference:
    """Return the difference of two AUCs on the same images, its interval and p-value.

    Args:
        is_positive: bool (n,), both kinds present.
        first, second: float (n,), scores.

    Source: DeLong, DeLong and Clarke-Pearson 1988, by the mid-ranks of Sun and Xu 2014, "Fast
    implementation of DeLong's algorithm". Counts every image as independent. With one image of a
    kind there is no variance: interval and p-value are nan.
    """
    parts = [_place(is_positive, scores) for scores in (first, second)]
    difference = float(parts[0][0].mean() - parts[1][0].mean())
    if min(is_positive.sum(), (~is_positive).sum()) < 2:
        return Difference(difference, float("nan"), float("nan"), float("nan"))
    variance = sum(
        np.var(one - other, ddof=1) / len(one)
        for one, other in zip(parts[0], parts[1], strict=True)
    )
    error = float(np.sqrt(variance))
    half = float(norm.ppf(0.975)) * error
    return Difference(
        difference, difference - half, difference + half, _normal_p_value(difference, error)
    )


def _place(is_positive: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each positive, the share of negatives below it; for each negative, of positives above."""
    ranks = rankdata(scores)
    positives, negatives = scores[is_positive], scores[~is_positive]
    above = (ranks[is_positive] - rankdata(positives)) / len(negatives)
    below = 1 - (ranks[~is_positive] - rankdata(negatives)) / len(positives)
    return above, below


def _normal_p_value(difference: float, error: float) -> float:
    if error == 0:
        return 1.0 if difference == 0 else 0.0
    return float(2 * norm.sf(abs(difference) / error))


def adjust_p_values(p_values: Sequence[float]) -> np.ndarray:
    """Return float (n,), the p-values as n comparisons at once allow them: Holm 1979, step down."""
    values = np.asarray(p_values, dtype=float)
    order = np.argsort(values)
    corrected = np.empty_like(values)
    corrected[order] = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    return np.minimum(corrected, 1.0)


def decide_verdict(difference: float, corrected_p_value: float) -> Verdict:
    """Return "better", "worse" or "inconclusive", at 5 % over all comparisons together."""
    if corrected_p_value >= 0.05:
        return INCONCLUSIVE
    return BETTER if difference > 0 else WORSE
