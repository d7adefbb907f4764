"""How well lesions are found: boxes of a localizer beside what readers drew."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from busi_pipeline.stats.bootstrap import Denominators, Trials, add_intervals


def score_boxes(
    boxes: pd.DataFrame, groups: pd.Series, min_confidence: float, n_resamples: int, seed: int
) -> dict[str, Any]:
    """Score found boxes; every share gets `_ci_low` and `_ci_high`, by groups.

    Args:
        boxes: see learning.localization.list_boxes.
        groups: of the images, in the same order.
        min_confidence: below it, no lesion was found.
        n_resamples, seed: of the bootstrap.

    Returns a dictionary of plain numbers:
        images: with a lesion that readers drew.
        iou: mean intersection over union of the boxes.
        centre_hit: share of lesions in which the centre of the found box lies.
        dice: mean overlap of the found and the drawn lesion.
        lesions_missed: share of lesions where no lesion was found.
        images_without, false_lesions: images in which readers drew no lesion, and the share of them
            in which one was found; left out where there is none.
    """
    known = boxes["is_drawn"].notna().to_numpy()
    table = boxes[known].reset_index(drop=True)
    own_groups = groups[known].tolist()
    has_lesion = table["is_drawn"].to_numpy(dtype=bool)
    if not has_lesion.any():
        return {"images": 0}
    found = (table["confidence"] >= min_confidence).to_numpy()
    values = table[["iou", "centre_hit", "dice"]].astype(float).to_numpy()

    def score(rows: np.ndarray) -> Mapping[str, Any]:
        lesions = rows[has_lesion[rows]]
        others = rows[~has_lesion[rows]]
        if not len(lesions) or (not has_lesion.all() and not len(others)):
            raise ValueError("a sample lacks images with a lesion, or without one")
        iou, centre_hit, dice = values[lesions].mean(axis=0).tolist()
        scores = {
            "images": len(lesions),
            "iou": iou,
            "centre_hit": centre_hit,
            "dice": dice,
            "lesions_missed": float((~found[lesions]).mean()),
        }
        if len(others):
            scores |= {"images_without": len(others), "false_lesions": float(found[others].mean())}
        return scores

    shares = ("iou", "centre_hit", "dice", "lesions_missed")
    denominators: Denominators = dict.fromkeys(shares, Trials(has_lesion))
    if not has_lesion.all():
        denominators = {**denominators, "false_lesions": Trials(~has_lesion)}
    scores = dict(score(np.arange(len(table))))
    return add_intervals(scores, score, own_groups, n_resamples, seed, denominators)
