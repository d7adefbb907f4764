"""Made-up predictions and metrics, of any classes, for tests of plots, comparison and report."""

import hashlib
from copy import deepcopy
from typing import Any

import numpy as np
import pandas as pd

from busi_pipeline.config.schemas import EvaluationSettings
from busi_pipeline.stats.calibration import Calibration
from busi_pipeline.stats.classes import Classes
from busi_pipeline.stats.external import score_site
from busi_pipeline.stats.scoring import (
    OperatingPoint,
    apply_operating_point,
    probability_columns,
    score_predictions,
    select_test,
)

TWO = Classes(("benign", "malignant"), ("malignant",))
THREE = Classes(("benign", "malignant", "normal"), ("malignant",))
FOUR = Classes(("cyst", "fibroadenoma", "suspicious", "cancer"), ("suspicious", "cancer"))
CLASS_SETS = [TWO, THREE, FOUR]

EVALUATION = EvaluationSettings(
    target_sensitivity=0.95, threshold_rule="conformal", prevalence=0.05, n_resamples=20, seed=0
)


def make_predictions(
    classes: Classes,
    *,
    images: int = 120,
    skill: float = 2.0,
    threshold: float = 0.2,
    repeats: int = 1,
    folds: int = 1,
    seed: int = 0,
) -> pd.DataFrame:
    """Return test predictions of a classifier of this skill; two images share a group.

    The same images whatever the skill and the seed; each once a repeat.
    """
    rng = np.random.default_rng(seed)
    position = np.arange(images) % len(classes)
    tables = []
    for repeat in range(1, repeats + 1):
        logits = skill * np.eye(len(classes))[position] + rng.normal(size=(images, len(classes)))
        probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        table = pd.DataFrame(
            {
                "image_id": [f"{classes.names[p]}/i{n}" for n, p in enumerate(position)],
                "group": [f"g{n // (2 * len(classes))}_{p}" for n, p in enumerate(position)],
                "label": np.array(classes.names)[position],
                "split": "test",
                "repeat": repeat,
                "fold": np.arange(images) // 2 % folds + 1,
            }
        )
        table[probability_columns(classes, uncalibrated=True)] = probabilities
        tables.append(table)
    offsets = (0.0,) * len(classes)
    point = OperatingPoint(Calibration(0.9, offsets), threshold, 0.95)
    return apply_operating_point(pd.concat(tables, ignore_index=True), point, classes).assign(
        temperature=0.9, threshold=threshold
    )


_SCORES: dict[str, Any] = {}


def _score(predictions: pd.DataFrame, classes: Classes) -> dict[str, Any]:
    """Return the scores of the test images, computed once for the same predictions."""
    key = f"{classes}{hashlib.sha256(predictions.to_csv().encode()).hexdigest()}"
    if key not in _SCORES:
        _SCORES[key] = score_predictions(select_test(predictions), classes, EVALUATION)
    return deepcopy(_SCORES[key])


def make_external_metrics(
    predictions: pd.DataFrame, classes: Classes, site: str = "elsewhere", training: str = "t"
) -> dict[str, Any]:
    """Return the metrics of an external validation that gave these predictions.

    Args:
        predictions: of `make_predictions`.
        classes: of them.
        site: name of the site.
        training: SHA-256 of the training that the model is of.
    """
    table = predictions.assign(
        is_positive=classes.is_positive(predictions["label"]),
        positive_score=classes.positive_score(predictions[probability_columns(classes)].to_numpy()),
    )
    scores = score_site(table, 0.05, EVALUATION.n_resamples, EVALUATION.seed)
    verdict = {"travels": "no", "ranking": "held", "finding": "missed", "cost": "missed"}
    return {
        "external": {
            "site": site,
            "model": {"title": "ResNet50", "training_sha256": training},
            "images": scores,
            "inside": scores,
            "verdict": verdict | {"calibration": "held"},
        }
    }


def make_metrics(
    predictions: pd.DataFrame, classes: Classes, title: str = "ResNet50", **experiment: Any
) -> dict[str, Any]:
    """Return the metrics of these predictions, of a hold-out or a cross-validation."""
    return {
        "test": _score(predictions, classes),
        "repeats": int(predictions["repeat"].nunique()),
        "folds": int(predictions["fold"].nunique()),
        "experiment": {"title": title} | experiment,
        "training_seconds": 300.0,
        "depends_on": {
            "split_sha256": "a" * 64,
            "split_method": "grouped",
            "weights": "imagenet",
            "weights_sha256": "b" * 64,
            "precision": "float32",
            "device": "cpu",
        },
    }
