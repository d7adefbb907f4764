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
    count_trials,
    percentile_interval,
    resample_groups,
    wilson_interval,
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


@pytest.mark.parametrize(
    ("found", "trials"), [(0, 1), (1, 1), (0, 24), (24, 24), (3, 87), (40, 87)]
)
def test_wilsons_interval_is_statsmodels(found: int, trials: int) -> None:
    expected = proportion_confint(found, trials, method="wilson")
    assert wilson_interval(found / trials, trials) == pytest.approx(expected)


def test_of_no_trial_nothing_is_known() -> None:
    assert wilson_interval(0.0, 0) == (0.0, 1.0)


def test_trials_are_as_many_as_have_the_variance() -> None:
    """Many exceptions: the samples' variance counts. None: only the number of groups."""
    rng = np.random.default_rng(0)
    of_images = rng.binomial(400, 0.5, 4000) / 400
    assert count_trials(0.5, of_images, 100) == pytest.approx(400, rel=0.05)
    assert count_trials(1.0, np.ones(4000), 100) == 100
    one_exception = rng.binomial(400, 1 / 400, 4000) / 400
    assert count_trials(1 / 400, one_exception, 100) == pytest.approx(200, rel=0.1)


@pytest.mark.parametrize("right", [10, 12, 20, 30])
@pytest.mark.parametrize("count", [1, 10])
def test_samples_that_say_nothing_leave_the_number_of_groups(right: int, count: int) -> None:
    """All images in one group, or groups that are all the same: so is each sample.

    Shares that binary fractions do not have differ by rounding from sample to sample.
    """
    correct = np.tile(np.arange(30) < right, count)
    measure = measure_share(correct)
    names = np.repeat([f"g{n}" for n in range(count)], 30).tolist()
    inner = add_intervals(measure(np.arange(30 * count)), measure, names, 50, 0)["inner"]
    found = inner["share_ci_low"], inner["share_ci_high"]
    assert found == pytest.approx(wilson_interval(right / 30, count))


def test_there_are_no_more_trials_than_rows() -> None:
    """Pairs of one right and one wrong image have samples of almost no variance."""
    rows = np.array([1, 0] * 10 + [1, 1], dtype=float)
    measure = measure_share(rows)
    names = np.repeat([f"g{n}" for n in range(11)], 2).tolist()
    inner = add_intervals(measure(np.arange(22)), measure, names, 400, 0)["inner"]
    low, high = wilson_interval(12 / 22, 22)
    assert inner["share_ci_low"] <= low + 1e-9
    assert inner["share_ci_high"] >= high - 1e-9


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_intervals_hold_the_truth_as_often_as_they_say(share: float) -> None:
    """50 groups of one to four images that are right and wrong together; 93 to 97 % of many sets.

    `benchmarks/interval_coverage.py` has more shares and groups, and 2000 sets.
    """
    rng = np.random.default_rng(round(100 * share))
    held = 0
    for n in range(300):
        groups = np.repeat(np.arange(50), rng.integers(1, 5, 50))
        right = (rng.random(len(groups)) < rng.beta(share, 1 - share, 50)[groups]).astype(float)
        measure = measure_share(right)
        names = groups.astype(str).tolist()
        inner = add_intervals(measure(np.arange(len(right))), measure, names, 100, n)["inner"]
        held += inner["share_ci_low"] <= share <= inner["share_ci_high"]
    assert 0.91 <= held / 300 <= 0.98


