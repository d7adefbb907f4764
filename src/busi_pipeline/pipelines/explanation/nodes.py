"""Score where a model looks: Grad-CAM maps of the test images beside the lesion masks."""

import logging
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from busi_pipeline.caching.arrays import StoredArray
from busi_pipeline.config.schemas import EvaluationSettings, ExperimentSettings
from busi_pipeline.stats.bootstrap import add_intervals
from busi_pipeline.stats.scoring import format_share, select_test

logger = logging.getLogger(__name__)

_MEASURED = [
    "pointing_hit",
    "gradcam_inside",
    "lesion_area",
    "pointing_hit_of_others",
    "gradcam_inside_of_others",
]
_COLUMNS = ["image_id", "group", "label", "predicted", *_MEASURED]


class Localization(NamedTuple):
    """Where a model looks.

    Attributes:
        localization_table: one row a test image that has a lesion, see `score_localization`.
        localization_metrics: {`localization`: {`images`, shares with intervals}}, for MLflow.
    """

    localization_table: pd.DataFrame
    localization_metrics: dict[str, Any]


def score_localization(
    gradcam: StoredArray,
    masks: StoredArray,
    predictions: pd.DataFrame,
    settings: ExperimentSettings,
    evaluation: EvaluationSettings,
) -> Localization:
    """Score the Grad-CAM maps against the lesions of the test images that have one.

    Args:
        gradcam: float32 (test images, h, w), 0 or above.
        masks: uint8 (n, size, size), 1 inside a lesion; an image without lesion is 0 throughout.
        predictions: of the hold-out.
        settings: for the title.
        evaluation: `n_resamples` and `seed` of the bootstrap over groups.

    The table's columns: `image_id`, `group`, `label`, `predicted`, and
        pointing_hit: whether the highest point of the map lies in the lesion (Zhang et al. 2018,
            "Top-down neural attention by excitation backprop").
        gradcam_inside: share of the map inside the lesion; 0 where the map is 0 throughout.
        lesion_area: share of the image that is lesion: what a point, or a map, spread at random
            would have inside.
        pointing_hit_of_others, gradcam_inside_of_others: the same for the maps of the other test
            images: what looking where lesions mostly are would have inside; empty where only one
            image has a lesion.
    """
    test = select_test(predictions)
    everything = masks.values[masks.find_rows(test["image_id"])].astype(bool)
    has_lesion = everything.any(axis=(1, 2))
    scored, lesions = test.iloc[np.flatnonzero(has_lesion)], everything[has_lesion]
    if not len(scored):
        logger.warning("no test image has a lesion mask: where the model looks is not scored")
        return Localization(pd.DataFrame(columns=_COLUMNS), {"localization": {"images": 0}})
    size = lesions.shape[1]
    rows = gradcam.find_rows(scored["image_id"])
    maps = np.stack([resize_map(gradcam.values[row], size) for row in rows])
    peaks = maps.reshape(len(maps), -1).argmax(axis=1)
    shares = maps / np.maximum(maps.sum(axis=(1, 2), keepdims=True), 1e-12)
    # [i, j]: the map of image j on the lesion of image i.
    flat = lesions.reshape(len(lesions), -1)
    hits = flat[:, peaks] & (maps.max(axis=(1, 2)) > 0)
    inside = flat.astype(np.float32) @ shares.reshape(len(shares), -1).T
    table = scored[["image_id", "group", "label", "predicted"]].reset_index(drop=True)
    table["pointing_hit"] = np.diag(hits).astype(float)
    table["gradcam_inside"] = np.diag(inside).astype(float)
    table["lesion_area"] = flat.mean(axis=1)
    table["pointing_hit_of_others"] = _average_others(hits)
    table["gradcam_inside_of_others"] = _average_others(inside)
    measured = [name for name in _MEASURED if table[name].notna().all()]

    def score(rows: np.ndarray) -> dict[str, float]:
        return {name: float(table[name].to_numpy()[rows].mean()) for name in measured}

    scores = add_intervals(
        score(np.arange(len(table))),
        score,
        table["group"].tolist(),
        evaluation.n_resamples,
        evaluation.seed,
    )
    logger.info(
        "%s, %d test images with a lesion: highest point inside %s, share of Grad-CAM inside %s; "
        "at random %s",
        settings.title,
        len(table),
        format_share(scores, "pointing_hit"),
        format_share(scores, "gradcam_inside"),
        format_share(scores, "lesion_area"),
    )
    return Localization(table[_COLUMNS], {"localization": {"images": len(table), **scores}})


def _average_others(values: np.ndarray) -> np.ndarray:
    """Return float (n,), the mean of each row of (n, n) without its diagonal; nan for n = 1."""
    if len(values) == 1:
        return np.array([np.nan])
    return np.average(values, axis=1, weights=~np.eye(len(values), dtype=bool))


def resize_map(gradcam: np.ndarray, size: int) -> np.ndarray:
    """Return float32 (size, size): a map (h, w) brought to the size of the image, bilinear."""
    return np.asarray(
        Image.fromarray(gradcam.astype(np.float32)).resize((size, size), Image.Resampling.BILINEAR)
    )
