"""Bins of equal count, with what was predicted and what was observed in each."""

import numpy as np
import pytest

from busi_pipeline.stats.bootstrap import wilson_interval
from busi_pipeline.stats.reliability import measure_reliability


def measure(truth: np.ndarray, probability: np.ndarray) -> dict[str, list[float]]:
    groups = [str(number) for number in range(len(truth))]
    return measure_reliability(truth, probability, groups, 200, 0).to_dict("list")


def test_bins_hold_equally_many_images() -> None:
    probability = np.random.default_rng(0).random(115) ** 6  # most are small
    truth = np.random.default_rng(1).random(115) < probability
    found = measure(truth, probability)
    assert len(found["images"]) == 10
    assert set(found["images"]) == {11, 12}
    order = np.argsort(probability)
    first, last = order[:12], order[-11:]
    assert found["predicted"][0] == pytest.approx(probability[first].mean())
    assert found["predicted"][-1] == pytest.approx(probability[last].mean())
    assert found["observed"][-1] == pytest.approx(truth[last].mean())
    for observed, low, high in zip(
        *(found[f"observed{end}"] for end in ("", "_ci_low", "_ci_high")), strict=True
    ):
        assert 0 <= low <= observed <= high <= 1


def test_a_bin_without_positives_has_an_interval() -> None:
    found = measure(np.arange(40) >= 30, np.arange(40) / 40)
    assert found["images"] == [10] * 4
    assert (found["observed_ci_low"][0], found["observed_ci_high"][0]) == wilson_interval(0, 10)


def test_few_images_have_fewer_bins() -> None:
    assert measure(np.arange(12) > 5, np.arange(12) / 12)["images"] == [12]


def test_images_of_equal_probability_share_a_bin() -> None:
    probability = np.repeat([0.1, 0.9], 50)
    found = measure(np.arange(100) >= 50, probability)
    assert found["images"] == [50, 50]
    assert found["predicted"] == [pytest.approx(0.1), pytest.approx(0.9)]
