"""Evidence that may be looked at as often as one likes."""

import numpy as np
import pytest
from scipy.stats import kstest

from busi_pipeline.stats.anytime import (
    bet_on_miscalibration,
    bet_on_ranks,
    bound_share,
    rank_values,
)

ALPHA = 0.05


def test_ranks_of_like_values_are_uniform_and_ties_are_broken() -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 4, 900).astype(float)  # many ties
    ranks = rank_values(values[:200], values[200:], 1)
    assert kstest(ranks, "uniform").pvalue > 0.01
    assert abs(np.corrcoef(ranks[1:], ranks[:-1])[0, 1]) < 0.1
    assert rank_values([1.0, 2.0, 3.0], [9.0], 0)[0] > 0.75
    assert rank_values([1.0, 2.0, 3.0], [0.0], 0)[0] < 0.25


def test_evidence_seldom_rises_where_nothing_differs() -> None:
    """Over 400 runs of 300 images, each looked at after every image."""
    raised = 0
    for seed in range(400):
        values = np.random.default_rng(seed).normal(0, 1, 400)
        evidence = bet_on_ranks(rank_values(values[:100], values[100:], seed))
        raised += evidence.max() >= 1 / ALPHA
    assert raised / 400 <= ALPHA


@pytest.mark.parametrize(
    ("shift", "spread"), [(1.0, 1.0), (-1.0, 1.0), (0.0, 2.5)], ids=["higher", "lower", "wider"]
)
def test_evidence_rises_where_values_differ(shift: float, spread: float) -> None:
    rng = np.random.default_rng(3)
    known, new = rng.normal(0, 1, 150), rng.normal(shift, spread, 300)
    evidence = bet_on_ranks(rank_values(known, new, 0))
    assert evidence.max() > 1000
    assert evidence[0] < 2, "it starts at 1"


def test_evidence_is_1_on_average_where_nothing_differs() -> None:
    ranks = np.random.default_rng(1).uniform(size=(4000, 5))
    assert np.mean([bet_on_ranks(row)[-1] for row in ranks]) == pytest.approx(1, abs=0.02)


def test_right_probabilities_are_seldom_doubted() -> None:
    raised = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        said = rng.uniform(0.02, 0.9, 300)
        happened = rng.uniform(size=300) < said
        raised += bet_on_miscalibration(happened, said).max() >= 1 / ALPHA
    assert raised / 300 <= ALPHA


@pytest.mark.parametrize("truth", [0.5, 2.0], ids=["too high", "too low"])
def test_wrong_probabilities_are_doubted(truth: float) -> None:
    rng = np.random.default_rng(0)
    said = rng.uniform(0.1, 0.45, 400)
    evidence = bet_on_miscalibration(rng.uniform(size=400) < said * truth, said)
    assert evidence.max() > 100


def test_an_impossible_outcome_is_evidence_and_no_error() -> None:
    evidence = bet_on_miscalibration(np.array([True, True]), np.array([0.0, 1.0]))
    assert np.isfinite(evidence).all()
    assert evidence[0] > 1


def test_an_interval_holds_at_every_number_of_trials() -> None:
    missed = 0
    for seed in range(300):
        happened = np.random.default_rng(seed).uniform(size=200) < 0.8
        counts = np.cumsum(happened)
        looks = range(0, 200, 5)
        bounds = [bound_share(int(counts[i]), i + 1, ALPHA) for i in looks]
        missed += any(not low <= 0.8 <= high for low, high in bounds)
    assert missed / 300 <= ALPHA


@pytest.mark.parametrize(
    ("successes", "trials", "expected"),
    [
        (0, 0, (0.0, 1.0)),
        (100, 100, (0.943, 1.0)),
        (0, 100, (0.0, 0.057)),
        (80, 100, (0.648, 0.909)),
    ],
)
def test_bounds_of_a_share(successes: int, trials: int, expected: tuple[float, float]) -> None:
    assert bound_share(successes, trials, ALPHA) == pytest.approx(expected, abs=0.005)
