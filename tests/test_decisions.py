"""Decisions: thresholds, predictive values, referral and net benefit, against sums done by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from busi_pipeline.decisions import (
    ThresholdRule,
    choose_operating_point,
    choose_threshold,
    measure_net_benefit,
    score_decisions,
    trace_risk_coverage,
)


@given(
    st.lists(st.tuples(st.booleans(), st.floats(0, 1)), min_size=1, max_size=60),
    st.floats(0.05, 1.0),
)
def test_threshold_is_the_highest_that_reaches_the_sensitivity(
    rows: list[tuple[bool, float]], target: float
) -> None:
    is_malignant = np.array([ill for ill, _ in rows])
    score = np.array([s for _, s in rows])
    if not is_malignant.any():
        with pytest.raises(ValueError, match="no malignant image"):
            choose_threshold(is_malignant, score, target)
        return
    threshold = choose_threshold(is_malignant, score, target)
    assert (score[is_malignant] >= threshold).mean() >= target - 1e-9
    higher = score[is_malignant & (score > threshold)]
    if len(higher):
        assert (score[is_malignant] >= higher.min()).mean() < target


@given(st.lists(st.floats(0, 1), min_size=2, max_size=60), st.floats(0.05, 1.0))
def test_conformal_threshold_finds_as_many_of_the_cancers_it_has_not_seen(
    scores: list[float], target: float
) -> None:
    cancers = np.array(scores)
    missed, expected = 0, 0.0
    for one in range(len(cancers)):  # each in turn is the new one
        seen = np.delete(cancers, one)
        point = choose_operating_point(np.ones(len(seen), bool), seen, target, "conformal")
        missed += cancers[one] < point.threshold
        expected += point.expected_sensitivity / len(cancers)
        if point.expected_sensitivity < target - 1e-9:
            assert (seen >= point.threshold).all(), "as low as these cancers tell"
    assert 1 - missed / len(cancers) >= expected - 1e-9
    if len(cancers) * (1 - target) >= 1:
        assert expected >= target - 1e-9


@pytest.mark.parametrize(
    ("cancers", "rule", "rank", "expected"),
    [
        (18, "conformal", 1, 18 / 19),
        (25, "conformal", 1, 25 / 26),
        (25, "empirical", 2, 24 / 26),
        (39, "conformal", 2, 38 / 40),
        (40, "empirical", 3, 38 / 41),
    ],
)
def test_rules_of_the_operating_point_by_hand(
    cancers: int, rule: ThresholdRule, rank: int, expected: float
) -> None:
    others = np.array([0.05, 0.1])
    score = np.concatenate([others, np.linspace(0.2, 0.9, cancers)])
    is_malignant = np.arange(len(score)) >= len(others)
    point = choose_operating_point(is_malignant, score, 0.95, rule)
    at = len(others) + rank - 1
    halfway = (score[at - 1] + score[at]) / 2
    assert point.threshold == pytest.approx(halfway if rule == "conformal" else score[at])
    assert point.expected_sensitivity == pytest.approx(expected)
    with pytest.raises(ValueError, match="no malignant image"):
        choose_operating_point(np.zeros(3, bool), score[:3], 0.95, rule)


def test_decisions_are_counted_and_carried_to_another_prevalence() -> None:
    is_malignant = np.array([True] * 10 + [False] * 40)
    flagged = np.array([True] * 9 + [False] + [True] * 8 + [False] * 32)
    scores = score_decisions(is_malignant, flagged, prevalence=0.01)
    assert scores["sensitivity"] == pytest.approx(0.9)
    assert scores["specificity"] == pytest.approx(0.8)
    assert scores["ppv"] == pytest.approx(9 / 17)
    assert scores["npv"] == pytest.approx(32 / 33)
    assert scores["ppv_at_prevalence"] == pytest.approx(0.009 / (0.009 + 0.2 * 0.99))
    assert scores["npv_at_prevalence"] == pytest.approx(0.8 * 0.99 / (0.8 * 0.99 + 0.1 * 0.01))
    assert (scores["missed_cancers"], scores["false_alarms"], scores["flagged"]) == (1, 8, 17)
    own = score_decisions(is_malignant, flagged, prevalence=0.2)
    assert own["ppv_at_prevalence"] == pytest.approx(own["ppv"])
    assert own["npv_at_prevalence"] == pytest.approx(own["npv"])


def test_a_value_that_cannot_be_had_is_not_made_up() -> None:
    is_malignant = np.array([True, False])
    assert np.isnan(score_decisions(is_malignant, np.array([False, False]), 0.1)["ppv"])
    with pytest.raises(ValueError, match="malignant and other images"):
        score_decisions(np.array([True]), np.array([True]), 0.1)


def test_referring_the_uncertain_lowers_the_error() -> None:
    correct = np.array([True, False, True, True, False])
    confidence = np.array([0.9, 0.5, 0.8, 0.7, 0.5])
    coverage, error = trace_risk_coverage(correct, confidence)
    np.testing.assert_allclose(coverage, [0.2, 0.4, 0.6, 0.8, 1.0])
    np.testing.assert_allclose(error, [0, 0, 0, 0.25, 0.4])


def test_equal_confidence_has_no_lucky_order() -> None:
    one = trace_risk_coverage(np.array([True, False]), np.array([0.5, 0.5]))
    other = trace_risk_coverage(np.array([False, True]), np.array([0.5, 0.5]))
    np.testing.assert_allclose(one.error, other.error)
    np.testing.assert_allclose(one.error, 0.5)


def test_net_benefit_weighs_false_alarms() -> None:
    is_malignant = np.array([True, True, False, False, False])
    probability = np.array([0.9, 0.3, 0.6, 0.1, 0.1])
    benefit = measure_net_benefit(is_malignant, probability, np.array([0.2, 0.5]))
    np.testing.assert_allclose(benefit, [(2 - 0.25) / 5, (1 - 1) / 5])
    refer_all = measure_net_benefit(is_malignant, np.ones(5), np.array([0.2]))
    np.testing.assert_allclose(refer_all, 0.4 - 0.6 * 0.25)
