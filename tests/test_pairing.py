"""Paired comparison: against sums by hand, textbook values and the bootstrap of the same thing."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from busi_pipeline.pairing import (
    BETTER,
    CANNOT_TELL,
    WORSE,
    Difference,
    compare_auc,
    compare_paired,
    correct_for_many,
    draw_metric,
    find_mcnemar_p,
    judge,
)


def compare_accuracy(first: np.ndarray, second: np.ndarray, groups: list[str]) -> Difference:
    drawn = draw_metric(
        lambda rows: (float(first[rows].mean()), float(second[rows].mean())), groups, 1000, seed=0
    )
    return compare_paired(drawn, 0, 1)


def test_the_same_classifier_is_neither_better_nor_worse(rng: np.random.Generator) -> None:
    correct = rng.random(100) < 0.8
    found = compare_accuracy(correct, correct, [str(i) for i in range(100)])
    assert (found.difference, found.low, found.high, found.p_value) == (0, 0, 0, 1)


def test_a_clear_difference_is_found_with_its_sign(rng: np.random.Generator) -> None:
    good, bad = rng.random(300) < 0.9, rng.random(300) < 0.6
    groups = [str(i) for i in range(300)]
    found = compare_accuracy(good, bad, groups)
    turned = compare_accuracy(bad, good, groups)
    assert found.low < found.difference < found.high
    assert found.low > 0
    assert 0 < found.p_value < 1e-12, "no floor at one over the draws"
    assert (turned.difference, turned.low) == pytest.approx((-found.difference, -found.high))


def test_copies_make_no_difference_certain(rng: np.random.Generator) -> None:
    good, bad = rng.random(30) < 0.8, rng.random(30) < 0.6
    once = compare_accuracy(good, bad, [str(i) for i in range(30)])
    ten = [str(i) for i in range(30) for _ in range(10)]
    tenfold = compare_accuracy(np.repeat(good, 10), np.repeat(bad, 10), ten)
    assert tenfold == pytest.approx(once)
    blind = compare_accuracy(np.repeat(good, 10), np.repeat(bad, 10), [str(i) for i in range(300)])
    assert blind.p_value < once.p_value


def test_mcnemar_is_the_binomial_test_of_the_disagreements() -> None:
    first = np.array([True] * 10 + [False] * 2 + [True] * 88)
    second = np.array([False] * 10 + [True] * 2 + [True] * 88)
    # 12 disagreements, 2 of one kind: 2 * (1 + 12 + 66) / 2**12
    assert find_mcnemar_p(first, second) == pytest.approx(2 * 79 / 4096)
    assert find_mcnemar_p(first, first) == 1.0


def test_delong_agrees_with_the_bootstrap(rng: np.random.Generator) -> None:
    is_positive = np.arange(400) % 3 == 0
    signal = is_positive + rng.normal(size=400)
    first, second = signal + rng.normal(0, 0.3, 400), signal + rng.normal(0, 1.5, 400)

    def measure(rows: np.ndarray) -> tuple[float, float]:
        return (
            roc_auc_score(is_positive[rows], first[rows]),
            roc_auc_score(is_positive[rows], second[rows]),
        )

    found = compare_auc(is_positive, first, second)
    drawn = compare_paired(draw_metric(measure, [str(i) for i in range(400)], 1000, seed=1), 0, 1)
    assert found.difference == pytest.approx(np.subtract(*measure(np.arange(400))))
    assert found.high - found.low == pytest.approx(drawn.high - drawn.low, rel=0.1)
    assert found.p_value == pytest.approx(drawn.p_value, abs=0.02)


def test_delong_with_ties_and_without_difference() -> None:
    is_positive = np.array([True, True, False, False, False])
    scores = np.array([0.9, 0.5, 0.5, 0.5, 0.1])
    same = compare_auc(is_positive, scores, scores)
    assert (same.difference, same.p_value) == (0, 1)
    other = np.array([0.2, 0.8, 0.5, 0.2, 0.1])
    expected = roc_auc_score(is_positive, scores) - roc_auc_score(is_positive, other)
    assert compare_auc(is_positive, scores, other).difference == pytest.approx(expected)


def test_many_comparisons_are_paid_for() -> None:
    assert correct_for_many([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert correct_for_many([0.9, 0.8]).tolist() == [1.0, 1.0]
    assert judge(0.1, 0.04) == BETTER
    assert judge(-0.1, 0.04) == WORSE
    assert judge(0.5, 0.05) == CANNOT_TELL
