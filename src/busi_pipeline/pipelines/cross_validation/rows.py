"""All rows that were cross-validated: their ensemble, and whether one is better than another."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from busi_pipeline.errors import BadInputError
from busi_pipeline.experiments import ENSEMBLE
from busi_pipeline.judging import probability_columns

from .nodes import judge_folds, score_folds

_KEYS = ["repeat", "fold", "split", "image_id"]


def average_rows(
    judging: Mapping[str, Any], classes: list[str], *predictions: pd.DataFrame
) -> pd.DataFrame:
    """Return the mean of the rows' probabilities before calibration, judged anew: an ensemble.

    Calibration and threshold come from each fold's validation images, as for a single row; a row's
    own calibration before it would bring the class frequencies in twice.

    Args:
        judging: see `judge_folds`.
        classes: in the order of the probabilities.
        predictions: of `judge_folds`, one table a row, of the same folds.

    Raises BadInputError where the rows were judged on different folds.
    """
    ordered = [table.sort_values(_KEYS, ignore_index=True) for table in predictions]
    if any(not table[_KEYS].equals(ordered[0][_KEYS]) for table in ordered):
        raise BadInputError(
            "the experiments were cross-validated on different folds: run "
            "`kedro run --pipeline=cross_validation`, which does again what is out of date."
        )
    raw = probability_columns(classes, raw=True)
    mean = ordered[0][[*_KEYS, "group", "label"]].copy()
    mean[raw] = np.mean([table[raw].to_numpy() for table in ordered], axis=0)
    return judge_folds(mean, judging, classes)


def score_ensemble(
    predictions: pd.DataFrame,
    probe_predictions: pd.DataFrame,
    fold_tags: Mapping[str, str],
    judging: Mapping[str, Any],
    classes: list[str],
) -> dict[str, Any]:
    """Score the ensemble of the rows beside the ensemble of their probes, see `score_folds`."""
    settings = {"title": ENSEMBLE}
    return score_folds(predictions, probe_predictions, settings, fold_tags, judging, classes)
