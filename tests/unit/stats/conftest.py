"""Factories of small tables of predictions."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from busi_pipeline.stats.calibration import Calibration
from busi_pipeline.stats.classes import Classes
from busi_pipeline.stats.operating_point import ThresholdRule
from busi_pipeline.stats.scoring import (
    OperatingPoint,
    apply_operating_point,
    probability_columns,
)


@dataclass(frozen=True)
class SomeEvaluation:
    """The settings that scoring reads, of few resamples."""

    target_sensitivity: float = 0.95
    threshold_rule: ThresholdRule = "conformal"
    prevalence: float = 0.05
    n_resamples: int = 60
    seed: int = 0


@pytest.fixture
def make_evaluation() -> Callable[..., SomeEvaluation]:
    return SomeEvaluation


@pytest.fixture
def make_classes() -> Callable[[str], Classes]:
    """Make a set of classes of a kind: two, three, four (two of them positive) or odd."""
    kinds = {
        "two": Classes(("benign", "malignant"), ("malignant",)),
        "three": Classes(("benign", "malignant", "normal"), ("malignant",)),
        "four": Classes(
            ("normal", "malignant", "benign", "suspicious"), ("malignant", "suspicious")
        ),
        "odd": Classes(("BI-RADS 2", "Karzinom (G3) {x}", "p_90 %"), ("Karzinom (G3) {x}",)),
    }
    return lambda kind: kinds[kind]


@pytest.fixture
def make_predictions() -> Callable[..., pd.DataFrame]:
    """Make scored test predictions of a classifier of some skill.

    The images are the same whatever the seed: classes in turn, `group_size` images a group. A
    skill of 0 guesses, one of 9 errs on none of some hundred images.
    """

    def make(
        classes: Classes,
        skill: float = 1.5,
        seed: int = 0,
        count: int = 120,
        group_size: int = 1,
        threshold: float = 0.3,
    ) -> pd.DataFrame:
        rng = np.random.default_rng(seed)
        label = np.arange(count) // group_size % len(classes)
        logits = skill * np.eye(len(classes))[label] + rng.normal(size=(count, len(classes)))
        table = pd.DataFrame(
            {
                "image_id": [f"i{n:03}" for n in range(count)],
                "group": [f"g{n // group_size}" for n in range(count)],
                "label": np.array(classes.names)[label],
                "split": "test",
                "repeat": 1,
                "fold": 1,
            }
        )
        probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        # A network gives float32, whose rows sum to 1 only to 1e-7.
        table[probability_columns(classes, uncalibrated=True)] = probabilities.astype(
            np.float32
        ).astype(float)
        unchanged = Calibration(1.0, (0.0,) * len(classes))
        return apply_operating_point(table, OperatingPoint(unchanged, threshold, 0.9), classes)

    return make
