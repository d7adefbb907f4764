"""How sure a number is: the bootstrap over groups of images that belong together.

Duplicates of one scan, or images of one patient, are right and wrong together. Resampling images
would count them as so many pieces of evidence. Groups are resampled instead, whole (the cluster
bootstrap: Field and Welsh 2007, Journal of the Royal Statistical Society B 69).
`scipy.stats.bootstrap` resamples single rows, so it cannot give these intervals.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np
from scipy.stats import binomtest

from busi_pipeline.errors import BadInputError

LEVEL = 0.95
LOW, HIGH = "_ci_low", "_ci_high"
_ROUNDING = 1e-9

Measured = TypeVar("Measured")


class Trials:
    """The rows that a share is counted over: its denominator.

    Attributes:
        rows: bool (n,), one mask or several. Of several, the one with the fewest groups counts: an
            AUC orders two kinds of images and knows no more than the rarer kind does.
    """

    def __init__(self, *rows: np.ndarray) -> None:
        self.rows = rows

    def count(self, groups: np.ndarray) -> int:
        """Return the independent units: the distinct groups (n,) that the rows touch."""
        return min(len(np.unique(groups[rows])) for rows in self.rows)


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


def exact_interval(share: float, trials: int) -> tuple[float, float]:
    """Return the exact binomial interval (Clopper and Pearson 1934) of a share of 0 or 1.

    Args:
        share: 0 or 1.
        trials: independent units; of none nothing is known, and the interval is 0 to 1.
    """
    if not trials:
        return 0.0, 1.0
    interval = binomtest(round(share * trials), trials).proportion_ci(LEVEL, method="exact")
    return float(interval.low), float(interval.high)


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
            an entry, or (None) all are counted over all rows.

    A share that is 0 or 1 on all rows is 0 or 1 in every sample, whose interval would have no
    width. It gets the exact binomial interval, with as many trials as its own denominator touches
    groups: 30 of 30 malignant images in 24 groups are 24 trials. A derived value gets its bounds
    from the bounds of what it is derived from. For a mean of values from 0 to 1 the exact interval
    is on the safe side.

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
            values = np.array([sample[name] for sample in samples], dtype=float)
            denominator: Any = (
                Trials(np.ones(len(groups), bool)) if denominators is None else denominators[name]
            )
            interval = percentile_interval(values)
            if _is_extreme(value, values):
                if isinstance(denominator, Derived):
                    derived[name] = denominator
                else:
                    interval = exact_interval(value, denominator.count(groups))
            joined[name + LOW], joined[name + HIGH] = interval
    for name, rule in derived.items():
        for end in (LOW, HIGH):
            joined[name + end] = float(
                rule.combine(*(_look_up(joined, source, end) for source in rule.sources))
            )
    return joined


def _is_extreme(value: float, samples: np.ndarray) -> bool:
    """Is the value 0 or 1, in every sample that could be measured as well?"""
    if min(abs(value), abs(value - 1)) > _ROUNDING or np.isnan(value):
        return False
    return not (np.abs(samples - value) > _ROUNDING).any()


def _look_up(joined: Mapping[str, Any], source: str | tuple[str, ...], end: str) -> float:
    *path, name = (source,) if isinstance(source, str) else source
    for step in path:
        joined = joined[step]
    return float(joined[name + end])
