"""Plots of one experiment a clinician can read: class names, counts, units."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import confusion_matrix, precision_recall_curve, roc_curve

from busi_pipeline.arrays import StoredArray
from busi_pipeline.figures import PALETTE, class_colours, new_figure, new_picture_grid, show_picture
from busi_pipeline.judging import probability_columns, select_test, tell_number

_MISTAKES_SHOWN = 12


def draw_confusion_matrix(
    predictions: pd.DataFrame, settings: Mapping[str, Any], classes: list[str]
) -> Figure:
    """Draw the test images by true and predicted class: counts, and shares of each true class."""
    test = select_test(predictions)
    counts = confusion_matrix(test["label"], test["predicted"], labels=classes)
    shares = counts / counts.sum(axis=1, keepdims=True)
    correct, total = int(np.trace(counts)), int(counts.sum())
    figure = new_figure(
        10.5, 4.9, f"{settings['title']}: {correct} of {total} test images classified correctly"
    )
    panels = [
        ("Images", counts / counts.max(), [[f"{n}" for n in row] for row in counts]),
        (
            "Share of each true class",
            shares,
            [[f"{100 * share:.1f} %" for share in row] for row in shares],
        ),
    ]
    true_names = [f"{name}\n({n} images)" for name, n in zip(classes, counts.sum(1), strict=True)]
    for axis, (title, shade, texts) in zip(figure.subplots(1, 2), panels, strict=True):
        axis.imshow(shade, cmap="Blues", vmin=0, vmax=1)
        for row in range(len(classes)):
            for column in range(len(classes)):
                axis.text(
                    column,
                    row,
                    texts[row][column],
                    ha="center",
                    va="center",
                    fontsize=13,
                    color="white" if shade[row, column] > 0.6 else "black",
                )
        axis.set_title(title, fontsize=11)
        axis.set_xticks(range(len(classes)), classes)
        axis.set_yticks(range(len(classes)), true_names)
        axis.set_xlabel("predicted class")
        axis.set_ylabel("true class")
    return figure


def draw_ranking_curves(
    predictions: pd.DataFrame,
    metrics: Mapping[str, Any],
    settings: Mapping[str, Any],
    classes: list[str],
) -> Figure:
    """Draw ROC and precision-recall curves on the test images, each class against the rest."""
    test = select_test(predictions)
    of_class = metrics["test"]
    figure = new_figure(
        11, 5.2, f"{settings['title']}: each class against the rest, {len(test)} test images"
    )
    roc, recall = figure.subplots(1, 2)
    columns = dict(zip(classes, probability_columns(classes), strict=True))
    for name, colour in class_colours(classes).items():
        truth, scores = test["label"] == name, test[columns[name]]
        false_alarms, found, _ = roc_curve(truth, scores)
        roc.plot(
            false_alarms,
            found,
            color=colour,
            label=f"{name}, {truth.sum()} images: AUC {tell_number(of_class[name], 'auc')}",
        )
        precision, sensitivity, _ = precision_recall_curve(truth, scores)
        recall.plot(
            sensitivity,
            precision,
            color=colour,
            label=f"{name}: average precision "
            f"{tell_number(of_class[name], 'average_precision')}; chance {truth.mean():.2f}",
        )
    roc.plot([0, 1], [0, 1], color="grey", linestyle=":", label="chance")
    roc.set(title="ROC", xlabel="1 - specificity (false alarms)", ylabel="sensitivity")
    recall.set(title="Precision and recall", xlabel="sensitivity (recall)", ylabel="precision")
    for axis in (roc, recall):
        axis.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02), aspect="equal")
        axis.grid(alpha=0.3)
        axis.legend(loc="lower left" if axis is recall else "lower right", fontsize=8)
    return figure


def draw_learning_curves(
    history: Mapping[str, Mapping[str, list[float]]],
    training_report: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> Figure:
    """Draw cross-entropy and accuracy over the epochs; a dot marks the epoch kept.

    A phase that was undone (`best_epoch` 0) has none, and is named so.
    """
    kept = training_report["training"]["best_epoch"]
    figure = new_figure(11, 4.4, f"{settings['title']}: learning curves")
    names = {"head": "head alone", "fine_tuning": "fine-tuning"}
    panels = [("cross_entropy", "cross-entropy"), ("accuracy", "accuracy")]
    for axis, (key, ylabel) in zip(figure.subplots(1, 2), panels, strict=True):
        begun = 0
        for phase, curves in history.items():
            epochs = np.arange(len(curves["accuracy"])) + begun + 1
            first = begun == 0
            axis.plot(
                epochs, curves[key], color=PALETTE[0], label="training, augmented" if first else ""
            )
            axis.plot(
                epochs, curves[f"val_{key}"], color=PALETTE[1], label="validation" if first else ""
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
                axis.axvline(begun + 0.5, color="grey", linestyle=":")
            axis.text(
                (epochs[0] + epochs[-1]) / 2,
                1.01,
                names[phase] + ("" if kept[phase] else " (undone)"),
                transform=axis.get_xaxis_transform(),
                ha="center",
                fontsize=9,
            )
            begun = int(epochs[-1])
        axis.set(xlabel="epoch", ylabel=ylabel)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    return figure


def draw_worst_mistakes(
    predictions: pd.DataFrame,
    images: StoredArray,
    settings: Mapping[str, Any],
    classes: list[str],
) -> Figure:
    """Show the misclassified test images, missed cancers first, then the most certain mistakes."""
    test = select_test(predictions)
    wrong = test[~test["correct"]].copy()
    columns = dict(zip(classes, probability_columns(classes), strict=True))
    wrong["certainty"] = [row[columns[row["predicted"]]] for _, row in wrong.iterrows()]
    wrong["missed_cancer"] = wrong["label"] == "malignant"
    shown = wrong.sort_values(["missed_cancer", "certainty"], ascending=False)
    shown = shown.head(_MISTAKES_SHOWN)
    rows = max(1, -(-len(shown) // 4))
    missed = int(wrong["missed_cancer"].sum())
    figure, axes = new_picture_grid(
        (rows, 4),
        (2.9, 3.1),
        f"{settings['title']}: {len(shown)} of {len(wrong)} mistakes among {len(test)} test images "
        f"({missed} missed cancers, shown first)",
    )
    for axis, (_, row) in zip(axes.flat, shown.iterrows(), strict=False):
        show_picture(
            axis,
            np.asarray(images.values[images.find_rows([row["image_id"]])[0]]),
            f"{row['image_id'].rsplit('/', 1)[-1]}\n"
            f"predicted {row['predicted']} at {100 * row['certainty']:.0f} %",
            PALETTE[1] if row["missed_cancer"] else "black",
        )
    return figure
