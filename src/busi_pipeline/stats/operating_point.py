"""From a positive score to a flag: the choice of the threshold, and what the flag is worth."""

from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np

from busi_pipeline.stats.bootstrap import Denominators, Derived, Trials

ThresholdRule = Literal["conformal", "empirical"]
# After a low temperature, scores in single and in double precision differ by some 1e-5 of their
# value.
_TOLERANCE = 1e-4
_UNDERFLOW = 1e-30  # scores below it are 0 in single precision, or nearly


class ChosenThreshold(NamedTuple):
    """A threshold, and what it is expected to find.

    Attributes:
        threshold: an image is flagged where its score is this or above.
        expected_sensitivity: share of new positive images, like those it was chosen on, that it
            finds on average.
    """

    threshold: float
    expected_sensitivity: float


def choose_threshold(is_positive: np.ndarray, score: np.ndarray, sensitivity: float) -> float:
    """Return the highest threshold at which at least this share of the positives is flagged.

    Args:
        is_positive: bool (n,), at least one True.
        score: float (n,); an image is flagged where its score is the threshold or above.
        sensitivity: above 0, at most 1.

    Raises ValueError where no image is positive.
    """
    return choose_threshold_by_rule(is_positive, score, sensitivity, "empirical").threshold


def choose_threshold_by_rule(
    is_positive: np.ndarray, score: np.ndarray, sensitivity: float, rule: ThresholdRule
) -> ChosenThreshold:
    """Return the threshold that has the sensitivity by this rule and flags no more than it must.

    Args:
        is_positive: bool (n,), at least one True.
        score: float (n,), 0 to 1; an image is flagged where its score is the threshold or above.
        sensitivity: above 0, at most 1.
        rule: `empirical`, on these positives: a share of them is flagged. `conformal`, on others
            like them: of n positives and a new one each is as likely to have the lowest score, so
            the k-th lowest as threshold misses the new one with a probability of k / (n + 1) at
            most. Fewer than s / (1 - s) positives cannot promise a sensitivity s; then it is the
            lowest. The threshold lies halfway to the next lower score of any image: in between,
            these images give no information, and a missed positive costs more.

    Source of the second: Papadopoulos et al. 2002, "Inductive confidence machines for regression";
    Vovk et al. 2005, "Algorithmic learning in a random world".

    Raises ValueError where no image is positive.
    """
    if rule == "empirical":
        return _flag_all_but((1 - sensitivity) * is_positive.sum(), is_positive, score)
    allowed = max(0.0, (1 - sensitivity) * (is_positive.sum() + 1) - 1)
    lowest, expected = _flag_all_but(allowed, is_positive, score)
    below = float(score[score < lowest].max(initial=0.0))
    return ChosenThreshold((lowest + below) / 2, expected)


def allow_single_precision(threshold: float) -> float:
    """Return a threshold, a little lower, for scores that a model computed in single precision.

    These must not take the flag from an image whose score is the threshold itself.
    """
    return threshold * (1 - _TOLERANCE) - _UNDERFLOW


def _flag_all_but(allowed: float, is_positive: np.ndarray, score: np.ndarray) -> ChosenThreshold:
    positives = np.sort(score[is_positive])
    if not len(positives):
        raise ValueError("no positive image to choose a threshold on")
    missed = int(np.floor(allowed + 1e-9))
    return ChosenThreshold(float(positives[missed]), 1 - (missed + 1) / (len(positives) + 1))


def measure_specificity(is_positive: np.ndarray, score: np.ndarray, sensitivity: float) -> float:
    """Return the share of negatives below the threshold that finds this share of the positives.

    Args: see choose_threshold. Raises ValueError where either kind of image is missing.
    """
    threshold = choose_threshold(is_positive, score, sensitivity)
    if is_positive.all():
        raise ValueError("no negative image to measure a specificity on")
    return float((score[~is_positive] < threshold).mean())


def score_flag(is_positive: np.ndarray, flagged: np.ndarray, prevalence: float) -> dict[str, Any]:
    """Score flagged images against positive ones.

    Args:
        is_positive, flagged: bool (n,).
        prevalence: share of positives where the model is to be used, for the predictive values
            there.

    Returns sensitivity, specificity, ppv, npv as shares (nan where nothing, or everything, is
    flagged), `ppv_at_prevalence` and `npv_at_prevalence` by Bayes' rule, and the counts images,
    positives, missed (positives that are not flagged), false_alarms, flagged. Raises ValueError
    where either kind of image is missing.
    """
    positives, negatives = int(is_positive.sum()), int((~is_positive).sum())
    if not positives or not negatives:
        raise ValueError("positive and negative images are needed to score a flag")
    found = int((is_positive & flagged).sum())
    alarms = int((~is_positive & flagged).sum())
    sensitivity, specificity = found / positives, 1 - alarms / negatives
    return {
        "sensitivity": sensitivity,
        "specificity": specificity,
        "ppv": _divide(found, found + alarms),
        "npv": _divide(negatives - alarms, len(flagged) - found - alarms),
        "ppv_at_prevalence": _carry_ppv(sensitivity, specificity, prevalence=prevalence),
        "npv_at_prevalence": _carry_npv(sensitivity, specificity, prevalence=prevalence),
        "images": len(flagged),
        "positives": positives,
        "missed": positives - found,
        "false_alarms": alarms,
        "flagged": found + alarms,
    }


def list_flag_denominators(
    is_positive: np.ndarray, flagged: np.ndarray, prevalence: float
) -> Denominators:
    """Return what each share of score_flag, of the same arguments, is counted over."""
    rates = ("sensitivity", "specificity")
    return {
        "sensitivity": Trials(is_positive),
        "specificity": Trials(~is_positive),
        "ppv": Trials(flagged),
        "npv": Trials(~flagged),
        "ppv_at_prevalence": Derived(rates, partial(_carry_ppv, prevalence=prevalence)),
        "npv_at_prevalence": Derived(rates, partial(_carry_npv, prevalence=prevalence)),
    }


def _carry_ppv(sensitivity: float, specificity: float, prevalence: float) -> float:
    right = sensitivity * prevalence
    return _divide(right, right + (1 - specificity) * (1 - prevalence))


def _carry_npv(sensitivity: float, specificity: float, prevalence: float) -> float:
    right = specificity * (1 - prevalence)
    return _divide(right, right + (1 - sensitivity) * prevalence)


def _divide(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")
