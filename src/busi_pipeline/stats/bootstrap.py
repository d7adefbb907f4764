"""How sure a number is: the bootstrap over groups of images that belong together.

Duplicates of one scan, or images of one patient, are right and wrong together. Resampling images
would count them as so many pieces of evidence. Groups are resampled instead, whole (the cluster
bootstrap: Field and Welsh 2007, Journal of the Royal Statistical Society B 69).
`scipy.stats.bootstrap` resamples single rows, so it cannot give these intervals.

Percentiles of the samples are too narrow near 0 and 1 and with few groups. So the samples of a
share give its variance alone, and the interval is Wilson's (1927, Journal of the American
Statistical Association 22) with as many trials as have that variance: the effective sample size of
surveys (Kish 1965, "Survey Sampling"; compared for intervals by Franco et al. 2019, Journal of
Survey Statistics and Methodology 7). `benchmarks/interval_coverage.py` shows how often it holds.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np
from scipy.stats import norm

from busi_pipeline.errors import BadInputError

LEVEL = 0.95
LOW, HIGH = "_ci_low", "_ci_high"
_ROUNDING = 1e-9
# Of this many exceptions (images that are not like most) the samples' variance counts one half.
_HALF_KNOWN = 0.5

Measured = TypeVar("Measured")


class Trials:
    """The rows that a number is counted over: its denominator.

    Args:
        rows: bool (n,), one mask or several. Of several, the one with the fewest trials counts: an
            AUC orders two kinds of images and knows no more than the rarer kind does.
        by_percentiles: the number is no share, or one at a threshold that each sample chooses anew,
            so that its samples lie to one side. Its bounds are the percentiles of its samples.
    """

    def __init__(self, *rows: np.ndarray, by_percentiles: bool = False) -> None:
        self.rows = rows
        self.by_percentiles = by_percentiles

    def count(self, groups: np.ndarray) -> float:
        """Return the trials if all rows of a group were alike: Kish's effective sample size.

        It is the number of groups (n,) that the rows touch, or less where some hold more rows.
        """
        counts = []
        for rows in self.rows:
            sizes = np.unique(groups[rows], return_counts=True)[1].astype(float)
            counts.append(float(sizes.sum() ** 2 / (sizes**2).sum()) if len(sizes) else 0.0)
        return min(counts)


@dataclass(frozen=True)
class Derived:
    """A number made of others, whose bounds follow from the bounds of these.

    Attributes:
        sources: the names of the others in the same mapping, or paths into mappings inside it.
        combine: takes one value a source, rises (or stays) with each of them.
    """

    sources: tuple[str | tuple[str, ...], ...]
    combine: Callable[..., float]


Denominators: TypeAlias = Mapping[str, "Trials | Derived | Denominators"]


def resample_groups(groups: Sequence[str], n_resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Yield int64 (m,), rows of a sample of as many groups as there are, drawn with replacement.

    Args:
        groups: (n,), the group of each row; rows of one group come together, as often as it is
            drawn, so that m differs from sample to sample.
        n_resamples: number of samples.
        seed: the same groups, in the same order, are drawn for the same seed.
    """
    _, of_row = np.unique(np.asarray(groups), return_inverse=True)
    rows_of = np.split(np.argsort(of_row, kind="stable"), np.cumsum(np.bincount(of_row))[:-1])
    rng = np.random.default_rng(seed)
    for _ in range(n_resamples):
        chosen = rng.integers(0, len(rows_of), len(rows_of))
        yield np.concatenate([rows_of[group] for group in chosen])


def measure_resamples(
    measure: Callable[[np.ndarray], Measured], groups: Sequence[str], n_resamples: int, seed: int
) -> list[Measured]:
    """Measure every sample of groups that can be measured.

    Args:
        measure: takes row positions; raises ValueError where a sample lacks what is to be measured
            (a class, say). Such samples do not count.
        groups, n_resamples, seed: see resample_groups.

    Raises BadInputError where fewer than half of the samples count.
    """
    samples = []
    for rows in resample_groups(groups, n_resamples, seed):
        try:
            samples.append(measure(rows))
        except ValueError:
            continue
    if len(samples) < n_resamples / 2:
        raise BadInputError(
            f"only {len(samples)} of {n_resamples} samples of the {len(set(groups))} groups hold "
            "what is to be measured: too few images for an interval. Add images of the rarest "
            "class."
        )
    return samples


