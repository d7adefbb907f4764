"""Paired comparison: against sums by hand, statsmodels and the bootstrap of the same thing."""

from io import StringIO

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from busi_pipeline.errors import BadInputError
from busi_pipeline.stats.paired_tests import (
    BETTER,
    INCONCLUSIVE,
    WORSE,
    BootstrappedMetric,
    Difference,
    adjust_p_values,
    bootstrap_metric,
    compare_paired,
    decide_verdict,
    delong_test,
    mcnemar_p_value,
)

# 43 patients with ovarian cancer, the data of DeLong, DeLong and Clarke-Pearson 1988: albumin,
# total protein, K-G score, and whether the patient has an indication.
OVARIAN = np.loadtxt(
    StringIO(
        """
        3.0 5.8 10 0 ; 3.2 6.3 5 1 ; 3.9 6.8 3 1 ; 2.8 4.8 6 0 ; 3.2 5.8 3 1 ;
        0.9 4.0 5 0 ; 2.5 5.7 8 0 ; 1.6 5.6 5 1 ; 3.8 5.7 5 1 ; 3.7 6.7 6 1 ;
        3.2 5.4 4 1 ; 3.8 6.6 6 1 ; 4.1 6.6 5 1 ; 3.6 5.7 5 1 ; 4.3 7.0 4 1 ;
        3.6 6.7 4 0 ; 2.3 4.4 6 1 ; 4.2 7.6 4 0 ; 4.0 6.6 6 0 ; 3.5 5.8 6 1 ;
        3.8 6.8 7 1 ; 3.0 4.7 8 0 ; 4.5 7.4 5 1 ; 3.7 7.4 5 1 ; 3.1 6.6 6 1 ;
        4.1 8.2 6 1 ; 4.3 7.0 5 1 ; 4.3 6.5 4 1 ; 3.2 5.1 5 1 ; 2.6 4.7 6 1 ;
        3.3 6.8 6 0 ; 1.7 4.0 7 0 ; 3.7 6.1 5 1 ; 3.3 6.3 7 1 ; 4.2 7.7 6 1 ;
        3.5 6.2 5 1 ; 2.9 5.7 9 0 ; 2.1 4.8 7 1 ; 2.8 6.2 8 0 ; 4.0 7.0 7 1 ;
        3.3 5.7 6 1 ; 3.7 6.9 5 1 ; 3.6 6.6 5 1
        """.replace(";", "\n")
    )
)


def compare_accuracy(first: np.ndarray, second: np.ndarray, groups: list[str]) -> Difference:
    bootstrapped = bootstrap_metric(
        lambda rows: (float(first[rows].mean()), float(second[rows].mean())), groups, 1000, seed=0
    )
    return compare_paired(bootstrapped, 0, 1)


def test_same_classifier_is_neither_better_nor_worse(rng: np.random.Generator) -> None:
    correct = rng.random(100) < 0.8
    found = compare_accuracy(correct, correct, [str(i) for i in range(100)])
    assert (found.difference, found.low, found.high, found.p_value) == (0, 0, 0, 1)


def test_clear_difference_is_found_with_its_sign(rng: np.random.Generator) -> None:
    good, bad = rng.random(300) < 0.9, rng.random(300) < 0.6
    groups = [str(i) for i in range(300)]
    found = compare_accuracy(good, bad, groups)
    turned = compare_accuracy(bad, good, groups)
    assert found.low < found.difference < found.high
    assert found.low > 0
    assert 0 < found.p_value < 1e-12, "no floor at one over the resamples"
    assert (turned.difference, turned.low) == pytest.approx((-found.difference, -found.high))


def test_difference_without_variance_is_certain() -> None:
    metric = BootstrappedMetric(np.array([1.0, 0.5]), np.array([[1.0, 0.5]] * 5))
    assert compare_paired(metric, 0, 1) == (0.5, 0.5, 0.5, 0.0)


def test_p_value_is_that_of_the_standard_error() -> None:
    samples = np.array([[0.0, 0.0], [2.0, 0.0], [1.0, 0.0]])  # standard error 1
    found = compare_paired(BootstrappedMetric(np.array([1.96, 0.0]), samples), 0, 1)
    assert found.p_value == pytest.approx(0.05, abs=1e-4)


def test_duplicates_make_no_difference_certain(rng: np.random.Generator) -> None:
    good, bad = rng.random(30) < 0.8, rng.random(30) < 0.6
    once = compare_accuracy(good, bad, [str(i) for i in range(30)])
    ten = [str(i) for i in range(30) for _ in range(10)]
    tenfold = compare_accuracy(np.repeat(good, 10), np.repeat(bad, 10), ten)
    assert tenfold == pytest.approx(once)
    single = [str(i) for i in range(300)]
    ungrouped = compare_accuracy(np.repeat(good, 10), np.repeat(bad, 10), single)
    assert ungrouped.p_value < once.p_value


def test_metric_that_few_samples_have_is_refused() -> None:
    def measure(rows: np.ndarray) -> list[float]:
        if len(set(rows)) < 4:
            raise ValueError("not all there")
        return [1.0, 1.0]

    with pytest.raises(BadInputError, match="of 50 samples of the 4 groups"):
        bootstrap_metric(measure, list("abcd"), 50, 0)


