"""Plots of one evaluation a clinician can read: class names, counts, units.

The same plots show a hold-out test set and the out-of-fold images of a cross-validation.
"""

from collections.abc import Callable, Mapping
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import confusion_matrix, precision_recall_curve, roc_curve

from busi_pipeline.config.schemas import ModelSettings, PrivacySettings
from busi_pipeline.imaging.decoding import decode_image
from busi_pipeline.imaging.text_cover import cover_text
from busi_pipeline.plotting.curves import format_threshold, put_legend_below
from busi_pipeline.plotting.style import (
    ALARM,
    FLAG_STYLE,
    PAGE_WIDTH,
    PALETTE,
    SMALL_TEXT,
    NothingToShow,
    class_colours,
    new_figure,
    new_picture_grid,
    show_picture,
)
from busi_pipeline.stats.classes import Classes
from busi_pipeline.stats.scoring import (
    format_number,
    format_share,
    probability_columns,
    select_test,
)

RawImages = Mapping[str, Callable[[], bytes]]
_MISCLASSIFIED_SHOWN = 12
_COLUMNS = 4


def describe_evaluation(metrics: Mapping[str, Any]) -> str:
    """Return what was evaluated, and how: `ResNet50, 5-fold cross-validation`, for titles.

    Args:
        metrics: `experiment.title`, `folds`, `repeats`, and the number of evaluations in
            `test.images`.
    """
    title, folds, repeats = metrics["experiment"]["title"], metrics["folds"], metrics["repeats"]
    if folds > 1:
        title += f", {folds}-fold cross-validation"
    if repeats > 1:  # or three evaluations of an image would pass for three images
        title += (
            f", each of {metrics['test']['images'] // repeats} images evaluated {repeats} times"
        )
    return str(title)


def name_images(metrics: Mapping[str, Any]) -> str:
    """Return what is counted in the plots of this evaluation: `test images`, say."""
    if metrics["folds"] == 1:
        return "test images"
    return "out-of-fold evaluations" if metrics["repeats"] > 1 else "out-of-fold images"