@pytest.mark.parametrize("right", [True, False])
def test_share_of_all_rows_counts_all_groups(right: bool) -> None:
    measure = measure_share(np.full(60, right))
    groups = [str(i // 2) for i in range(60)]
    inner = add_intervals(measure(np.arange(60)), measure, groups, 50, 0)["inner"]
    expected = proportion_confint(30 * right, 30, method="wilson")
    assert (inner["share_ci_low"], inner["share_ci_high"]) == pytest.approx(expected)


def test_share_counts_the_groups_of_its_own_denominator() -> None:
    """30 of 30 malignant images in 24 groups, six of them of two, among 100 images more."""
    is_malignant = np.arange(130) < 30
    groups = [f"m{i % 24}" if i < 30 else str(i) for i in range(130)]

    def score(rows: np.ndarray) -> dict[str, float]:
        return {"sensitivity": float(np.ones(130)[rows][is_malignant[rows]].mean())}

    scores = add_intervals(
        score(np.arange(130)), score, groups, 50, 0, {"sensitivity": Trials(is_malignant)}
    )
    assert scores["sensitivity_ci_low"] == pytest.approx(wilson_interval(1, 30**2 / 42)[0])
    assert scores["sensitivity_ci_low"] == pytest.approx(0.848, abs=5e-4)
    assert scores["sensitivity_ci_high"] == 1.0


def test_ranking_counts_the_rarer_kind() -> None:
    groups = np.array(list("aabcde"))
    first, second = groups < "c", groups >= "c"
    assert (Trials(first).count(groups), Trials(second).count(groups)) == (1.8, 3)
    assert Trials(first, second).count(groups) == Trials(second, first).count(groups) == 1.8
    assert Trials(groups > "x").count(groups) == 0


def test_undefined_samples_do_not_make_a_share_certain() -> None:
    """A sample without a flagged image has no predictive value; the others all say 1."""
    flagged = np.arange(20) < 2

    def score(rows: np.ndarray) -> dict[str, float]:
        return {"ppv": 1.0 if flagged[rows].any() else float("nan")}

    groups = [str(i) for i in range(20)]
    scores = add_intervals(score(np.arange(20)), score, groups, 50, 0, {"ppv": Trials(flagged)})
    expected = proportion_confint(2, 2, method="wilson")
    assert (scores["ppv_ci_low"], scores["ppv_ci_high"]) == pytest.approx(expected)


def test_rounding_does_not_make_a_share_certain() -> None:
    def score(rows: np.ndarray) -> dict[str, float]:
        return {"average_precision": 1.0 - 2e-16 * (rows[0] % 2)}

    groups = [str(i) for i in range(10)]
    scores = add_intervals({"average_precision": 1 - 1e-16}, score, groups, 50, 0)
    assert scores["average_precision_ci_low"] == pytest.approx(wilson_interval(1, 10)[0])


def test_what_is_no_share_has_the_percentiles_of_its_samples() -> None:
    correct = np.arange(40) > 0
    measure = measure_share(correct)
    groups = [str(i) for i in range(40)]
    rule = {"inner": {"share": Trials(np.ones(40, bool), by_percentiles=True)}}
    inner = add_intervals(measure(np.arange(40)), measure, groups, 200, 0, rule)["inner"]
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
    expected = (wilson_interval(1, 3)[0] + wilson_interval(1, 10)[0]) / 2
    assert scores["mean_ci_low"] == pytest.approx(expected)
    assert scores["mean_ci_high"] == 1.0
    assert list(scores)[:4] == ["mean", "mean_ci_low", "mean_ci_high", "a"]


@pytest.mark.parametrize("alike", [True, False])
def test_bounds_of_a_mean_are_those_of_theory(alike: bool) -> None:
    """The mean of two shares is as uncertain as either where they are alike, else less."""
    first = np.arange(4000) % 2 == 0
    second = first if alike else np.arange(4000) // 2 % 2 == 0

    def score(rows: np.ndarray) -> dict[str, float]:
        one, other = float(first[rows].mean()), float(second[rows].mean())
        return {"mean": (one + other) / 2, "one": one, "other": other}

    everything = Trials(np.ones(4000, bool))
    rules = {
        "mean": Derived(("one", "other"), lambda one, other: (one + other) / 2),
        "one": everything,
        "other": everything,
    }
    groups = [str(i) for i in range(4000)]
    scores = add_intervals(score(np.arange(4000)), score, groups, 400, 0, rules)
    half = 1.96 * np.sqrt(0.25 / 4000) / (1 if alike else np.sqrt(2))
    assert scores["mean_ci_low"] == pytest.approx(0.5 - half, rel=0.005)
    assert scores["mean_ci_high"] == pytest.approx(0.5 + half, rel=0.005)


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
    rule = {"share": Trials(np.ones(10, bool), by_percentiles=True)}
    scores = add_intervals(measure(np.arange(10)), measure, groups, 300, 0, rule)
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
