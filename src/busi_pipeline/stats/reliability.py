"""How often what a model gives a probability to is there: groups of images of equal count."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from busi_pipeline.stats.bootstrap import HIGH, LOW, Trials, add_intervals

_MOST_BINS, _FEWEST_IMAGES = 10, 10


def measure_reliability(
    truth: np.ndarray,
    probability: np.ndarray,
    groups: Sequence[str],
    n_resamples: int,
    seed: int,
) -> pd.DataFrame:
    """Return predicted probability and observed share, bin by bin.

    Bins hold equally many images, since bins of equal width are empty, or hold one image, where
    all probabilities are small. Images of equal probability share a bin. There are ten bins, or
    fewer where a bin would have fewer than ten images.

    Args:
        truth: bool (n,), is there what the probability is of?
        probability: float (n,), 0 to 1.
        groups: (n,), what is resampled as a whole.
        n_resamples, seed: of the bootstrap.

    Returns one row a bin, by rising probability: `images`, `predicted` (the mean), `observed` (the
    share) with `observed_ci_low` and `observed_ci_high` (see bootstrap.add_intervals).
    """
    bins = min(_MOST_BINS, max(1, len(truth) // _FEWEST_IMAGES))
    rank = rankdata(probability, method="min").astype(int) - 1
    of_bin = np.unique(rank * bins // len(truth), return_inverse=True)[1]
    count = int(of_bin.max()) + 1

    def measure(rows: np.ndarray) -> dict[str, float]:
        images = np.bincount(of_bin[rows], minlength=count)
        found = np.bincount(of_bin[rows], weights=truth[rows], minlength=count)
        # A bin that a sample misses has no share there.
        shares = np.divide(found, images, out=np.full(count, np.nan), where=images > 0)
        return {str(number): float(share) for number, share in enumerate(shares)}

    everything = np.arange(len(truth))
    scores = add_intervals(
        measure(everything),
        measure,
        groups,
        n_resamples,
        seed,
        {str(number): Trials(of_bin == number) for number in range(count)},
    )
    return pd.DataFrame(
        {
            "images": np.bincount(of_bin),
            "predicted": np.bincount(of_bin, weights=probability) / np.bincount(of_bin),
            **{
                f"observed{end}": [scores[f"{number}{end}"] for number in range(count)]
                for end in ("", LOW, HIGH)
            },
        }
    )
