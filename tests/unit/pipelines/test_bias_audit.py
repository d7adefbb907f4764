"""Bias audit: each question has its own images; lesions are those with a mask, of any class."""

import io
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from matplotlib.patches import Rectangle
from PIL import Image

from busi_pipeline.caching.arrays import StoredArray
from busi_pipeline.config.schemas import CrossValidationSettings, PrivacySettings
from busi_pipeline.pipelines.bias_audit.nodes import (
    ANNOTATIONS,
    audit_bias,
    predict_from_bounding_box,
)
from busi_pipeline.pipelines.bias_audit.plots import plot_bias_audit, plot_burned_in_annotations
from busi_pipeline.plotting.style import NothingToShow
from busi_pipeline.stats.classes import Classes
from tests.evaluation_factories import EVALUATION, FOUR, THREE, TWO, make_predictions
from tests.factories import as_raw_images, encode_image, make_settings, store_array
from tests.privacy_factories import COVERED, INK, UNCOVERED, list_pictures, make_named_picture

FOLDS = CrossValidationSettings(folds=2, repeats=1, seed=0, validation=0.2)


def make_lesions(
    classes: Classes, without: tuple[str, ...] = (), count: int = 60
) -> tuple[StoredArray, pd.DataFrame]:
    """Masks whose positive lesions are larger; the classes `without` have none."""
    ids = [f"i{n}" for n in range(count)]
    labels = [classes.names[n % len(classes)] for n in range(count)]
    masks = np.zeros((count, 32, 32), dtype=np.uint8)
    for n, label in enumerate(labels):
        if label not in without:
            half = 3 + n // 4 % 2 + 5 * (label in classes.positive)
            masks[n, 16 - half : 16 + half, 14 - half : 14 + half] = 1
    folds = pd.DataFrame(
        {"image_id": ids, "path": ids, "label": labels, "group": ids, "cv_group": ids}
    ).assign(repeat_1=np.arange(count) // len(classes) % 2 + 1)
    return store_array(ids, masks), folds


@pytest.mark.parametrize(
    ("classes", "without"), [(THREE, ("normal",)), (TWO, ()), (FOUR, ("cyst",))]
)
def test_the_bounding_box_tells_what_its_size_tells(
    classes: Classes, without: tuple[str, ...]
) -> None:
    masks, folds = make_lesions(classes, without)
    scores = predict_from_bounding_box(masks, folds, FOLDS, classes)
    with_lesion = folds.loc[~folds["label"].isin(without), "image_id"]
    assert sorted(scores["image_id"]) == sorted(with_lesion), "each once, those with a mask"
    positive = scores["label"].isin(classes.positive)
    assert scores.loc[positive, "score"].min() > scores.loc[~positive, "score"].max()


@pytest.mark.parametrize("without", [("benign", "normal"), THREE.names])
def test_lesions_of_one_kind_are_not_scored(
    without: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    masks, folds = make_lesions(THREE, without)
    scores = predict_from_bounding_box(masks, folds, FOLDS, THREE)
    assert scores.empty
    assert "malignant and non-malignant images are needed" in caplog.text
    predictions = make_predictions(THREE)
    annotations = make_annotations(predictions)
    audit = audit_bias(
        predictions, predictions, predictions, scores, annotations, EVALUATION, THREE
    )
    assert audit["lesion_auc"].isna().all()
    assert audit["accuracy"].notna().any()


def make_annotations(predictions: pd.DataFrame) -> pd.DataFrame:
    number = np.arange(len(predictions))
    found = predictions[["image_id"]].copy()
    for name, present in zip(ANNOTATIONS, (number < 60, number % 3 == 0, number == 1), strict=True):
        found[name] = present
    return found


def make_box_scores(predictions: pd.DataFrame, without: str) -> pd.DataFrame:
    lesions = predictions[predictions["label"] != without]
    return lesions[["image_id", "group", "label", "repeat"]].assign(score=0.5)


def test_audit_asks_each_question_of_its_own_images() -> None:
    sighted, blind = make_predictions(THREE), make_predictions(THREE, skill=0.0)
    annotations = make_annotations(sighted)
    box = make_box_scores(sighted, "normal")
    audit = audit_bias(sighted, sighted, blind, box, annotations, EVALUATION, THREE)
    table = audit.set_index("question")
    everything = table.loc["fine-tuned, all images"]
    assert everything["images"] == 120
    assert everything["accuracy"] == sighted["correct"].mean()
    assert everything["accuracy_ci_low"] < everything["accuracy"] < everything["accuracy_ci_high"]
    annotated = table.loc["fine-tuned, images with an annotation", "images"]
    assert annotated + table.loc["fine-tuned, images without annotation", "images"] == 120
    assert table.loc["fine-tuned, images with callipers", "images"] == 60
    one_class = table.loc["fine-tuned, images with text"]
    assert one_class["accuracy"] > 0.5
    assert np.isnan(one_class["lesion_auc"]), "benign images alone cannot be ranked"
    assert np.isnan(table.loc["fine-tuned, images with colour", "accuracy"]), "too few images"
    visible, occluded = (table.loc[f"linear probe, lesion {x}"] for x in ("visible", "occluded"))
    assert visible["lesion_auc"] > 0.85
    assert occluded["lesion_auc_ci_low"] < 0.5 < occluded["lesion_auc_ci_high"]
    assert table.loc["bounding box of the lesion alone", "lesion_auc"] == 0.5
    figure = plot_bias_audit(audit, make_settings(), THREE)
    assert len(figure.axes[0].get_yticklabels()) == len(audit)
    assert figure.axes[2].get_xlabel() == "AUC, malignant against other lesions"


def test_lesion_auc_ranks_among_classes_with_lesions() -> None:
    from sklearn.metrics import roc_auc_score

    predictions = make_predictions(FOUR, skill=0.8)
    box = make_box_scores(predictions, "cyst")
    annotations = make_annotations(predictions)
    audit = audit_bias(
        predictions, predictions, predictions, box, annotations, EVALUATION, FOUR
    ).set_index("question")
    lesions = predictions[predictions["label"] != "cyst"]
    positive = lesions["p_suspicious"] + lesions["p_cancer"]
    share = positive / (positive + lesions["p_fibroadenoma"])
    is_positive = lesions["label"].isin(FOUR.positive)
    expected = roc_auc_score(is_positive, share)
    assert audit.loc["fine-tuned, all images", "lesion_auc"] == pytest.approx(expected)


def test_annotations_are_shown_where_they_were_found() -> None:
    def encode(value: int) -> Callable[[], bytes]:
        buffer = io.BytesIO()
        Image.fromarray(np.full((60, 80), value, np.uint8)).save(buffer, "PNG")
        return buffer.getvalue

    manifest = pd.DataFrame({"image_id": ["x/a", "x/b"], "path": ["x/a.png", "x/b.png"]})
    raw = {path: encode(90 * n) for n, path in enumerate(manifest["path"])}
    found = manifest[["image_id"]].assign(callipers=[False, True], text=False, colour=[True, False])
    for name in ("callipers", "text"):
        for key in ("left", "top", "width", "height", "score"):
            found[f"{name}_{key}"] = [None, 15 if name == "callipers" else None]
    figure = plot_burned_in_annotations(raw, manifest, found, UNCOVERED)
    assert "callipers on 1 of 2, text on 0 of 2, colour on 1 of 2" in figure.get_suptitle()
    assert sum(bool(axis.images) for axis in figure.axes) == 1


def test_no_annotation_is_no_picture() -> None:
    found = pd.DataFrame({"image_id": ["a"], "text_score": [None]})
    found = found.assign(**dict.fromkeys(ANNOTATIONS, False))
    nothing = plot_burned_in_annotations({}, found.assign(path="a.png"), found, UNCOVERED)
    assert isinstance(nothing, NothingToShow)
    assert "text on 0 of 1" in nothing


@pytest.mark.parametrize("privacy", [COVERED, UNCOVERED])
def test_text_that_was_found_is_framed_and_covered(privacy: PrivacySettings) -> None:
    picture = make_named_picture()
    raw = as_raw_images({"a.png": encode_image(Image.fromarray(picture))})
    manifest = pd.DataFrame({"image_id": ["a"], "path": ["a.png"]})
    found = manifest[["image_id"]].assign(callipers=False, text=True, colour=False)
    rows, columns = (np.flatnonzero((picture == INK).any(axis=(2, n))) for n in (1, 0))
    left, top = int(columns[0]), int(rows[0])
    width, height = int(columns[-1]) - left + 1, int(rows[-1]) - top + 1
    place = {"left": left, "top": top, "width": width, "height": height, "score": 7}
    for key, value in place.items():
        found[f"callipers_{key}"], found[f"text_{key}"] = None, value
    figure = plot_burned_in_annotations(raw, manifest, found, privacy)
    (axis,) = (axis for axis in figure.axes if axis.images)
    (frame,) = axis.patches
    (shown,) = list_pictures(figure)
    assert isinstance(frame, Rectangle)
    assert (shown == INK).any() != privacy.cover_text
    x, y = (round(value + 0.5) for value in frame.get_xy())
    inside = np.zeros(shown.shape[:2], dtype=bool)
    inside[y : y + height, x : x + width] = True
    assert (frame.get_width(), frame.get_height()) == (width, height)
    if not privacy.cover_text:
        assert (inside[(shown == INK).all(axis=2)]).all(), "all of the text is in the frame"
