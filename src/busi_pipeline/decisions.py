"""From a probability of cancer to what is done: operating point, referral, net benefit."""

from typing import Any, Literal, NamedTuple

import numpy as np

ThresholdRule = Literal["conformal", "empirical"]


class OperatingPoint(NamedTuple):
    """A threshold, and what it is expected to find.

    Attributes:
        threshold: an image is flagged where its score is this or above.
        expected_sensitivity: share of new cancers, like those it was chosen on, that it finds on
            average.
    """

    threshold: float
    expected_sensitivity: float


class RiskCoverage(NamedTuple):
    """Both float (n,): the share of images the model decides itself, its error on them."""

    coverage: np.ndarray
    error: np.ndarray


def choose_threshold(is_malignant: np.ndarray, score: np.ndarray, sensitivity: float) -> float:
    """Return the highest threshold at which at least this share of the cancers is flagged.

    Args:
        is_malignant: bool (n,), at least one True.
        score: float (n,); an image is flagged where its score is the threshold or above.
        sensitivity: above 0, at most 1.

    Raises ValueError where there is no cancer to find.
    """
    return choose_operating_point(is_malignant, score, sensitivity, "empirical").threshold


def choose_operating_point(
    is_malignant: np.ndarray, score: np.ndarray, sensitivity: float, rule: ThresholdRule
) -> OperatingPoint:
    """Return the threshold that has the sensitivity by this rule and flags no more than it must.

    Args:
        is_malignant: bool (n,), at least one True.
        score: float (n,), 0 to 1; an image is flagged where its score is the threshold or above.
        sensitivity: above 0, at most 1.
        rule: `empirical`, on these cancers: a share of them is flagged. `conformal`, on others like
            them: of n cancers and a new one each is as likely to have the lowest score, so the
            k-th lowest as threshold misses the new one with a probability of k / (n + 1) at most.
            Fewer than s / (1 - s) cancers cannot promise a sensitivity s; then it is the lowest.
            The threshold lies halfway to the next lower score of any image: in between these images
            tell nothing, and a missed cancer costs more.

    Source of the second: Papadopoulos et al. 2002, "Inductive confidence machines for regression";
    Vovk et al. 2005, "Algorithmic learning in a random world".

    Raises ValueError where there is no cancer to find.
    """
    if rule == "empirical":
        return _flag_all_but((1 - sensitivity) * is_malignant.sum(), is_malignant, score)
    allowed = max(0.0, (1 - sensitivity) * (is_malignant.sum() + 1) - 1)
    lowest, expected = _flag_all_but(allowed, is_malignant, score)
    return OperatingPoint((lowest + score[score < lowest].max(initial=0.0)) / 2, expected)


def _flag_all_but(allowed: float, is_malignant: np.ndarray, score: np.ndarray) -> OperatingPoint:
    cancers = np.sort(score[is_malignant])
    if not len(cancers):
        raise ValueError("no malignant image to choose a threshold on")
    missed = int(np.floor(allowed + 1e-9))
    return OperatingPoint(float(cancers[missed]), 1 - (missed + 1) / (len(cancers) + 1))


def measure_specificity(is_malignant: np.ndarray, score: np.ndarray, sensitivity: float) -> float:
    """Return the share of the others below the threshold that finds this share of the cancers."""
    threshold = choose_threshold(is_malignant, score, sensitivity)
    return float((score[~is_malignant] < threshold).mean())


def score_decisions(
    is_malignant: np.ndarray, flagged: np.ndarray, prevalence: float
) -> dict[str, Any]:
    """Score flagged images against cancers.

    Args:
        is_malignant, flagged: bool (n,).
        prevalence: share of cancers where the model is to be used, for the predictive values there.

    Returns sensitivity, specificity, ppv, npv as shares (nan where nothing, or everything, is
    flagged), `ppv_at_prevalence` and `npv_at_prevalence` by Bayes' rule, and the counts images,
    cancers, missed_cancers, false_alarms, flagged. Raises ValueError where either kind of image is
    missing.
    """
    cancers, others = int(is_malignant.sum()), int((~is_malignant).sum())
    if not cancers or not others:
        raise ValueError("malignant and other images are needed to score a decision")
    found = int((is_malignant & flagged).sum())
    alarms = int((~is_malignant & flagged).sum())
    sensitivity, specificity = found / cancers, 1 - alarms / others
    ill, well = prevalence, 1 - prevalence
    return {
        "sensitivity": sensitivity,
        "specificity": specificity,
        "ppv": _share(found, found + alarms),
        "npv": _share(others - alarms, len(flagged) - found - alarms),
        "ppv_at_prevalence": _share(
            sensitivity * ill, sensitivity * ill + (1 - specificity) * well
        ),
        "npv_at_prevalence": _share(
            specificity * well, specificity * well + (1 - sensitivity) * ill
        ),
        "images": len(flagged),
        "cancers": cancers,
        "missed_cancers": cancers - found,
        "false_alarms": alarms,
        "flagged": found + alarms,
    }


def trace_risk_coverage(correct: np.ndarray, confidence: np.ndarray) -> RiskCoverage:
    """Return the error on the images that are left when the least certain ones are handed on.

    Args:
        correct: bool (n,).
        confidence: float (n,).

    Source: El-Yaniv and Wiener 2010, "On the foundations of noise-free selective classification".
    Images of equal confidence are handed on together in expectation: their mean error counts.
    """
    order = np.argsort(-confidence, kind="stable")
    of_value = np.unique(-confidence[order], return_inverse=True)[1]
    mean = np.bincount(of_value, weights=~correct[order]) / np.bincount(of_value)
    decided = np.arange(1, len(correct) + 1)
    return RiskCoverage(decided / len(correct), np.cumsum(mean[of_value]) / decided)


def measure_net_benefit(
    is_malignant: np.ndarray, probability: np.ndarray, thresholds: np.ndarray
) -> np.ndarray:
    """Return float (thresholds,): cancers found per image, less false alarms at the going rate.

    A threshold probability t says how many false alarms a found cancer is worth, (1 - t) / t. To
    refer all is `probability` 1 for every image; to refer none has a net benefit of 0.
    Source: Vickers and Elkin 2006, "Decision curve analysis", Medical Decision Making 26.
    """
    flagged = probability[None, :] >= np.asarray(thresholds)[:, None]
    found = (flagged & is_malignant).sum(axis=1)
    alarms = (flagged & ~is_malignant).sum(axis=1)
    rate = thresholds / (1 - thresholds)
    return (found - alarms * rate) / len(is_malignant)


def _share(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")
