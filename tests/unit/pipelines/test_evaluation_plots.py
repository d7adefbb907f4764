"""Plots show the numbers they should, for any classes, for hold-out and cross-validation alike."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

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
from busi_pipeline.plotting.style import (
    DEMO_BANNER,
    NothingToShow,
    add_banner,
    new_figure,
    new_picture_grid,
)
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
from tests.factories import RawFiles, as_raw_images, encode_image, make_settings
from tests.privacy_factories import COVERED, UNCOVERED, list_pictures, make_named_picture


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
    shown = [t.get_text().replace("\n", "") for t in counts.get_xticklabels()]
    assert shown == names
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
    assert len(read_legend(roc)) == 5
    assert "chance 0.33" in read_legend(recall)[1]


def test_several_positive_classes_have_a_curve_together() -> None:
    predictions = make_predictions(FOUR)
    metrics = make_metrics(predictions, FOUR)
    legend = read_legend(plot_roc_pr_curves(predictions, metrics, FOUR).axes[0])
    assert legend[4].startswith(
        f"suspicious or cancer (60): AUC {metrics['test']['positive']['auc']:.3f}"
    )
    two = make_predictions(TWO)
    assert len(read_legend(plot_roc_pr_curves(two, make_metrics(two, TWO), TWO).axes[0])) == 4


@pytest.mark.parametrize("classes", CLASS_SETS, ids=len)
def test_the_flag_is_a_point_of_the_roc_curve(classes: Classes) -> None:
    predictions = make_predictions(classes, threshold=0.31)
    metrics = make_metrics(predictions, classes)
    roc = plot_roc_pr_curves(predictions, metrics, classes).axes[0]
    flag = metrics["test"]["flag"]
    (marked,) = (line for line in roc.lines if line.get_marker() == "D")
    (point,) = marked.get_xydata()
    np.testing.assert_allclose(point, [1 - flag["specificity"], flag["sensitivity"]])
    name = classes.positive_name
    (curve,) = (line for line in roc.lines if str(line.get_label()).startswith(f"{name} ("))
    x, y = curve.get_xydata().T
    heights = y[np.isclose(x, point[0])]  # the curve rises here: it has several points above one
    if len(heights):
        assert heights.min() - 1e-9 <= point[1] <= heights.max() + 1e-9
    else:  # on a level or a slope, of which scikit-learn drops what lies on one line
        assert np.interp(point[0], x, y) == pytest.approx(point[1])
    label = " ".join(read_legend(roc)[-1].split())
    assert label.startswith(f"flagged from a probability of {name} of 0.31 on: sensitivity")


def test_of_folds_the_roc_names_all_thresholds() -> None:
    predictions = make_predictions(THREE, folds=5)
    predictions["threshold"] = predictions["fold"] / 250
    roc = plot_roc_pr_curves(predictions, make_metrics(predictions, THREE), THREE).axes[0]
    assert "each fold has chosen (0.004 to 0.02)" in " ".join(read_legend(roc)[-1].split())


def test_the_area_below_the_drawn_steps_is_the_precision_named() -> None:
    predictions = make_predictions(THREE)
    metrics = make_metrics(predictions, THREE)
    recall = plot_roc_pr_curves(predictions, metrics, THREE).axes[1]
    line = recall.lines[1]
    assert line.get_drawstyle() == "steps-post"
    sensitivity, precision = line.get_xydata().T
    area = -np.sum(np.diff(sensitivity) * precision[:-1])
    assert area == pytest.approx(metrics["test"]["malignant"]["average_precision"])


@pytest.mark.parametrize("classes", CLASS_SETS, ids=len)
def test_calibration_has_bins_of_equal_count(classes: Classes) -> None:
    predictions = make_predictions(classes)
    metrics = make_metrics(predictions, classes)
    axes = plot_calibration(predictions, metrics, EVALUATION, classes).axes
    likeliest, positive, _, table = axes
    errors = metrics["test"]["calibration"]
    title = " ".join(likeliest.get_title().split())
    for kind, name in (("uncalibrated", "before"), ("calibrated", "after")):
        assert f"{name} calibration {errors[kind]['error']:.3f}" in title
    score = predictions[[f"p_{name}" for name in classes.positive]].sum(axis=1).to_numpy()
    lowest = np.argsort(score)[:12]
    is_positive = predictions["label"].isin(classes.positive).to_numpy()
    (points,) = (line for line in positive.lines if line.get_marker() == "o")
    expected = [score[lowest].mean(), is_positive[lowest].mean()]
    np.testing.assert_allclose(points.get_xydata()[0], expected)
    assert classes.positive_name in positive.get_xlabel()
    cells = table.tables[0].get_celld()
    assert [cells[2, n].get_text().get_text() for n in range(10)] == ["12"] * 10
    assert "95 % intervals" in read_legend(positive)[-1]


def test_small_probabilities_fill_the_calibration_plot() -> None:
    predictions = make_predictions(TWO, images=400)
    for column in ("p_malignant", "uncalibrated_malignant"):
        predictions[column] /= 100
    predictions["label"] = np.where(np.arange(400) == 7, "malignant", "benign")
    predictions.loc[8, "label"] = "malignant"
    positive = plot_calibration(
        predictions, make_metrics(make_predictions(TWO), TWO), EVALUATION, TWO
    ).axes[1]
    assert positive.get_xlim()[1] < 0.3
    (points,) = (line for line in positive.lines if line.get_marker() == "o")
    places = positive.transData.transform(points.get_xydata())[:, 0]
    box = positive.get_window_extent()
    assert np.ptp(places) > 0.1 * box.width


def draw_decision(classes: Classes, threshold: float, **made: Any) -> tuple[Figure, Any]:
    predictions = make_predictions(classes, threshold=threshold, **made)
    metrics = make_metrics(predictions, classes)
    point = {"operating_point": {"threshold": threshold, "chosen_on": "validation images"}}
    return plot_decision_curve(predictions, point, metrics, EVALUATION, classes), metrics


@pytest.mark.parametrize("classes", CLASS_SETS, ids=len)
def test_decision_curve_counts_missed_by_the_flag(classes: Classes) -> None:
    predictions = make_predictions(classes, threshold=0.5)
    figure, metrics = draw_decision(classes, 0.5)
    _, flag, benefit, referral = figure.axes
    is_positive = predictions["label"].isin(classes.positive)
    missed = int((is_positive & ~predictions["flagged"]).sum())
    alarms = int((~is_positive & predictions["flagged"]).sum())
    assert missed, "the case says nothing otherwise"
    title = read_title(figure)
    assert f"flagged for review): {missed} of {is_positive.sum()} {classes.positive_name}" in title
    assert f"False alarms: {alarms} of {(~is_positive).sum()} {classes.negative_name}" in title
    error = referral.lines[0].get_ydata()
    assert error[0] == pytest.approx(100 * (1 - predictions["correct"].mean()))
    assert read_legend(benefit)[:4] == ["model", "flag all", "flag none", "threshold 0.5"]
    shown = " ".join(" ".join(text.get_text().split()) for text in flag.texts)
    for name in ("sensitivity", "specificity"):
        value = 100 * metrics["test"]["flag"][name]
        assert f"{value:.1f} % (" in shown
        drawn = [line.get_xdata()[0] for line in flag.lines]
        assert value in drawn


@pytest.mark.parametrize("threshold", [0.0, 1e-9, 0.012, 0.5, 1.0])
def test_every_threshold_is_drawn_on_a_logarithmic_axis(threshold: float) -> None:
    figure, metrics = draw_decision(THREE, threshold)
    operating, _, benefit, _ = figure.axes
    figure.draw_without_rendering()
    for axis in (operating, benefit):
        assert axis.get_xscale() == "log"
        (marked,) = (line for line in axis.lines if line.get_linestyle() == "--")
        place = marked.get_xdata()[0]
        low, high = axis.get_xlim()
        assert low < place < high
        if threshold > 1e-6:
            assert place == threshold
        # Far enough from the left end to be seen.
        assert threshold < 0.01 or np.log(place / low) / np.log(high / low) > 0.1
    flag = metrics["test"]["flag"]
    points = [line.get_xydata()[0] for line in operating.lines if line.get_marker() == "D"]
    assert [y for _, y in points] == [flag["sensitivity"], flag["specificity"]]


def test_curves_pass_through_the_figures_in_their_legend() -> None:
    figure, metrics = draw_decision(THREE, 0.012)
    operating, _, benefit, _ = figure.axes
    for name in ("sensitivity", "specificity"):
        (curve,) = (line for line in operating.lines if str(line.get_label()).startswith(name))
        value = metrics["test"]["flag"][name]
        assert dict(zip(*curve.get_data(), strict=True))[0.012] == pytest.approx(value)
        assert f"at the threshold {100 * value:.1f} %" in str(curve.get_label())
    model = benefit.lines[0]
    value = dict(zip(*model.get_data(), strict=True))[0.012]
    assert read_legend(benefit)[-1] == f"net benefit of the model there: {value:.3f}"
    assert "33 % of the test images are malignant" in " ".join(benefit.get_title().split())


@pytest.mark.parametrize(
    ("chosen_on", "expected"),
    [
        ("validation images of each fold", "median of the folds' thresholds, 0.2"),
        ("all images, out of fold", "threshold of the delivered model, 0.2"),
    ],
)
def test_of_folds_no_curve_has_the_figure_of_the_flag(chosen_on: str, expected: str) -> None:
    predictions = make_predictions(THREE, folds=5)
    predictions["threshold"] = predictions["fold"] / 20
    metrics = make_metrics(predictions, THREE)
    point = {"operating_point": {"threshold": 0.2, "chosen_on": chosen_on}}
    figure = plot_decision_curve(predictions, point, metrics, EVALUATION, THREE)
    operating, flag, benefit, _ = figure.axes
    assert expected in read_legend(operating)
    assert expected in read_legend(benefit)
    assert {"sensitivity", "specificity", "thresholds of the 5 folds"} < set(read_legend(operating))
    assert not any("%" in label for label in read_legend(operating))
    assert flag.get_title() == "the flag, by the threshold of each fold"


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
    table["group"], table["split"], table["fold"] = table["image_id"], "test", 1
    table["correct"] = table["label"] == table["predicted"]
    return table


def make_raw(predictions: pd.DataFrame, picture: np.ndarray) -> tuple[RawFiles, pd.DataFrame]:
    """Return raw images that all show this picture, and their manifest."""
    manifest = predictions[["image_id"]].assign(path=predictions["image_id"] + ".png")
    content = encode_image(Image.fromarray(picture))
    return as_raw_images(dict.fromkeys(manifest["path"], content)), manifest


def test_positives_classified_as_another_class_come_first() -> None:
    predictions = make_wrong()
    raw = make_raw(predictions, np.zeros((30, 60, 3), np.uint8))
    figure = plot_misclassified(predictions, *raw, make_settings(), UNCOVERED, THREE)
    assert isinstance(figure, Figure)
    assert list_titles(figure) == [
        "i1\nmalignant classified as benign, 90 %\np(malignant) 0.05, not flagged: missed",
        "i0\nmalignant classified as benign, 70 %\np(malignant) 0.2, flagged for review",
        "i2\nbenign classified as malignant, 98 %\np(malignant) 0.98, flagged for review",
        "i3\nnormal classified as benign, 60 %\np(malignant) 0.1, not flagged",
    ]
    assert read_title(figure) == (
        "ResNet50: 4 of 4 misclassified among 5 test images. First, in colour: 2 malignant "
        "classified as non-malignant; 1 of them flagged for review all the same, 1 missed."
    )


def test_misclassified_images_keep_their_shape() -> None:
    predictions = make_wrong()
    raw = make_raw(predictions, np.zeros((30, 60, 3), np.uint8))
    figure = plot_misclassified(predictions, *raw, make_settings(), UNCOVERED, THREE)
    assert isinstance(figure, Figure)
    figure.draw_without_rendering()
    for axis in (axis for axis in figure.axes if axis.images):
        box = axis.get_window_extent()
        assert box.width / box.height == pytest.approx(2)


@pytest.mark.parametrize("privacy", [COVERED, UNCOVERED])
def test_names_are_covered_if_privacy_says_so(privacy: PrivacySettings) -> None:
    predictions, picture = make_wrong(), make_named_picture(128, 128)
    raw = make_raw(predictions, picture)
    figure = plot_misclassified(predictions, *raw, make_settings(), privacy, THREE)
    assert isinstance(figure, Figure)
    expected = cover_text(picture) if privacy.cover_text else picture
    shown = list_pictures(figure)
    assert len(shown) == 4
    assert all((pixels == expected).all() for pixels in shown)


def test_no_mistake_is_no_picture() -> None:
    predictions = make_wrong().tail(1)
    nothing = plot_misclassified(predictions, {}, predictions, make_settings(), UNCOVERED, THREE)
    assert isinstance(nothing, NothingToShow)
    assert nothing == "ResNet50: none of the 1 test images is misclassified."


def test_a_class_taken_for_a_like_one_is_no_miss() -> None:
    predictions = make_wrong().iloc[2:4]
    raw = make_raw(predictions, np.zeros((30, 60, 3), np.uint8))
    figure = plot_misclassified(predictions, *raw, make_settings(), UNCOVERED, THREE)
    assert isinstance(figure, Figure)
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
