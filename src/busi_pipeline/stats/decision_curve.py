"""Decision curves: is a model worth having at a threshold probability?"""

import numpy as np


def measure_net_benefit(
    is_positive: np.ndarray, probability: np.ndarray, thresholds: np.ndarray
) -> np.ndarray:
    """Return float (thresholds,): positives found per image, less false alarms at the going rate.

    Args:
        is_positive: bool (n,).
        probability: float (n,), of being positive.
        thresholds: float (thresholds,), 0 to below 1. A threshold probability t says that a found
            positive is worth (1 - t) / t false alarms.

    To refer all is `probability` 1 for every image; to refer none has a net benefit of 0.
    Source: Vickers and Elkin 2006, "Decision curve analysis", Medical Decision Making 26.
    """
    flagged = probability[None, :] >= np.asarray(thresholds)[:, None]
    found = (flagged & is_positive).sum(axis=1)
    alarms = (flagged & ~is_positive).sum(axis=1)
    rate = thresholds / (1 - thresholds)
    return (found - alarms * rate) / len(is_positive)
