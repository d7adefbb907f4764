"""Scores of boxes: over lesions that were drawn, missed ones and false ones apart."""

import numpy as np
import pandas as pd
import pytest

from busi_pipeline.stats.localization import score_boxes


def make_boxes(count: int = 30, without: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    drawn = pd.DataFrame(
        {
            "is_drawn": True,
            "iou": rng.uniform(0.4, 0.9, count),
            "centre_hit": np.arange(count) % 10 != 0,
            "dice": rng.uniform(0.5, 0.95, count),
            "confidence": np.where(np.arange(count) % 5 == 0, 0.3, 0.9),
        }
    )
    others = pd.DataFrame(
        {
            "is_drawn": [False] * without,
            "iou": np.nan,
            "centre_hit": np.nan,
            "dice": np.nan,
            "confidence": np.where(np.arange(without) % 4 == 0, 0.7, 0.1),
        }
    )
    return pd.concat([drawn, others], ignore_index=True) if without else drawn


def score(boxes: pd.DataFrame) -> dict[str, float]:
    groups = pd.Series([f"g{row // 2}" for row in range(len(boxes))])
    return score_boxes(boxes, groups, 0.5, n_resamples=50, seed=0)


def test_shares_are_those_of_lesions_and_of_images_without() -> None:
    boxes = make_boxes(30, 20)
    scores = score(boxes)
    assert (scores["images"], scores["images_without"]) == (30, 20)
    assert scores["iou"] == pytest.approx(boxes["iou"].mean())
    assert scores["centre_hit"] == pytest.approx(0.9)
    assert scores["lesions_missed"] == pytest.approx(0.2)
    assert scores["false_lesions"] == pytest.approx(0.25)
    for name in ("iou", "centre_hit", "dice", "lesions_missed", "false_lesions"):
        assert scores[f"{name}_ci_low"] < scores[name] < scores[f"{name}_ci_high"]


def test_what_nobody_drew_is_not_scored() -> None:
    boxes = make_boxes(30)
    more = pd.concat([boxes, boxes.assign(is_drawn=None, iou=np.nan)], ignore_index=True)
    assert score(more)["images"] == 30
    assert "false_lesions" not in score(more)
    assert score(boxes.assign(is_drawn=None)) == {"images": 0}
