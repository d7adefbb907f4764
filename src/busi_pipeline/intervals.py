"""How sure a number is: the bootstrap over groups of images that belong together.

Copies of one scan, or images of one patient, are right and wrong together. Drawing images would
count them as so many pieces of evidence; groups are drawn instead, whole (the cluster bootstrap:
Field and Welsh 2007, Journal of the Royal Statistical Society B 69).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import binomtest

LEVEL = 0.95
LOW, HIGH = "_ci_low", "_ci_high"


def draw_groups(groups: Sequence[str], draws: int, seed: int) -> Iterator[np.ndarray]:
    """Yield int64 (m,), rows of a sample of as many groups as there are, drawn with replacement.

    Args:
        groups: (n,), the group of each row; rows of one group come together, as often as it is
            drawn, so that m differs from draw to draw.
        draws: number of samples.
        seed: the same groups, in the same order, are drawn for the same seed.
    """
    _, of_row = np.unique(np.asarray(groups), return_inverse=True)
    rows_of = np.split(np.argsort(of_row, kind="stable"), np.cumsum(np.bincount(of_row))[:-1])
    rng = np.random.default_rng(seed)
    for _ in range(draws):
        chosen = rng.integers(0, len(rows_of), len(rows_of))
        yield np.concatenate([rows_of[group] for group in chosen])


def find_interval(values: np.ndarray) -> tuple[float, float]:
    """Return the percentiles 2.5 and 97.5 of float (draws,); what could not be computed is nan."""
    tail = 50 * (1 - LEVEL)
    low, high = np.nanpercentile(values, [tail, 100 - tail])
    return float(low), float(high)


def add_intervals(
    scores: Mapping[str, Any],
    score: Callable[[np.ndarray], Mapping[str, Any]],
    groups: Sequence[str],
    draws: int,
    seed: int,
) -> dict[str, Any]:
    """Return `scores` with `<name>_ci_low` and `<name>_ci_high` after every share in it.

    Args:
        scores: nested mapping; integers are counts and strings are names, which get no interval.
        score: takes row positions, gives the scores on them in the same nesting; raises ValueError
            where a sample lacks what is to be measured (a class, say). Such samples do not count.
        groups: (n,), the group of each row.
        draws: samples of groups.
        seed: of the drawing.

    A share that is 0 or 1 on all rows is 0 or 1 in every sample, whose interval would have no
    width: it gets the exact binomial one (Clopper and Pearson 1934), of as many trials as groups.
    """
    samples = []
    for rows in draw_groups(groups, draws, seed):
        try:
            samples.append(score(rows))
        except ValueError:
            continue
    if len(samples) < draws / 2:
        raise ValueError(
            f"only {len(samples)} of {draws} samples of the {len(set(groups))} groups held what is "
            "to be measured: too few images for an interval."
        )
    return _join(scores, samples, len(set(groups)))


def _join(
    scores: Mapping[str, Any], samples: Sequence[Mapping[str, Any]], groups: int
) -> dict[str, Any]:
    joined: dict[str, Any] = {}
    for name, value in scores.items():
        joined[name] = value
        if isinstance(value, Mapping):
            joined[name] = _join(value, [sample[name] for sample in samples], groups)
        elif isinstance(value, float):
            drawn = np.array([sample[name] for sample in samples], dtype=float)
            joined[name + LOW], joined[name + HIGH] = (
                _find_exact(value, groups)
                if value in (0.0, 1.0) and np.ptp(drawn) == 0
                else find_interval(drawn)
            )
    return joined


def _find_exact(share: float, trials: int) -> tuple[float, float]:
    interval = binomtest(round(share * trials), trials).proportion_ci(LEVEL, method="exact")
    return float(interval.low), float(interval.high)
