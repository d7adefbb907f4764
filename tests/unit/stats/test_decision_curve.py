"""Net benefit against sums by hand and the published values of the R package dcurves."""

import numpy as np
import pytest

from busi_pipeline.stats.decision_curve import measure_net_benefit


def test_net_benefit_weighs_false_alarms() -> None:
    is_positive = np.array([True, True, False, False, False])
    probability = np.array([0.9, 0.3, 0.6, 0.1, 0.1])
    benefit = measure_net_benefit(is_positive, probability, np.array([0.2, 0.5]))
    np.testing.assert_allclose(benefit, [(2 - 0.25) / 5, (1 - 1) / 5])
    refer_all = measure_net_benefit(is_positive, np.ones(5), np.array([0.2]))
    np.testing.assert_allclose(refer_all, 0.4 - 0.6 * 0.25)


def test_image_at_the_threshold_is_referred() -> None:
    benefit = measure_net_benefit(np.array([True]), np.array([0.5]), np.array([0.5, 0.51]))
    assert benefit.tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("threshold", "refer_all", "family_history"),
    [
        (0.01, 0.13131313131313133, 0.030774410774410774),
        (0.10, 0.04444444444444447, 0.018518518518518517),
        (0.20, -0.07499999999999998, 0.001666666666666667),
        (0.35, -0.3230769230769232, -0.03333333333333334),
        (0.50, -0.72, -0.08933333333333333),
    ],
)
def test_net_benefit_is_that_of_dcurves(
    threshold: float, refer_all: float, family_history: float
) -> None:
    """Its example of 750 patients: 105 have cancer, 24 of these and 91 others a family history."""
    is_positive = np.arange(750) < 105
    history = (np.arange(750) < 24) | (np.arange(750) >= 750 - 91)
    thresholds = np.array([threshold])
    assert measure_net_benefit(is_positive, np.ones(750), thresholds) == pytest.approx(refer_all)
    found = measure_net_benefit(is_positive, history.astype(float), thresholds)
    assert found == pytest.approx(family_history)