@pytest.mark.parametrize(("only_first", "only_second"), [(10, 2), (3, 3), (0, 7), (1, 0)])
def test_mcnemar_is_statsmodels_exact_test(only_first: int, only_second: int) -> None:
    first = np.array([True] * only_first + [False] * only_second + [True] * 8 + [False] * 4)
    second = np.array([False] * only_first + [True] * only_second + [True] * 8 + [False] * 4)
    expected = mcnemar([[8, only_first], [only_second, 4]], exact=True).pvalue
    assert mcnemar_p_value(first, second) == pytest.approx(expected)
    assert mcnemar_p_value(first, first) == 1.0


def test_delong_by_hand() -> None:
    """AUC 3/4 and 1. The placements of the first are (1, 1/2) and (1/2, 1), of the second 1.

    The variance is that of the differences, 1/8 in either kind, over 2 images: 1/8 together.
    """
    is_positive = np.array([True, True, False, False])
    found = delong_test(is_positive, np.array([4.0, 2, 3, 1]), np.array([4.0, 3, 2, 1]))
    assert found.difference == pytest.approx(-0.25)
    assert found.high - found.low == pytest.approx(2 * 1.959964 * np.sqrt(1 / 8))
    assert found.p_value == pytest.approx(0.4795, abs=1e-4)  # z = 0.7071


@pytest.mark.parametrize("column", [0, 1])
def test_delong_agrees_with_the_papers_formulas(column: int) -> None:
    """On the paper's data: its sums over all pairs, with the covariance of both curves."""
    is_positive = OVARIAN[:, 3] == 1
    scores = np.stack([OVARIAN[:, column], 10 - OVARIAN[:, 2]])
    positives, negatives = scores[:, is_positive], scores[:, ~is_positive]
    above = positives[:, :, None] - negatives[:, None, :]
    psi = (above > 0) + 0.5 * (above == 0)
    areas = psi.mean(axis=(1, 2))
    covariance = np.cov(psi.mean(axis=2)) / psi.shape[1] + np.cov(psi.mean(axis=1)) / psi.shape[2]
    contrast = np.array([1, -1])
    error = np.sqrt(contrast @ covariance @ contrast)
    found = delong_test(is_positive, *scores)
    assert areas == pytest.approx([roc_auc_score(is_positive, each) for each in scores])
    assert found.difference == pytest.approx(areas[0] - areas[1])
    assert found.low == pytest.approx(found.difference - 1.959964 * error)
    assert found.high == pytest.approx(found.difference + 1.959964 * error)


def test_delong_agrees_with_the_bootstrap(rng: np.random.Generator) -> None:
    is_positive = np.arange(400) % 3 == 0
    signal = is_positive + rng.normal(size=400)
    first, second = signal + rng.normal(0, 0.3, 400), signal + rng.normal(0, 1.5, 400)

    def measure(rows: np.ndarray) -> tuple[float, float]:
        return (
            roc_auc_score(is_positive[rows], first[rows]),
            roc_auc_score(is_positive[rows], second[rows]),
        )

    found = delong_test(is_positive, first, second)
    bootstrapped = bootstrap_metric(measure, [str(i) for i in range(400)], 300, seed=1)
    resampled = compare_paired(bootstrapped, 0, 1)
    assert found.difference == pytest.approx(np.subtract(*measure(np.arange(400))))
    assert found.high - found.low == pytest.approx(resampled.high - resampled.low, rel=0.15)
    assert found.p_value == pytest.approx(resampled.p_value, abs=0.02)


def test_delong_without_a_difference() -> None:
    is_positive = np.array([True, True, False, False, False])
    scores = np.array([0.9, 0.5, 0.5, 0.5, 0.1])
    assert delong_test(is_positive, scores, scores) == (0, 0, 0, 1)


def test_delong_of_opposites_is_certain() -> None:
    is_positive = np.array([True, True, False, False])
    found = delong_test(is_positive, is_positive.astype(float), 1.0 - is_positive)
    assert (found.difference, found.p_value) == (1, 0)


@pytest.mark.filterwarnings("error")
def test_delong_of_one_positive_has_no_p_value() -> None:
    is_positive = np.array([True, False, False])
    found = delong_test(is_positive, np.array([0.9, 0.1, 0.2]), np.array([0.1, 0.2, 0.0]))
    assert found.difference == pytest.approx(0.5)
    assert np.isnan(found.p_value)


def test_many_comparisons_are_holms(rng: np.random.Generator) -> None:
    assert adjust_p_values([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert adjust_p_values([0.9, 0.8]).tolist() == [1.0, 1.0]
    p_values = rng.random(20) ** 3
    expected = multipletests(p_values, method="holm")[1]
    assert adjust_p_values(p_values.tolist()) == pytest.approx(expected)


def test_verdicts_are_better_worse_or_inconclusive() -> None:
    assert decide_verdict(0.1, 0.04) == BETTER == "better"
    assert decide_verdict(-0.1, 0.04) == WORSE == "worse"
    assert decide_verdict(0.5, 0.05) == INCONCLUSIVE == "inconclusive"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("positives", [1, 2])
def test_delong_of_one_image_of_a_kind_has_no_interval(positives: int) -> None:
    is_positive = np.arange(3) < positives
    found = delong_test(is_positive, np.array([0.9, 0.5, 0.1]), np.array([0.1, 0.2, 0.3]))
    assert found.difference == pytest.approx(1)
    assert all(isinstance(value, float) for value in found)
    assert np.isnan(found[1:]).all()