def percentile_interval(values: np.ndarray) -> tuple[float, float]:
    """Return the percentiles 2.5 and 97.5 of float (n_resamples,).

    Values that are nan could not be computed and do not count; nan where all are.
    """
    known = values[~np.isnan(values)]
    if not len(known):
        return float("nan"), float("nan")
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(known, [tail, 100 - tail])
    return float(low), float(high)


def wilson_interval(share: float, trials: float) -> tuple[float, float]:
    """Return Wilson's score interval.

    Args:
        share: 0 to 1.
        trials: independent units, need not be whole; of none nothing is known, and the interval is
            0 to 1.
    """
    if not trials:
        return 0.0, 1.0
    square = norm.isf((1 - LEVEL) / 2) ** 2 / trials
    centre = (share + square / 2) / (1 + square)
    half = np.sqrt(square * (max(0.0, share * (1 - share)) + square / 4)) / (1 + square)
    low, high = max(0.0, centre - half), min(1.0, centre + half)
    return float(low if share > 0 else 0.0), float(high if share < 1 else 1.0)


def count_trials(share: float, samples: np.ndarray, fewest: float, most: float = np.inf) -> float:
    """Return the independent units that would have the variance of the samples.

    Args:
        share: 0 to 1.
        samples: float (n_resamples,), of the bootstrap; nan does not count.
        fewest: the units if all rows of a group were alike.
        most: the rows.

    Where nearly all images are alike, the samples say little about the variance: of one exception
    it is not known whether others would come with it. The fewer exceptions, the more `fewest`
    counts; of none it counts alone, and so it does where the samples are all equal.
    """
    known = samples[~np.isnan(samples)]
    varies = len(known) > 1 and np.ptp(known) > _ROUNDING
    if not varies or not fewest or not _ROUNDING < share < 1 - _ROUNDING:
        return fewest
    own = min(most, share * (1 - share) / known.var(ddof=1))
    exceptions = own * min(share, 1 - share)
    weight = exceptions / (exceptions + _HALF_KNOWN)
    return float(1 / (weight / own + (1 - weight) / fewest))


def add_intervals(
    scores: Mapping[str, Any],
    score: Callable[[np.ndarray], Mapping[str, Any]],
    groups: Sequence[str],
    n_resamples: int,
    seed: int,
    denominators: Denominators | None = None,
) -> dict[str, Any]:
    """Return `scores` with `<name>_ci_low` and `<name>_ci_high` after every share in it.

    Args:
        scores: nested mapping; integers are counts and strings are names, which get no interval.
        score: takes row positions, gives the scores on them in the same nesting; raises ValueError
            where a sample lacks what is to be measured. Such samples do not count.
        groups: (n,), the group of each row.
        n_resamples: samples of groups.
        seed: of the resampling.
        denominators: in the same nesting, what each share is counted over. Either every share has
            an entry, or (None) all are shares of all rows.

    A share, a mean of values from 0 to 1 and an AUC get Wilson's interval (see count_trials): 30 of
    30 malignant images in 24 groups are at most 24 trials. Other numbers get the percentiles of
    their samples; one that is 0 or 1 in every sample gets Wilson's, since the percentiles would
    have no width. A derived value gets its bounds from those of what it is derived from (Zou and
    Donner 2008, Statistics in Medicine 27), which need not be independent.

    Raises BadInputError where fewer than half of the samples count, KeyError for a share that
    `denominators` lacks.
    """
    samples = measure_resamples(score, groups, n_resamples, seed)
    return _join(scores, samples, np.asarray(groups), denominators)


