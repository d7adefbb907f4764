"""Audit: scores without annotated images, and what is known of an image with occluded lesion."""

import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from busi_pipeline.caching.arrays import StoredArray
from busi_pipeline.config.schemas import CrossValidationSettings, EvaluationSettings
from busi_pipeline.imaging.occlusion import find_bounding_box
from busi_pipeline.learning.folds import list_folds, select_fold
from busi_pipeline.learning.linear_probe import BOUNDING_BOX, OCCLUDED, VISIBLE
from busi_pipeline.stats.bootstrap import HIGH, LOW, Trials, add_intervals
from busi_pipeline.stats.classes import Classes
from busi_pipeline.stats.scoring import probability_columns, select_test

logger = logging.getLogger(__name__)

ANNOTATIONS = ("callipers", "text", "colour")
SCORES = ("accuracy", "positive_auc", "lesion_auc")
_FEWEST = 10
_BOX_COLUMNS = ["image_id", "group", "label", "repeat", "score"]


def predict_from_bounding_box(
    masks: StoredArray,
    fold_manifest: pd.DataFrame,
    cross_validation: CrossValidationSettings,
    classes: Classes,
) -> pd.DataFrame:
    """Separate positive lesions from the others by size and place of their bounding box alone.

    What an occluded lesion still gives away. Logistic regression on the logarithms of height and
    width and on the centre, over the images that have a lesion mask, on the folds of the
    cross-validation.

    Args:
        masks: uint8 (n, size, size), 1 inside a lesion.
        fold_manifest: see learning.folds.
        cross_validation: of the folds.
        classes: which are positive.

    Returns `image_id`, `group`, `label`, `repeat`, `score` (0 to 1) of the out-of-fold images that
    have a lesion; empty where those of a fold's training images are all positive, or none is.
    """
    tables = []
    for fold in list_folds(cross_validation):
        split = select_fold(fold_manifest, fold, cross_validation)
        found = [find_bounding_box(m) for m in masks.values[masks.find_rows(split["image_id"])]]
        lesions = split[np.array([box is not None for box in found])]
        boxes = np.array([box for box in found if box], dtype=float).reshape(-1, 4)
        top, bottom, left, right = boxes.T
        shape = np.stack(
            [np.log(bottom - top), np.log(right - left), top + bottom, left + right], axis=1
        )
        is_test = (lesions["split"] == "test").to_numpy()
        is_positive = classes.is_positive(lesions["label"])
        if len(np.unique(is_positive[~is_test])) < 2 or not is_test.any():
            logger.warning(
                "%s: lesion masks of both %s and %s images are needed; the bounding box is not "
                "scored",
                fold.name,
                classes.positive_name,
                classes.negative_name,
            )
            continue
        model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced"))
        model.fit(shape[~is_test], is_positive[~is_test])
        table = lesions.loc[is_test, ["image_id", "group", "label"]]
        scores = model.predict_proba(shape[is_test])[:, 1]
        tables.append(table.assign(repeat=fold.repeat, score=scores))
    if not tables:
        return pd.DataFrame(columns=_BOX_COLUMNS)
    return pd.concat(tables, ignore_index=True)[_BOX_COLUMNS]


