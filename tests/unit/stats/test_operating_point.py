"""The flag: its threshold and predictive values, against sums done by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, logit
from scipy.stats import norm
from statsmodels.stats.proportion import proportion_confint

from busi_pipeline.stats.bootstrap import add_intervals, wilson_interval
from busi_pipeline.stats.operating_point import (
    ThresholdRule,
    choose_threshold,
    choose_threshold_by_rule,
    list_flag_denominators,
    measure_specificity,
    score_flag,
)


@given(
    st.lists(st.tuples(st.booleans(), st.floats(0, 1)), min_size=1, max_size=60),
    st.floats(0.05, 1.0),
)
def test_threshold_is_the_highest_that_reaches_the_target(
    rows: list[tuple[bool, float]], target: float
) -> None:
    is_positive = np.array([positive for positive, _ in rows])
    score = np.array([s for _, s in rows])
    if not is_positive.any():
        with pytest.raises(ValueError, match="no positive image"):
            choose_threshold(is_positive, score, target)
        return
    threshold = choose_threshold(is_positive, score, target)
    assert (score[is_positive] >= threshold).mean() >= target - 1e-9
    higher = score[is_positive & (score > threshold)]
    if len(higher):
        assert (score[is_positive] >= higher.min()).mean() < target


@given(st.lists(st.floats(0, 1), min_size=2, max_size=60), st.floats(0.05, 1.0))
def test_conformal_threshold_finds_new_positives(scores: list[float], target: float) -> None:
    positives = np.array(scores)
    missed, expected = 0, 0.0
    for one in range(len(positives)):  # each in turn is the new one
        seen = np.delete(positives, one)
        chosen = choose_threshold_by_rule(np.ones(len(seen), bool), seen, target, "conformal")
        missed += positives[one] < chosen.threshold
        expected += chosen.expected_sensitivity / len(positives)
        if chosen.expected_sensitivity < target - 1e-9:
            assert (seen >= chosen.threshold).all(), "as low as these positives allow"
    assert 1 - missed / len(positives) >= expected - 1e-9
    if len(positives) * (1 - target) >= 1:
        assert expected >= target - 1e-9


@pytest.mark.parametrize("positives", [19, 60, 200])
def test_conformal_promises_are_kept_over_sites(positives: int) -> None:
    rng = np.random.default_rng(positives)
    target, found, expected = 0.95, [], []
    for _ in range(2000):  # sites with a difficulty of their own
        ease = rng.normal(2.0, 1.0)
        score = expit(rng.normal(ease, 1.0, positives))
        chosen = choose_threshold_by_rule(np.ones(positives, bool), score, target, "conformal")
        found.append(norm.sf(logit(chosen.threshold), loc=ease))
        expected.append(chosen.expected_sensitivity)
    error = np.std(found) / np.sqrt(len(found))
    assert np.mean(expected) >= target - 1e-9
    assert np.mean(found) >= np.mean(expected) - 3 * error


@pytest.mark.parametrize(
    ("positives", "rule", "target", "rank", "expected"),
    [
        (18, "conformal", 0.95, 1, 18 / 19),
        (25, "conformal", 0.95, 1, 25 / 26),
        (25, "empirical", 0.95, 2, 24 / 26),
        (39, "conformal", 0.95, 2, 38 / 40),
        (40, "empirical", 0.95, 3, 38 / 41),
        (99, "conformal", 0.93, 7, 0.93),
        (20, "empirical", 1.0, 1, 20 / 21),
    ],
)
def test_threshold_rules_by_hand(
    positives: int, rule: ThresholdRule, target: float, rank: int, expected: float
) -> None:
    negatives = np.array([0.05, 0.1])
    score = np.concatenate([negatives, np.linspace(0.2, 0.9, positives)])
    is_positive = np.arange(len(score)) >= len(negatives)
    chosen = choose_threshold_by_rule(is_positive, score, target, rule)
    at = len(negatives) + rank - 1
    halfway = (score[at - 1] + score[at]) / 2
    assert chosen.threshold == pytest.approx(halfway if rule == "conformal" else score[at])
    assert chosen.expected_sensitivity == pytest.approx(expected)
    with pytest.raises(ValueError, match="no positive image"):
        choose_threshold_by_rule(np.zeros(3, bool), score[:3], target, rule)


def test_lowest_positive_goes_halfway_to_zero() -> None:
    chosen = choose_threshold_by_rule(np.array([True]), np.array([0.4]), 0.9, "conformal")
    assert chosen.threshold == pytest.approx(0.2)
    assert chosen.expected_sensitivity == pytest.approx(0.5)


def test_specificity_needs_both_kinds() -> None:
    assert measure_specificity(np.array([True, False]), np.array([0.5, 0.5]), 0.9) == 0
    for kind in (True, False):
        with pytest.raises(ValueError, match=r"no (positive|negative) image"):
            measure_specificity(np.array([kind]), np.array([0.5]), 0.9)


def test_flag_is_counted_and_carried_to_a_prevalence() -> None:
    is_positive = np.array([True] * 10 + [False] * 40)
    flagged = np.array([True] * 9 + [False] + [True] * 8 + [False] * 32)
    scores = score_flag(is_positive, flagged, prevalence=0.01)
    assert scores["sensitivity"] == pytest.approx(0.9)
    assert scores["specificity"] == pytest.approx(0.8)
    assert scores["ppv"] == pytest.approx(9 / 17)
    assert scores["npv"] == pytest.approx(32 / 33)
    assert scores["ppv_at_prevalence"] == pytest.approx(0.009 / (0.009 + 0.2 * 0.99))
    assert scores["npv_at_prevalence"] == pytest.approx(0.8 * 0.99 / (0.8 * 0.99 + 0.1 * 0.01))
    counts = {"images": 50, "positives": 10, "missed": 1, "false_alarms": 8, "flagged": 17}
    assert {name: scores[name] for name in counts} == counts
    own = score_flag(is_positive, flagged, prevalence=0.2)
    assert own["ppv_at_prevalence"] == pytest.approx(own["ppv"])
    assert own["npv_at_prevalence"] == pytest.approx(own["npv"])


@pytest.mark.parametrize(("flag", "undefined"), [(False, "ppv"), (True, "npv")])
def test_value_of_no_image_is_not_made_up(flag: bool, undefined: str) -> None:
    scores = score_flag(np.array([True, False]), np.array([flag, flag]), 0.1)
    assert np.isnan(scores[undefined])
    assert np.isnan(scores[f"{undefined}_at_prevalence"])
    with pytest.raises(ValueError, match="positive and negative images"):
        score_flag(np.array([flag]), np.array([True]), 0.1)


def score_with_intervals(
    is_positive: np.ndarray, flagged: np.ndarray, groups: list[str], prevalence: float = 0.1
) -> dict[str, float]:
    def score(rows: np.ndarray) -> dict[str, float]:
        return score_flag(is_positive[rows], flagged[rows], prevalence)

    return add_intervals(
        score(np.arange(len(groups))),
        score,
        groups,
        100,
        0,
        list_flag_denominators(is_positive, flagged, prevalence),
    )


def test_perfect_flag_counts_each_denominators_groups() -> None:
    """30 positives in 24 groups, six of them of two, are flagged, with 9 of 100 negatives."""
    is_positive = np.arange(130) < 30
    flagged = np.arange(130) < 39
    groups = [f"m{i % 24}" if i < 30 else f"n{i // 2}" for i in range(130)]
    scores = score_with_intervals(is_positive, flagged, groups)
    assert scores["sensitivity_ci_low"] == pytest.approx(wilson_interval(1, 30**2 / 42)[0])
    assert round(100 * scores["sensitivity_ci_low"], 1) == 84.8
    not_flagged = 91**2 / (45 * 4 + 1)  # 45 pairs, and one whose other image is flagged
    assert scores["npv_ci_low"] == pytest.approx(wilson_interval(1, not_flagged)[0])
    assert scores["specificity_ci_high"] < 1
    low = scores["sensitivity_ci_low"]
    specificity = scores["specificity"]  # where no positive is missed, it does not count
    assert scores["npv_at_prevalence_ci_low"] == pytest.approx(
        specificity * 0.9 / (specificity * 0.9 + (1 - low) * 0.1)
    )
    assert scores["npv_at_prevalence_ci_high"] == 1


def test_npv_of_few_is_uncertain() -> None:
    """Four images in three groups are not flagged, and none of them is positive."""
    is_positive = np.arange(40) < 20
    flagged = np.arange(40) < 36
    groups = [str(i) for i in range(39)] + ["38"]
    scores = score_with_intervals(is_positive, flagged, groups)
    assert scores["npv"] == 1
    assert scores["npv_ci_low"] == pytest.approx(wilson_interval(1, 4**2 / 6)[0])


def test_ppv_of_few_is_uncertain() -> None:
    """Two images of one patient are flagged, and both are positive."""
    is_positive = np.arange(40) < 20
    flagged = np.arange(40) < 2
    groups = ["0", "0"] + [str(i) for i in range(2, 40)]
    scores = score_with_intervals(is_positive, flagged, groups)
    assert scores["ppv"] == 1
    assert scores["ppv_ci_low"] == pytest.approx(proportion_confint(1, 1, method="wilson")[0])
    specificity = scores["specificity_ci_low"]
    assert specificity == pytest.approx(proportion_confint(20, 20, method="wilson")[0])
    right = scores["sensitivity"] * 0.1  # where there is no false alarm, it does not count
    expected = right / (right + (1 - specificity) * 0.9)
    assert scores["ppv_at_prevalence_ci_low"] == pytest.approx(expected)
    assert scores["ppv_at_prevalence_ci_high"] == 1


def test_flag_that_finds_nothing_has_a_wide_interval() -> None:
    is_positive = np.arange(40) < 8
    flagged = np.arange(40) >= 30
    scores = score_with_intervals(is_positive, flagged, [str(i) for i in range(40)])
    assert (scores["sensitivity"], scores["sensitivity_ci_low"]) == (0, 0)
    high = proportion_confint(0, 8, method="wilson")[1]
    assert scores["sensitivity_ci_high"] == pytest.approx(high)
    assert scores["ppv_ci_high"] == pytest.approx(proportion_confint(0, 10, method="wilson")[1])
    specificity = scores["specificity"]  # where nothing is found, it does not count
    assert scores["ppv_at_prevalence_ci_high"] == pytest.approx(
        high * 0.1 / (high * 0.1 + (1 - specificity) * 0.9)
    )


@pytest.mark.parametrize("rule", ["conformal", "empirical"])
def test_a_threshold_is_a_plain_number_that_files_take(rule: ThresholdRule) -> None:
    is_positive, score = np.array([True, True, False]), np.array([0.9, 0.4, 0.2])
    chosen = choose_threshold_by_rule(is_positive, score, 0.95, rule)
    assert type(chosen.threshold) is type(chosen.expected_sensitivity) is float
