"""All rows that were cross-validated: their ensemble, and whether one is better than another."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from busi_pipeline.errors import BadInputError
from busi_pipeline.experiments import ENSEMBLE, gather_rows
from busi_pipeline.judging import probability_columns

from .nodes import judge_folds, score_folds

_KEYS = ["repeat", "fold", "split", "image_id"]


def average_rows(judging: Mapping[str, Any], classes: list[str], **of_rows: Any) -> pd.DataFrame:
    """Return the mean of the rows' probabilities before calibration, judged anew: an ensemble.

    Every backbone counts the same, however many rows share it, since those err alike. Calibration
    and threshold come from each fold's validation images, as for a single row; a row's own
    calibration before it would bring the class frequencies in twice.

    Args:
        judging: see `judge_folds`.
        classes: in the order of the probabilities.
        of_rows: `settings` and `predictions` (of `judge_folds`, on the same folds) of each row, see
            `experiments.name_item`.

    Raises BadInputError where the rows were judged on different folds.
    """
    rows = gather_rows(of_rows).values()
    ordered = [row["predictions"].sort_values(_KEYS, ignore_index=True) for row in rows]
    if any(not table[_KEYS].equals(ordered[0][_KEYS]) for table in ordered):
        raise BadInputError(
            "the experiments were cross-validated on different folds: run "
            "`kedro run --pipeline=cross_validation`, which does again what is out of date."
        )
    raw = probability_columns(classes, raw=True)
    mean = ordered[0][[*_KEYS, "group", "label"]].copy()
    backbones = [row["settings"]["backbone"] for row in rows]
    weights = [1 / backbones.count(backbone) for backbone in backbones]
    mean[raw] = np.average([table[raw].to_numpy() for table in ordered], axis=0, weights=weights)
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
