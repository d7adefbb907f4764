"""Numbers in the plots as people write them."""

import numpy as np
import pytest

from busi_pipeline.plotting.curves import format_percent, format_threshold, list_thresholds


@pytest.mark.parametrize(
    ("threshold", "text"),
    [
        (0.0, "0"),
        (1e-7, "below 0.0001"),
        (0.00041, "0.00041"),
        (0.0123, "0.012"),
        (0.525, "0.525"),
        (0.9999, "above 0.999"),
        (1.0, "1"),
    ],
)
def test_no_threshold_is_rounded_to_an_end(threshold: float, text: str) -> None:
    assert format_threshold(threshold) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0"), (0.0004, "< 0.1"), (0.012, "1.2"), (0.0996, "10"), (0.5, "50"), (1, "100")],
)
def test_small_shares_keep_a_digit(share: float, text: str) -> None:
    assert format_percent(share) == text


@pytest.mark.parametrize("threshold", [0.0, 1e-9, 0.012, 0.5, 1.0])
def test_thresholds_rise_over_a_range_that_holds_the_chosen_one(threshold: float) -> None:
    thresholds = list_thresholds(np.full(9, 0.03), threshold)
    assert (np.diff(thresholds) > 0).all()
    assert thresholds[0] > 0
    assert thresholds[-1] == 1
    if threshold > 1e-6:
        assert threshold in thresholds
