"""Intervals: as wide as theory says, wider where images come in groups, honest at the ends."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from busi_pipeline.intervals import add_intervals, draw_groups, find_interval


@given(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=30), st.integers(0, 99))
def test_groups_are_drawn_whole(groups: list[str], seed: int) -> None:
    counts = {g: groups.count(g) for g in groups}
    for rows in draw_groups(groups, 5, seed):
        times = np.bincount(rows, minlength=len(groups))
        drawn = {g: {int(times[i]) for i, h in enumerate(groups) if h == g} for g in counts}
        assert all(len(each) == 1 for each in drawn.values()), "all rows of a group, as often"
        assert sum(each.copy().pop() for each in drawn.values()) == len(counts)


def test_same_seed_same_draws() -> None:
    groups = list("aabbcd")
    one, again, other = (list(draw_groups(groups, 3, seed)) for seed in (1, 1, 2))
    assert [r.tolist() for r in one] == [r.tolist() for r in again]
    assert [r.tolist() for r in one] != [r.tolist() for r in other]


def measure_share(correct: np.ndarray) -> Any:
    return lambda rows: {"images": len(rows), "inner": {"share": float(correct[rows].mean())}}


def test_interval_of_a_share_is_that_of_theory() -> None:
    correct = np.arange(400) % 5 > 0
    everything = measure_share(correct)(np.arange(400))
    scores = add_intervals(
        everything, measure_share(correct), [str(i) for i in range(400)], 2000, seed=0
    )
    half = 1.96 * np.sqrt(0.8 * 0.2 / 400)
    assert scores["images"] == 400
    assert scores["inner"]["share"] == pytest.approx(0.8)
    assert scores["inner"]["share_ci_low"] == pytest.approx(0.8 - half, abs=0.006)
    assert scores["inner"]["share_ci_high"] == pytest.approx(0.8 + half, abs=0.006)
    assert set(scores) == {"images", "inner"}, "a count has no interval"


def test_copies_are_no_evidence() -> None:
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
    blind = width(np.repeat(correct, 4), [str(i) for i in range(400)])
    assert blind == pytest.approx(once / 2, rel=0.15)


@pytest.mark.parametrize(("right", "expected"), [(True, (0.8843, 1.0)), (False, (0.0, 0.1157))])
def test_a_perfect_share_has_no_perfect_interval(
    right: bool, expected: tuple[float, float]
) -> None:
    measure = measure_share(np.full(60, right))
    groups = [str(i // 2) for i in range(60)]
    inner = add_intervals(measure(np.arange(60)), measure, groups, 50, 0)["inner"]
    assert (inner["share_ci_low"], inner["share_ci_high"]) == pytest.approx(expected, abs=1e-4)


def test_samples_that_lack_a_class_do_not_count_unless_they_are_many() -> None:
    def measure(rows: np.ndarray) -> dict[str, float]:
        if 0 not in rows:
            raise ValueError("nothing to measure")
        return {"share": float((rows == 0).mean())}

    groups = [str(i) for i in range(10)]
    scores = add_intervals(measure(np.arange(10)), measure, groups, 300, 0)
    assert scores["share_ci_low"] == pytest.approx(0.1)

    def refuse(rows: np.ndarray) -> dict[str, float]:
        raise ValueError("nothing to measure")

    with pytest.raises(ValueError, match="only 0 of 40 samples of the 10 groups"):
        add_intervals({"share": 0.5}, refuse, groups, 40, 0)


def test_what_could_not_be_computed_is_left_out() -> None:
    assert find_interval(np.array([np.nan, 1.0, 1.0])) == (1.0, 1.0)