def _join(
    scores: Mapping[str, Any],
    samples: Sequence[Mapping[str, Any]],
    groups: np.ndarray,
    denominators: Denominators | None,
) -> dict[str, Any]:
    joined: dict[str, Any] = {}
    derived: dict[str, Derived] = {}
    for name, value in scores.items():
        joined[name] = value
        if isinstance(value, Mapping):
            inner: Any = None if denominators is None else denominators[name]
            joined[name] = _join(value, [sample[name] for sample in samples], groups, inner)
        elif isinstance(value, float):
            denominator: Any = (
                Trials(np.ones(len(groups), bool)) if denominators is None else denominators[name]
            )
            if isinstance(denominator, Derived):
                derived[name] = denominator
                interval = float("nan"), float("nan")  # keeps the place
            else:
                interval = _find_interval(value, _gather(samples, name), denominator, groups)
            joined[name + LOW], joined[name + HIGH] = interval
    for name, rule in derived.items():
        joined[name + LOW], joined[name + HIGH] = _derive_interval(rule, joined, samples)
    return joined


def _find_interval(
    value: float, samples: np.ndarray, denominator: Trials, groups: np.ndarray
) -> tuple[float, float]:
    if np.isnan(value) or (denominator.by_percentiles and not _is_extreme(value, samples)):
        return percentile_interval(samples)
    most = float(np.any(denominator.rows, axis=0).sum())
    return wilson_interval(value, count_trials(value, samples, denominator.count(groups), most))


def _derive_interval(
    rule: Derived, joined: Mapping[str, Any], samples: Sequence[Mapping[str, Any]]
) -> tuple[float, float]:
    """Return the bounds of a derived value by the method of variance estimates recovery."""
    values = [_look_up(joined, source) for source in rule.sources]
    if np.isnan(values).any():
        return float("nan"), float("nan")
    value = rule.combine(*values)
    varying, alike = _correlate([_gather(samples, source) for source in rule.sources])
    # Sources that are the same in every sample move together, since nothing is known of them apart.
    moved = [[i] for i in varying] + [[i for i in range(len(values)) if i not in varying]]
    bounds = []
    for end, farthest, sign in ((LOW, max, -1), (HIGH, min, 1)):
        ends = [_look_up(joined, source, end) for source in rule.sources]
        moves = np.array(
            [
                rule.combine(*(ends[i] if i in those else values[i] for i in range(len(values))))
                for those in moved
            ]
        )
        half = np.sqrt(max(0.0, float((moves - value) @ alike @ (moves - value))))
        # Never beyond where all sources are at their ends at once.
        bounds.append(float(farthest(value + sign * half, rule.combine(*ends))))
    return bounds[0], bounds[1]


def _correlate(samples: list[np.ndarray]) -> tuple[list[int], np.ndarray]:
    """Return which of the samples vary, and float (v + 1, v + 1), their correlations.

    The last row and column are of those that do not: 1, which is on the safe side.
    """
    table = np.array(samples)
    table = table[:, ~np.isnan(table).any(axis=0)]
    varying = [i for i, row in enumerate(table) if len(row) > 1 and row.std() > _ROUNDING]
    found = np.ones((len(varying) + 1, len(varying) + 1))
    if len(varying) > 1:
        found[:-1, :-1] = np.corrcoef(table[varying])
    return varying, found


def _is_extreme(value: float, samples: np.ndarray) -> bool:
    """Is the value 0 or 1, in every sample that could be measured as well?"""
    if min(abs(value), abs(value - 1)) > _ROUNDING or np.isnan(value):
        return False
    return not (np.abs(samples - value) > _ROUNDING).any()


def _gather(samples: Sequence[Mapping[str, Any]], source: str | tuple[str, ...]) -> np.ndarray:
    return np.array([_look_up(sample, source) for sample in samples], dtype=float)


def _look_up(values: Mapping[str, Any], source: str | tuple[str, ...], end: str = "") -> float:
    *path, name = (source,) if isinstance(source, str) else source
    for step in path:
        values = values[step]
    return float(values[name + end])
