"""Evidence that may be looked at after every image, as often as one likes.

Each kind of evidence starts at 1 and is a test martingale: where nothing has changed, the chance
that it ever reaches 1 / alpha is at most alpha, however often one looks and whenever one stops
(Ville 1939). Source: Ramdas, Grünwald, Vovk and Shafer 2023, "Game-theoretic statistics and safe
anytime-valid inference".
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence

import numpy as np
from scipy.optimize import brentq
from scipy.special import betaln, expit, logit, logsumexp

# Simple jumper: bets on high, no, or low values; how readily it changes.
_BETS = np.array([-1.0, 0.0, 1.0])
_JUMP = 0.01
# Recalibrations that are bet on: shifts of the logit, and slopes.
_SHIFTS = (-2.0, -1.0, -0.5, 0.5, 1.0, 2.0)
_SLOPES = (0.25, 0.5, 1.0, 2.0)
_EDGE = 1e-6


def rank_values(reference: Sequence[float], values: Sequence[float], seed: int) -> np.ndarray:
    """Return float (n,), 0 to 1: where each value stands among those before it, ties at random.

    Args:
        reference: values that are known.
        values: new ones, in the order in which they came.
        seed: of the ties.

    Where new values are like those of the reference, in any order, the ranks are independent and
    uniform, whatever the distribution. Source: Vovk, Gammerman and Shafer 2022, "Algorithmic
    learning in a random world", chapter 8 (smoothed conformal p-values).
    """
    rng = np.random.default_rng(seed)
    known = sorted(float(value) for value in reference)
    ranks = np.empty(len(values))
    for i, value in enumerate(map(float, values)):
        insort(known, value)
        below, above = bisect_left(known, value), bisect_right(known, value)
        ranks[i] = (below + rng.uniform() * (above - below)) / len(known)
    return ranks


def bet_on_ranks(ranks: np.ndarray) -> np.ndarray:
    """Return float (n,), evidence after each rank that ranks are not uniform.

    The mean of two simple jumpers, one on the ranks (values have become higher or lower) and one on
    their distance from the middle (values have become more or less spread). Source: Vovk, Petej,
    Nouretdinov, Ahlberg, Carlsson and Gammerman 2021, "Retrain or not retrain: conformal test
    martingales for change-point detection".
    """
    return (_jump(ranks) + _jump(np.abs(2 * ranks - 1))) / 2


def _jump(ranks: np.ndarray) -> np.ndarray:
    capital = np.full(len(_BETS), 1 / len(_BETS))
    evidence = np.empty(len(ranks))
    for i, rank in enumerate(ranks):
        capital = (1 - _JUMP) * capital + _JUMP * capital.mean()
        capital = capital * (1 + _BETS * (rank - 0.5))
        evidence[i] = capital.sum()
    return evidence


def bet_on_miscalibration(happened: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Return float (n,), evidence after each outcome that probabilities were not right.

    Args:
        happened: bool (n,).
        probability: float (n,), said before, 0 to 1.

    The mean over recalibrations, by shift and slope of the logit, of how much likelier each makes
    the outcomes. Source: Grünwald, de Heide and Koolen 2024, "Safe testing" (a mixture of
    alternatives against one null).
    """
    said = np.clip(probability, _EDGE, 1 - _EDGE)
    bets = [(a, b) for a in (0.0, *_SHIFTS) for b in _SLOPES if (a, b) != (0.0, 1.0)]
    logs = []
    for shift, slope in bets:
        other = np.clip(expit(shift + slope * logit(said)), _EDGE, 1 - _EDGE)
        gain = np.where(happened, np.log(other / said), np.log((1 - other) / (1 - said)))
        logs.append(np.cumsum(gain))
    return np.exp(np.clip(logsumexp(logs, axis=0) - np.log(len(bets)), -700, 700))


def bound_share(successes: int, trials: int, alpha: float) -> tuple[float, float]:
    """Return an interval of a share that holds at every number of trials at once.

    Args:
        successes, trials: so far.
        alpha: chance that any of the intervals, over all time, misses the share.

    Source: Robbins 1970, "Statistical methods related to the law of the iterated logarithm": the
    mixture with Jeffreys' beta prior.
    """
    if not trials:
        return 0.0, 1.0
    failures = trials - successes
    mixture = betaln(successes + 0.5, failures + 0.5) - betaln(0.5, 0.5)

    def excess(share: float) -> float:
        likelihood = successes * np.log(share) + failures * np.log1p(-share)
        return float(mixture - likelihood + np.log(alpha))

    middle = min(max(successes / trials, _EDGE), 1 - _EDGE)
    if excess(middle) > 0:  # no share is likely; never so, but for rounding
        return middle, middle
    low = 0.0 if excess(_EDGE) <= 0 else brentq(excess, _EDGE, middle)
    high = 1.0 if excess(1 - _EDGE) <= 0 else brentq(excess, middle, 1 - _EDGE)
    return float(low), float(high)