def audit_bias(
    predictions: pd.DataFrame,
    linear_probe_predictions: pd.DataFrame,
    occluded_linear_probe_predictions: pd.DataFrame,
    bounding_box_scores: pd.DataFrame,
    burned_in_annotations: pd.DataFrame,
    evaluation: EvaluationSettings,
    classes: Classes,
) -> pd.DataFrame:
    """Score out-of-fold predictions with and without annotated images, and with occluded lesions.

    Args:
        predictions: of the fine-tuned models, out of fold.
        linear_probe_predictions, occluded_linear_probe_predictions: of the linear probe, which has
            seen the images as they are, or with every lesion occluded in training and test.
        bounding_box_scores: see `predict_from_bounding_box`; its images are those with a lesion.
        burned_in_annotations: `image_id` and a bool for each of ANNOTATIONS.
        evaluation: `n_resamples` and `seed` of the bootstrap over groups.
        classes: in the order of the probabilities.

    Returns one row a question: `question`, `images` (each counted once), `accuracy`,
    `positive_auc` (positive against all others) and `lesion_auc` (positive against the others that
    have a lesion), each with its interval; empty where the question does not ask for it, or fewer
    than ten images, or one class, are there to answer it.
    """
    with_lesion = bounding_box_scores[["image_id", "label"]]
    found = burned_in_annotations.set_index("image_id")[list(ANNOTATIONS)].astype(bool)
    test = select_test(predictions)
    annotated = found.any(axis=1)
    questions: list[tuple[str, pd.DataFrame]] = [
        ("fine-tuned, all images", test),
        ("fine-tuned, images without annotation", _select(test, ~annotated)),
        ("fine-tuned, images with an annotation", _select(test, annotated)),
        *((f"fine-tuned, images with {name}", _select(test, found[name])) for name in ANNOTATIONS),
        (VISIBLE, select_test(linear_probe_predictions)),
        (OCCLUDED, select_test(occluded_linear_probe_predictions)),
    ]
    rows = [
        {"question": question}
        | _score(table, _prepare_measure(table, with_lesion, classes), evaluation)
        for question, table in questions
    ]
    box = _prepare_box_measure(bounding_box_scores, classes)
    rows.append({"question": BOUNDING_BOX} | _score(bounding_box_scores, box, evaluation))
    audit = pd.DataFrame(rows)
    for row in audit.to_dict("records"):
        logger.info(
            "%s (%d images): accuracy %.3f, AUC of %s against other lesions %.3f",
            *(row[name] for name in ("question", "images", "accuracy")),
            classes.positive_name,
            row["lesion_auc"],
        )
    return audit


def _select(table: pd.DataFrame, wanted: pd.Series) -> pd.DataFrame:
    return table[table["image_id"].map(wanted).to_numpy(bool)]


class _Measure(NamedTuple):
    """What scores rows of a table (what they do not allow is nan), and what each score counts."""

    score: Callable[[np.ndarray], dict[str, float]]
    denominators: dict[str, Trials]


def _score(
    table: pd.DataFrame, measure: _Measure, evaluation: EvaluationSettings
) -> dict[str, Any]:
    scores: dict[str, Any] = {"images": table["image_id"].nunique()}
    scores |= dict.fromkeys(
        (name + end for name in SCORES for end in ("", LOW, HIGH)), float("nan")
    )
    if scores["images"] < _FEWEST:
        return scores
    everything = measure.score(np.arange(len(table)))
    known = {name: value for name, value in everything.items() if not np.isnan(value)}
    return scores | add_intervals(
        known,
        measure.score,
        table["group"].tolist(),
        evaluation.n_resamples,
        evaluation.seed,
        measure.denominators,
    )


def _prepare_measure(table: pd.DataFrame, with_lesion: pd.DataFrame, classes: Classes) -> _Measure:
    is_positive = classes.is_positive(table["label"])
    has_lesion = table["image_id"].isin(with_lesion["image_id"]).to_numpy()
    correct = table["correct"].to_numpy(float)
    probabilities = table[probability_columns(classes)].to_numpy()
    score = classes.positive_score(probabilities)
    # Among lesions, the probability of a class without lesions says nothing.
    lesion_classes = np.array([name in set(with_lesion["label"]) for name in classes])
    among = probabilities[:, lesion_classes].sum(axis=1)
    share = classes.positive_score(probabilities * lesion_classes) / np.maximum(among, 1e-12)
    return _Measure(
        lambda rows: {
            "accuracy": float(correct[rows].mean()),
            "positive_auc": _measure_auc(is_positive, score, rows),
            "lesion_auc": _measure_auc(is_positive, share, rows[has_lesion[rows]]),
        },
        {
            "accuracy": Trials(np.ones(len(table), bool)),
            "positive_auc": Trials(is_positive, ~is_positive),
            "lesion_auc": Trials(is_positive & has_lesion, ~is_positive & has_lesion),
        },
    )


def _prepare_box_measure(table: pd.DataFrame, classes: Classes) -> _Measure:
    is_positive = classes.is_positive(table["label"])
    score = table["score"].to_numpy(float)
    return _Measure(
        lambda rows: {"lesion_auc": _measure_auc(is_positive, score, rows)},
        {"lesion_auc": Trials(is_positive, ~is_positive)},
    )


def _measure_auc(is_positive: np.ndarray, score: np.ndarray, rows: np.ndarray) -> float:
    """Return the AUC on these rows; nan where they are all of one kind."""
    if is_positive[rows].all() or not is_positive[rows].any():
        return float("nan")
    return float(roc_auc_score(is_positive[rows], score[rows]))
