"""What a flag means where the reader works."""

from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd

from busi_pipeline.errors import BadInputError
from busi_pipeline.models.package_parts import read_tested
from busi_pipeline.models.packaged import PackagedModel
from busi_pipeline.models.reading import read_classes
from busi_pipeline.stats.bootstrap import HIGH, LOW, add_intervals
from busi_pipeline.stats.classes import Classes
from busi_pipeline.stats.operating_point import list_flag_denominators, score_flag

_RESAMPLES, _SEED, _MOST_KNOWN = 500, 42, 64


class Share(NamedTuple):
    """Attributes: `value`; `low` and `high`, the 95 % confidence interval. Shares, 0 to 1."""

    value: float
    low: float
    high: float


class Meaning(NamedTuple):
    """What is known of a model's flag, from the images that it was tested on.

    Attributes:
        prevalence: share of positive images that the next two are for.
        positive_if_flagged: share of flagged images that are positive.
        positive_if_not: share of the others that are.
        sensitivity, specificity: of the flag.
        images, positives: that it was tested on.
    """

    prevalence: float
    positive_if_flagged: Share
    positive_if_not: Share
    sensitivity: Share
    specificity: Share
    images: int
    positives: int


class Meanings:
    """What the flags of models mean, computed once for each prevalence."""

    def __init__(self) -> None:
        """Start with none."""
        self._known: dict[tuple[str, float], Meaning | None] = {}

    def find(self, model: PackagedModel, prevalence: float) -> Meaning | None:
        """Return it; None where the model was tested on too few images of either kind.

        Args:
            model: whose package names what it was tested on.
            prevalence: 0 to 1, both not included.

        Raises BadInputError where the package was changed.
        """
        key = (model.version, prevalence)
        if key not in self._known:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[key] = measure_flag(
                read_tested(model), read_classes(model.description), prevalence
            )
        return self._known[key]


def measure_flag(tested: pd.DataFrame, classes: Classes, prevalence: float) -> Meaning | None:
    """Return what a flag means; see `Meanings.find`.

    Args:
        tested: `label`, `flagged`, `group`, `repeat`; of several repeats the first counts.
    """
    once = tested[tested["repeat"] == tested["repeat"].min()]
    positive, flagged = classes.is_positive(once["label"]), once["flagged"].to_numpy(bool)
    try:
        scores = score_flag(positive, flagged, prevalence)
        found = add_intervals(
            scores,
            lambda rows: score_flag(positive[rows], flagged[rows], prevalence),
            once["group"].tolist(),
            _RESAMPLES,
            _SEED,
            list_flag_denominators(positive, flagged, prevalence),
        )
    except (ValueError, BadInputError):
        return None
    npv = _take(found, "npv_at_prevalence")
    return Meaning(
        prevalence,
        _take(found, "ppv_at_prevalence"),
        Share(1 - npv.value, 1 - npv.high, 1 - npv.low),
        _take(found, "sensitivity"),
        _take(found, "specificity"),
        scores["images"],
        scores["positives"],
    )


def _take(found: Mapping[str, float], name: str) -> Share:
    return Share(found[name], found[name + LOW], found[name + HIGH])