def plot_confusion_matrix(
    predictions: pd.DataFrame, metrics: Mapping[str, Any], classes: Classes
) -> Figure:
    """Draw the test images by true and predicted class: counts, and shares of each true class."""
    test = select_test(predictions)
    names = list(classes)
    counts = confusion_matrix(test["label"], test["predicted"], labels=names)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    correct, total = int(np.trace(counts)), int(counts.sum())
    # The cells shrink where there are many classes, and their text with them.
    size = min(13.0, max(SMALL_TEXT, 39 / len(classes)))
    figure = new_figure(
        min(PAGE_WIDTH, 5.5 + 1.7 * len(classes)),
        2.2 + 0.9 * len(classes),
        f"{describe_evaluation(metrics)}: {correct} of {total} {name_images(metrics)} correct",
    )
    panels = [
        ("Images", counts / max(1, counts.max()), [[f"{n}" for n in row] for row in counts]),
        (
            "Share of each true class",
            shares,
            [[f"{100 * share:.1f} %" for share in row] for row in shares],
        ),
    ]
    labels = [fill(name, max(8, 42 // len(classes))) for name in names]
    true_labels = [f"{name}\n({n})" for name, n in zip(labels, counts.sum(1), strict=True)]
    for axis, (title, shade, texts) in zip(figure.subplots(1, 2), panels, strict=True):
        axis.imshow(shade, cmap="Blues", vmin=0, vmax=1)
        for row in range(len(names)):
            for column in range(len(names)):
                axis.text(
                    column,
                    row,
                    texts[row][column],
                    ha="center",
                    va="center",
                    fontsize=size,
                    color="white" if shade[row, column] > 0.6 else "black",
                )
        axis.set_title(title, fontsize=11)
        axis.set_xticks(range(len(names)), labels, fontsize=min(10, size))
        axis.set_yticks(range(len(names)), true_labels, fontsize=min(10, size))
        axis.set_xlabel("predicted class (the likeliest)")
        axis.set_ylabel("true class")
    return figure


def plot_roc_pr_curves(
    predictions: pd.DataFrame, metrics: Mapping[str, Any], classes: Classes
) -> Figure:
    """Draw ROC and precision-recall curves on the test images, each class against the rest.

    Where several classes are positive, one more curve shows them together against the others. The
    flag stands on the ROC curve of the positive classes, where all images have one threshold.
    """
    test = select_test(predictions)
    scores = metrics["test"]
    figure = new_figure(
        PAGE_WIDTH,
        5.9 + 0.18 * len(classes),
        f"{describe_evaluation(metrics)}: each class against the rest, {len(test)} "
        f"{name_images(metrics)}",
    )
    table = test[probability_columns(classes)].to_numpy()
    curves = [
        (name, colour, (test["label"] == name).to_numpy(), table[:, classes.index(name)])
        for name, colour in class_colours(classes).items()
    ]
    if len(classes.positive) > 1:
        positive = classes.is_positive(test["label"]), classes.positive_score(table)
        curves.append((classes.positive_name, "black", *positive))
    roc, recall = figure.subplots(1, 2)
    for name, colour, truth, score in curves:
        of_class = scores[name] if name in classes.names else scores["positive"]
        false_alarms, found, _ = roc_curve(truth, score)
        roc.plot(
            false_alarms,
            found,
            color=colour,
            label=f"{name} ({truth.sum()}): AUC {format_number(of_class, 'auc')}",
        )
        precision, sensitivity, _ = precision_recall_curve(truth, score)
        recall.plot(
            sensitivity,
            precision,
            color=colour,
            drawstyle="steps-post",  # the average precision is the area below steps
            label=f"{name}: {format_number(of_class, 'average_precision')}; "
            f"chance {truth.mean():.2f}",
        )
    roc.plot([0, 1], [0, 1], color="grey", linestyle=":", label="chance")
    flag = scores["flag"]
    roc.plot(
        1 - flag["specificity"],
        flag["sensitivity"],
        **FLAG_STYLE,
        label=f"{_describe_flag(test, classes)}:\nsensitivity {format_share(flag, 'sensitivity')}, "
        f"specificity {format_share(flag, 'specificity')}",
    )
    roc.set(title="ROC", xlabel="1 - specificity (false alarms)", ylabel="sensitivity")
    recall.set(
        title="Precision and recall (average precision)",
        xlabel="sensitivity (recall)",
        ylabel="precision",
    )
    for axis in (roc, recall):
        axis.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02))
        axis.set_box_aspect(1)
        axis.grid(alpha=0.3)
        put_legend_below(axis)
    return figure


def _describe_flag(test: pd.DataFrame, classes: Classes) -> str:
    """Return from which probability an image is flagged; of folds, from which ones."""
    lowest, highest = (format_threshold(float(value)) for value in _find_ends(test["threshold"]))
    of_positive = f"a probability of {classes.positive_name}"
    if test["threshold"].nunique() == 1:
        return f"flagged from {of_positive} of {lowest} on"
    return f"flagged from {of_positive} that each fold has chosen\n({lowest} to {highest})"


def _find_ends(values: pd.Series) -> tuple[float, float]:
    return float(values.min()), float(values.max())


def plot_learning_curves(
    history: Mapping[str, Mapping[str, list[float]]],
    training_report: Mapping[str, Any],
    settings: ModelSettings,
) -> Figure:
    """Draw cross-entropy and accuracy over the epochs; a dot marks the epoch kept.

    A phase that was rolled back (`best_epoch` 0) has no dot, and is named so.
    """
    kept = training_report["training"]["best_epoch"]
    figure = new_figure(PAGE_WIDTH, 4.4, f"{settings.title}: learning curves")
    names = {"head": "head alone", "fine_tuning": "fine-tuning"}
    panels = [("cross_entropy", "cross-entropy"), ("accuracy", "accuracy")]
    for axis, (key, ylabel) in zip(figure.subplots(1, 2), panels, strict=True):
        done = 0
        for phase, curves in history.items():
            epochs = np.arange(len(curves["accuracy"])) + done + 1
            first = done == 0
            # A phase of one epoch is a point, which a line would not show.
            style = {"marker": "." if len(epochs) == 1 else ""}
            axis.plot(
                *(epochs, curves[key]),
                **style,
                color=PALETTE[0],
                label="training, augmented" if first else "",
            )
            axis.plot(
                *(epochs, curves[f"val_{key}"]),
                **style,
                color=PALETTE[1],
                label="validation" if first else "",
            )
            if kept[phase]:
                axis.plot(
                    epochs[kept[phase] - 1],
                    curves[f"val_{key}"][kept[phase] - 1],
                    "o",
                    color=PALETTE[1],
                    label="epoch kept" if first else "",
                )
            if not first:
                axis.axvline(done + 0.5, color="grey", linestyle=":")
            axis.text(
                (epochs[0] + epochs[-1]) / 2,
                1.01,
                names[phase] + ("" if kept[phase] else " (rolled back)"),
                transform=axis.get_xaxis_transform(),
                ha="left" if first and len(epochs) == 1 else "center",
                fontsize=9,
            )
            done = int(epochs[-1])
        axis.set(xlabel="epoch", ylabel=ylabel)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(alpha=0.3)
        axis.legend(fontsize=SMALL_TEXT)
    return figure


def plot_misclassified(
    predictions: pd.DataFrame,
    raw_images: RawImages,
    manifest: pd.DataFrame,
    settings: ModelSettings,
    privacy: PrivacySettings,
    classes: Classes,
) -> Figure | NothingToShow:
    """Show the test images whose likeliest class is wrong, the most certain mistakes first.

    The pictures are whole and keep their shape. Positive images classified as a negative class
    come before all others. Such an image is missed only where it is not flagged for review either:
    the title counts both, each picture says it.
    """
    test = select_test(predictions)
    wrong = test[~test["correct"].astype(bool)].copy()
    if wrong.empty:
        return NothingToShow(
            f"{settings.title}: none of the {len(test)} {_name_kind(test)} is misclassified."
        )
    table = wrong[probability_columns(classes)].to_numpy()
    wrong["certainty"] = table.max(axis=1)
    wrong["score"] = classes.positive_score(table)
    wrong["as_negative"] = classes.is_positive(wrong["label"]) & ~classes.is_positive(
        wrong["predicted"]
    )
    shown = wrong.sort_values(["as_negative", "certainty"], ascending=False)
    shown = shown.head(_MISCLASSIFIED_SHOWN)
    figure, axes = new_picture_grid(
        (-(-len(shown) // _COLUMNS), _COLUMNS),
        (PAGE_WIDTH / _COLUMNS, 3.0),
        f"{settings.title}: {len(shown)} of {len(wrong)} misclassified among {len(test)} "
        f"{_name_kind(test)}. {describe_positives(wrong[wrong['as_negative']], classes)}",
    )
    paths = manifest.set_index("image_id")["path"]
    for axis, row in zip(axes.flat, shown.to_dict("records"), strict=False):
        flag = "flagged for review" if row["flagged"] else "not flagged"
        if row["label"] in classes.positive and not row["flagged"]:
            flag += ": missed"
        pixels = decode_image(raw_images[paths[row["image_id"]]]()).pixels
        show_picture(
            axis,
            cover_text(pixels) if privacy.cover_text else pixels,
            f"{row['image_id'].rsplit('/', 1)[-1]}\n"
            f"{row['label']} classified as {row['predicted']}, {100 * row['certainty']:.0f} %\n"
            f"p({classes.positive_name}) {format_threshold(row['score'])}, {flag}",
            ALARM if row["as_negative"] else "black",
        )
    return figure


def _name_kind(test: pd.DataFrame) -> str:
    return "test images" if test["fold"].nunique() == 1 else "images, out of fold"


def describe_positives(as_negative: pd.DataFrame, classes: Classes) -> str:
    """Return how many positive images are classified as negative, and how many of them flagged.

    Args:
        as_negative: the predictions of those images.
        classes: of the predictions.
    """
    kind = f"{classes.positive_name} classified as {classes.negative_name}"
    if as_negative.empty:
        return f"None is {kind}."
    count, flagged = len(as_negative), int(as_negative["flagged"].sum())
    return (
        f"First, in colour: {count} {kind}; {flagged} of them flagged for review all the same, "
        f"{count - flagged} missed."
    )
