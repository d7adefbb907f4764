"""Plots show the numbers they should, for any classes, for hold-out and cross-validation alike."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from busi_pipeline.config.schemas import PrivacySettings
from busi_pipeline.imaging.text_cover import cover_text
from busi_pipeline.pipelines.evaluation.decision_plots import plot_calibration, plot_decision_curve
from busi_pipeline.pipelines.evaluation.plots import (
    describe_evaluation,
    plot_confusion_matrix,
    plot_learning_curves,
    plot_misclassified,
    plot_roc_pr_curves,
)
from busi_pipeline.plotting.style import DEMO_BANNER, add_banner, new_figure, new_picture_grid
from busi_pipeline.stats.classes import Classes
from tests.evaluation_factories import (
    CLASS_SETS,
    EVALUATION,
    FOUR,
    THREE,
    TWO,
    make_metrics,
    make_predictions,
)
from tests.factories import make_settings, store_array
from tests.privacy_factories import COVERED, UNCOVERED, list_pictures, make_named_picture

POINT = {"operating_point": {"threshold": 0.2, "chosen_on": "validation images"}}


def read_title(figure: Figure) -> str:
    return figure.get_suptitle().replace("\n", " ")


def read_legend(axis: Any) -> list[str]:
    return [text.get_text() for text in axis.get_legend().get_texts()]


def list_titles(figure: Figure) -> list[str]:
    return [axis.get_title() for axis in figure.axes if axis.get_title()]


@pytest.mark.parametrize("classes", CLASS_SETS, ids=len)
def test_confusion_matrix_shows_every_class(classes: Classes) -> None:
    predictions = make_predictions(classes)
    figure = plot_confusion_matrix(predictions, make_metrics(predictions, classes), classes)
    counts, shares = figure.axes
    table = pd.crosstab(predictions["label"], predictions["predicted"])
    names = list(classes)
    table = table.reindex(index=names, columns=names, fill_value=0)
    assert [t.get_text() for t in counts.texts] == [str(n) for n in table.to_numpy().ravel()]
    share = 100 * table.iloc[0, 0] / table.iloc[0].sum()
    assert shares.texts[0].get_text() == f"{share:.1f} %"
    assert [t.get_text() for t in counts.get_xticklabels()] == names
    correct = int(predictions["correct"].sum())
    assert read_title(figure) == f"ResNet50: {correct} of 120 test images correct"


def test_repeats_do_not_pass_for_images() -> None:
    predictions = make_predictions(THREE, repeats=3, folds=5)
    metrics = make_metrics(predictions, THREE)
    described = describe_evaluation(metrics)
    assert described == ("ResNet50, 5-fold cross-validation, each of 120 images evaluated 3 times")
    figure = plot_confusion_matrix(predictions, metrics, THREE)
    assert "of 360 out-of-fold evaluations correct" in read_title(figure)
    once = make_predictions(THREE, folds=5)
    figure = plot_confusion_matrix(once, make_metrics(once, THREE), THREE)
    assert "5-fold cross-validation: " in read_title(figure)
    assert "of 120 out-of-fold images correct" in read_title(figure)


def test_curves_name_counts_and_intervals() -> None:
    predictions = make_predictions(THREE)
    metrics = make_metrics(predictions, THREE)
    roc, recall = plot_roc_pr_curves(predictions, metrics, THREE).axes
    scores = metrics["test"]["malignant"]
    assert read_legend(roc)[1] == (
        f"malignant (40): AUC {scores['auc']:.3f} "
        f"({scores['auc_ci_low']:.3f} to {scores['auc_ci_high']:.3f})"
    )
    assert len(read_legend(roc)) == 4
    assert "chance 0.33" in read_legend(recall)[1]


def test_several_positive_classes_have_a_curve_together() -> None:
    predictions = make_predictions(FOUR)
    metrics = make_metrics(predictions, FOUR)
    legend = read_legend(plot_roc_pr_curves(predictions, metrics, FOUR).axes[0])
    assert legend[4].startswith(
        f"suspicious or cancer (60): AUC {metrics['test']['positive']['auc']:.3f}"
    )
    two = make_predictions(TWO)
    assert len(read_legend(plot_roc_pr_curves(two, make_metrics(two, TWO), TWO).axes[0])) == 3


@pytest.mark.parametrize("classes", CLASS_SETS, ids=len)
def test_calibration_shows_before_and_after(classes: Classes) -> None:
    predictions = make_predictions(classes)
    metrics = make_metrics(predictions, classes)
    likeliest, positive = plot_calibration(predictions, metrics, classes).axes
    errors = metrics["test"]["calibration"]
    for line, kind in zip(read_legend(likeliest), ("uncalibrated", "calibrated"), strict=False):
        assert line.startswith(f"{kind}: expected error {errors[kind]['error']:.3f}")
    score = predictions[[f"p_{name}" for name in classes.positive]].sum(axis=1)
    lowest = score < 0.1
    first_dot = positive.collections[1].get_offsets()[0]
    is_positive = predictions["label"].isin(classes.positive)
    np.testing.assert_allclose(first_dot, [score[lowest].mean(), is_positive[lowest].mean()])
    assert classes.positive_name in positive.get_xlabel()


@pytest.mark.parametrize("classes", CLASS_SETS, ids=len)
def test_decision_curve_counts_missed_by_the_flag(classes: Classes) -> None:
    predictions = make_predictions(classes, threshold=0.5)
    metrics = make_metrics(predictions, classes)
    point = {"operating_point": {"threshold": 0.5, "chosen_on": "validation images"}}
    figure = plot_decision_curve(predictions, point, metrics, EVALUATION, classes)
    operating, referral, benefit = figure.axes
    is_positive = predictions["label"].isin(classes.positive)
    missed = int((is_positive & ~predictions["flagged"]).sum())
    alarms = int((~is_positive & predictions["flagged"]).sum())
    assert missed, "the case says nothing otherwise"
    title = read_title(figure)
    assert f"flagged for review): {missed} of {is_positive.sum()} {classes.positive_name}" in title
    assert f"False alarms: {alarms} of {(~is_positive).sum()} {classes.negative_name}" in title
    marked = [line for line in operating.lines if line.get_linestyle() == "--"]
    assert marked[0].get_xdata()[0] == 0.5
    error = referral.lines[0].get_ydata()
    assert error[0] == pytest.approx(100 * (1 - predictions["correct"].mean()))
    assert read_legend(benefit) == ["model", "flag all", "flag none"]


@pytest.mark.parametrize(
    ("chosen_on", "expected"),
    [
        ("validation images of each fold", "(median; each fold has its own threshold)"),
        ("all images, out of fold", "(of the delivered model; what is counted here was flagged"),
    ],
)
def test_it_is_said_whose_the_threshold_of_folds_is(chosen_on: str, expected: str) -> None:
    predictions = make_predictions(THREE, folds=5)
    metrics = make_metrics(predictions, THREE)
    point = {"operating_point": {"threshold": 0.2, "chosen_on": chosen_on}}
    figure = plot_decision_curve(predictions, point, metrics, EVALUATION, THREE)
    assert expected in read_title(figure)
    (label,) = (t for t in read_legend(figure.axes[0]) if t.startswith("threshold"))
    assert ("median" in label) == ("each fold" in chosen_on)


def make_wrong() -> pd.DataFrame:
    """Five test images: two malignant ones as benign, one of them flagged; two other mistakes."""
    rows = [
        ("malignant", "benign", (0.7, 0.2, 0.1), True),
        ("malignant", "benign", (0.9, 0.05, 0.05), False),
        ("benign", "malignant", (0.01, 0.98, 0.01), True),
        ("normal", "benign", (0.6, 0.1, 0.3), False),
        ("malignant", "malignant", (0.1, 0.8, 0.1), True),
    ]
    table = pd.DataFrame(
        [(label, predicted, *p, flagged) for label, predicted, p, flagged in rows],
        columns=["label", "predicted", *(f"p_{name}" for name in THREE), "flagged"],
    )
    table["image_id"] = [f"x/i{n}" for n in range(5)]
    table["group"], table["split"] = table["image_id"], "test"
    table["correct"] = table["label"] == table["predicted"]
    return table


def test_positives_classified_as_another_class_come_first() -> None:
    predictions = make_wrong()
    images = store_array(predictions["image_id"], np.zeros((5, 8, 8, 3), np.uint8))
    figure = plot_misclassified(predictions, images, make_settings(), UNCOVERED, THREE)
    assert list_titles(figure) == [
        "i1\nmalignant classified as benign, 90 %\nnot flagged: missed",
        "i0\nmalignant classified as benign, 70 %\nflagged for review",
        "i2\nbenign classified as malignant, 98 %\nflagged for review",
        "i3\nnormal classified as benign, 60 %\nnot flagged",
    ]
    assert read_title(figure) == (
        "ResNet50: 4 of 4 misclassified images among 5 test images. First, in colour: 2 malignant "
        "classified as non-malignant; 1 of them flagged for review all the same, 1 missed."
    )


@pytest.mark.parametrize("privacy", [COVERED, UNCOVERED])
def test_names_are_covered_if_privacy_says_so(privacy: PrivacySettings) -> None:
    predictions, picture = make_wrong(), make_named_picture(128, 128)
    images = store_array(predictions["image_id"], np.repeat(picture[None], 5, axis=0))
    figure = plot_misclassified(predictions, images, make_settings(), privacy, THREE)
    expected = cover_text(picture) if privacy.cover_text else picture
    shown = list_pictures(figure)
    assert len(shown) == 4
    assert all((pixels == expected).all() for pixels in shown)


def test_no_mistake_is_no_error() -> None:
    predictions = make_wrong().tail(1)
    images = store_array(predictions["image_id"], np.zeros((1, 8, 8, 3), np.uint8))
    figure = plot_misclassified(predictions, images, make_settings(), UNCOVERED, THREE)
    assert "None is malignant classified as non-malignant." in read_title(figure)


def test_learning_curves_mark_the_epoch_kept() -> None:
    def curves(losses: list[float]) -> dict[str, list[float]]:
        keys = (f"{part}{key}" for part in ("", "val_") for key in ("cross_entropy", "accuracy"))
        return dict.fromkeys(keys, losses)

    history = {"head": curves([3, 1, 2]), "fine_tuning": curves([5, 4])}
    for kept, expected, name in (
        (2, [[2, 1], [5, 4]], "fine-tuning"),
        (0, [[2, 1]], "fine-tuning (rolled back)"),
    ):
        report = {"training": {"best_epoch": {"head": 2, "fine_tuning": kept}}}
        loss = plot_learning_curves(history, report, make_settings()).axes[0]
        dots = [line.get_xydata()[0].tolist() for line in loss.lines if line.get_marker() == "o"]
        assert dots == expected
        assert name in [text.get_text() for text in loss.texts]


@pytest.mark.parametrize("width", [3.0, 6.0, 15.0])
def test_banner_stands_above_title_and_panels(width: float) -> None:
    figure = new_figure(width, 3, "A title that may need more than one line " * 3)
    axis = figure.subplots()
    figure.draw_without_rendering()
    before = axis.get_window_extent().height
    add_banner(figure, DEMO_BANNER)
    figure.draw_without_rendering()
    (strip,) = figure.artists
    banner = next(text for text in figure.texts if text.get_text().startswith("DEMO"))
    title = next(text for text in figure.texts if text.get_text().startswith("A title"))
    inside = banner.get_window_extent()
    bottom = strip.get_window_extent().y0
    assert bottom <= inside.y0
    assert inside.y1 <= figure.bbox.height
    assert inside.x0 >= 0
    assert inside.x1 <= figure.bbox.width
    assert title.get_window_extent().y1 < bottom
    assert axis.get_tightbbox().y1 < title.get_window_extent().y0
    assert axis.get_window_extent().height > 0.9 * before


def test_a_title_keeps_percent_signs_beside_numbers() -> None:
    figure, _ = new_picture_grid((1, 1), (4, 2), "With 95 % and 90 % " * 6)
    assert not any(line.startswith("%") for line in figure.get_suptitle().splitlines())
