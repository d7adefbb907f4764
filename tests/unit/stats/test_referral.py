"""Referral: risk and coverage by hand."""

import numpy as np

from busi_pipeline.stats.referral import trace_risk_coverage


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
