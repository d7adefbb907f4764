"""Intervals: as wide as theory says, wider where images come in groups, honest at the ends."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.proportion import proportion_confint

from busi_pipeline.errors import BadInputError
from busi_pipeline.stats.bootstrap import (
    Derived,
    Trials,
    add_intervals,
    exact_interval,
    percentile_interval,
    resample_groups,
)


@given(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=30), st.integers(0, 99))
def test_groups_are_resampled_whole(groups: list[str], seed: int) -> None:
    counts = {g: groups.count(g) for g in groups}
    for rows in resample_groups(groups, 5, seed):
        times = np.bincount(rows, minlength=len(groups))
        drawn = {g: {int(times[i]) for i, h in enumerate(groups) if h == g} for g in counts}
        assert all(len(each) == 1 for each in drawn.values()), "all rows of a group, as often"
        assert sum(each.copy().pop() for each in drawn.values()) == len(counts)


def test_resamples_of_a_seed_stay_the_same() -> None:
    """Recorded: another order of resampling would change every printed interval."""
    found = [rows.tolist() for rows in resample_groups(list("bbaacd"), 3, seed=1)]
    assert found == [[0, 1, 4, 5, 5], [2, 3, 2, 3, 5, 5], [2, 3, 0, 1, 5, 0, 1]]
    assert found != [rows.tolist() for rows in resample_groups(list("bbaacd"), 3, seed=2)]


def measure_share(correct: np.ndarray) -> Callable[[np.ndarray], dict[str, Any]]:
    return lambda rows: {"images": len(rows), "inner": {"share": float(correct[rows].mean())}}


def test_interval_of_a_share_is_that_of_theory() -> None:
    correct = np.arange(400) % 5 > 0
    everything = measure_share(correct)(np.arange(400))
    scores = add_intervals(
        everything, measure_share(correct), [str(i) for i in range(400)], 2000, seed=0
    )
    low, high = proportion_confint(320, 400, method="wilson")
    assert scores["images"] == 400
    assert scores["inner"]["share"] == pytest.approx(0.8)
    assert scores["inner"]["share_ci_low"] == pytest.approx(low, abs=0.006)
    assert scores["inner"]["share_ci_high"] == pytest.approx(high, abs=0.006)
    assert set(scores) == {"images", "inner"}, "a count has no interval"
    assert list(scores["inner"]) == ["share", "share_ci_low", "share_ci_high"]


def test_duplicates_are_no_evidence() -> None:
    """Every image four times: as wide as with each image once."""
    correct = np.arange(100) % 4 > 0

    def width(right: np.ndarray, groups: list[str]) -> float:
        inner = add_intervals(
            measure_share(right)(np.arange(len(right))), measure_share(right), groups, 1000, 0
        )["inner"]
        return float(inner["share_ci_high"] - inner["share_ci_low"])

    groups = [str(i) for i in range(100)]
    fourfold = [g for g in groups for _ in range(4)]
    once = width(correct, groups)
    assert width(np.repeat(correct, 4), fourfold) == pytest.approx(once)
    ungrouped = width(np.repeat(correct, 4), [str(i) for i in range(400)])
    assert ungrouped == pytest.approx(once / 2, rel=0.15)


@pytest.mark.parametrize("trials", [1, 24, 87])
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_exact_interval_is_clopper_and_pearsons(share: float, trials: int) -> None:
    expected = proportion_confint(round(share * trials), trials, method="beta")
    assert exact_interval(share, trials) == pytest.approx(expected)


def test_of_no_trial_nothing_is_known() -> None:
    assert exact_interval(0.0, 0) == (0.0, 1.0)


@pytest.mark.parametrize("right", [True, False])
def test_share_of_all_rows_counts_all_groups(right: bool) -> None:
    measure = measure_share(np.full(60, right))
    groups = [str(i // 2) for i in range(60)]
    inner = add_intervals(measure(np.arange(60)), measure, groups, 50, 0)["inner"]
    expected = proportion_confint(30 * right, 30, method="beta")
    assert (inner["share_ci_low"], inner["share_ci_high"]) == pytest.approx(expected)


def test_share_counts_the_groups_of_its_own_denominator() -> None:
    """30 of 30 malignant images in 24 groups, among 100 images more: 24 trials, 85.8 %."""
    is_malignant = np.arange(130) < 30
    groups = [f"m{i % 24}" if i < 30 else str(i) for i in range(130)]

    def score(rows: np.ndarray) -> dict[str, float]:
        return {"sensitivity": float(np.ones(130)[rows][is_malignant[rows]].mean())}

    scores = add_intervals(
        score(np.arange(130)), score, groups, 50, 0, {"sensitivity": Trials(is_malignant)}
    )
    assert scores["sensitivity_ci_low"] == pytest.approx(0.858, abs=5e-4)
    assert scores["sensitivity_ci_high"] == 1.0


def test_ranking_counts_the_rarer_kind() -> None:
    groups = np.array(list("aabcde"))
    first, second = groups < "c", groups >= "c"
    assert (Trials(first).count(groups), Trials(second).count(groups)) == (2, 3)
    assert Trials(first, second).count(groups) == Trials(second, first).count(groups) == 2


def test_undefined_samples_do_not_make_a_share_certain() -> None:
    """A sample without a flagged image has no predictive value; the others all say 1."""
    flagged = np.arange(20) < 2

    def score(rows: np.ndarray) -> dict[str, float]:
        return {"ppv": 1.0 if flagged[rows].any() else float("nan")}

    groups = [str(i) for i in range(20)]
    scores = add_intervals(score(np.arange(20)), score, groups, 50, 0, {"ppv": Trials(flagged)})
    expected = proportion_confint(2, 2, method="beta")
    assert (scores["ppv_ci_low"], scores["ppv_ci_high"]) == pytest.approx(expected)


def test_rounding_does_not_make_a_share_certain() -> None:
    def score(rows: np.ndarray) -> dict[str, float]:
        return {"average_precision": 1.0 - 2e-16 * (rows[0] % 2)}

    groups = [str(i) for i in range(10)]
    scores = add_intervals({"average_precision": 1 - 1e-16}, score, groups, 50, 0)
    assert scores["average_precision_ci_low"] == pytest.approx(0.025**0.1)


def test_share_that_varies_keeps_its_percentiles() -> None:
    correct = np.arange(40) > 0
    measure = measure_share(correct)
    groups = [str(i) for i in range(40)]
    inner = add_intervals(measure(np.arange(40)), measure, groups, 200, 0)["inner"]
    values = [float(correct[rows].mean()) for rows in resample_groups(groups, 200, 0)]
    expected = np.percentile(values, [2.5, 97.5])
    assert [inner["share_ci_low"], inner["share_ci_high"]] == pytest.approx(expected)
    assert inner["share_ci_high"] == 1.0


def test_derived_value_has_the_bounds_of_its_sources() -> None:
    def score(rows: np.ndarray) -> dict[str, Any]:
        return {"mean": 1.0, "a": {"share": 1.0}, "b": {"share": 1.0}}

    groups = [str(i) for i in range(10)]
    few = Trials(np.arange(10) < 3)
    scores = add_intervals(
        score(np.arange(10)),
        score,
        groups,
        20,
        0,
        {
            "mean": Derived((("a", "share"), ("b", "share")), lambda a, b: (a + b) / 2),
            "a": {"share": few},
            "b": {"share": Trials(np.ones(10, bool))},
        },
    )
    expected = (0.025 ** (1 / 3) + 0.025 ** (1 / 10)) / 2
    assert scores["mean_ci_low"] == pytest.approx(expected)
    assert scores["mean_ci_high"] == 1.0
    assert list(scores)[:4] == ["mean", "mean_ci_low", "mean_ci_high", "a"]


def test_share_without_a_denominator_is_an_error() -> None:
    with pytest.raises(KeyError, match="forgotten"):
        add_intervals(
            {"share": 0.5, "forgotten": 0.5},
            lambda rows: {"share": 0.5, "forgotten": 0.5},
            ["a", "b"],
            10,
            0,
            {"share": Trials(np.ones(2, bool))},
        )


def test_samples_that_lack_a_class_do_not_count() -> None:
    def measure(rows: np.ndarray) -> dict[str, float]:
        if 0 not in rows:
            raise ValueError("nothing to measure")
        return {"share": float((rows == 0).mean())}

    groups = [str(i) for i in range(10)]
    scores = add_intervals(measure(np.arange(10)), measure, groups, 300, 0)
    assert scores["share_ci_low"] == pytest.approx(0.1)


def test_too_few_samples_are_refused() -> None:
    def refuse(rows: np.ndarray) -> dict[str, float]:
        raise ValueError("nothing to measure")

    with pytest.raises(BadInputError, match="only 0 of 40 samples of the 10 groups"):
        add_intervals({"share": 0.5}, refuse, [str(i) for i in range(10)], 40, 0)


def test_values_that_are_nan_are_left_out(recwarn: pytest.WarningsRecorder) -> None:
    assert percentile_interval(np.array([np.nan, 1.0, 1.0])) == (1.0, 1.0)
    assert np.isnan(percentile_interval(np.array([np.nan, np.nan]))).all()
    assert not recwarn.list
