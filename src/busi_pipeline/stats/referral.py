"""Referral: the error that is left when a human takes the least certain images."""

from typing import NamedTuple

import numpy as np


class RiskCoverage(NamedTuple):
    """Both float (n,): the share of images the model decides itself, its error on them."""

    coverage: np.ndarray
    error: np.ndarray


def trace_risk_coverage(correct: np.ndarray, confidence: np.ndarray) -> RiskCoverage:
    """Return the error on the images that are left when the least certain ones are referred.

    Args:
        correct: bool (n,).
        confidence: float (n,).

    Source: El-Yaniv and Wiener 2010, "On the foundations of noise-free selective classification".
    Images of equal confidence are referred in no order of their own: their mean error counts.
    """
    order = np.argsort(-confidence, kind="stable")
    of_value = np.unique(-confidence[order], return_inverse=True)[1]
    mean = np.bincount(of_value, weights=~correct[order]) / np.bincount(of_value)
    decided = np.arange(1, len(correct) + 1)
    return RiskCoverage(decided / len(correct), np.cumsum(mean[of_value]) / decided)
