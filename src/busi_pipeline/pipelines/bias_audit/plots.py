"""Show the annotations that were found, and the audit."""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from busi_pipeline.config.schemas import ExperimentSettings, PrivacySettings
from busi_pipeline.imaging.decoding import decode_image
from busi_pipeline.imaging.text_cover import cover_text
from busi_pipeline.learning.linear_probe import BOUNDING_BOX, OCCLUDED
from busi_pipeline.plotting.style import (
    PAGE_WIDTH,
    PALETTE,
    SMALL_TEXT,
    NothingToShow,
    new_figure,
    new_picture_grid,
    show_picture,
    wrap_label,
)
from busi_pipeline.stats.bootstrap import HIGH, LOW
from busi_pipeline.stats.classes import Classes

from .nodes import ANNOTATIONS

_SHOWN, _COLUMNS = 12, 6


def plot_burned_in_annotations(
    raw_images: Mapping[str, Callable[[], bytes]],
    manifest: pd.DataFrame,
    burned_in_annotations: pd.DataFrame,
    privacy: PrivacySettings,
) -> Figure | NothingToShow:
    """Show the least certain callipers and the shortest texts, framed: the detector may err there.

    Text is covered all the same, so of a text its place is seen.
    """
    found = burned_in_annotations
    path_of = manifest.set_index("image_id")["path"]
    counts = ", ".join(f"{name} on {found[name].sum()} of {len(found)}" for name in ANNOTATIONS)
    least = {
        name: found[found[name]].sort_values(f"{name}_score").head(_SHOWN)
        for name in ANNOTATIONS
        if f"{name}_score" in found and found[name].any()  # colour has no place
    }
    if not least:
        return NothingToShow(f"No calliper and no text was found: {counts} images.")
    lines = {name: -(-len(table) // _COLUMNS) for name, table in least.items()}
    figure, axes = new_picture_grid(
        (sum(lines.values()), _COLUMNS),
        (PAGE_WIDTH / _COLUMNS, 2.2),
        f"Burned-in annotations: {counts} images; shown are the least certain",
    )
    ends = np.cumsum(list(lines.values()))
    for part, (name, table) in zip(np.split(axes, ends[:-1]), least.items(), strict=True):
        for axis, row in zip(part.flat, table.to_dict("records"), strict=False):
            pixels = decode_image(raw_images[path_of[row["image_id"]]]()).pixels
            if privacy.cover_text:
                pixels = cover_text(pixels)
            left, top, width, height = (
                int(row[f"{name}_{key}"]) for key in ("left", "top", "width", "height")
            )
            side = max(width, height) + 16
            first = max(0, top + height // 2 - side // 2)
            begin = max(0, left + width // 2 - side // 2)
            crop = pixels[first : first + side, begin : begin + side]
            score = row[f"{name}_score"]
            name_and_score = f"{row['image_id'].rsplit('/', 1)[-1]}\n{name}, score {score:.3g}"
            show_picture(axis, crop, name_and_score)
            corner = (left - begin - 0.5, top - first - 0.5)
            axis.add_patch(Rectangle(corner, width, height, fill=False, edgecolor=PALETTE[1]))
    return figure


def plot_bias_audit(
    bias_audit: pd.DataFrame, settings: ExperimentSettings, classes: Classes
) -> Figure:
    """Draw the audit: accuracy and the two AUCs of every question with their intervals."""
    positive = classes.positive_name
    panels = {
        "accuracy": "accuracy (%)",
        "positive_auc": f"AUC, {positive} against all others",
        "lesion_auc": f"AUC, {positive} against other lesions",
    }
    figure = new_figure(
        PAGE_WIDTH,
        0.46 * len(bias_audit) + 1.9,
        f"{settings.title}: does the model rely on burned-in annotations, or on what surrounds the "
        "lesion? Out-of-fold images, 95 % confidence intervals",
    )
    axes = figure.subplots(1, len(panels), sharey=True)
    places = np.arange(len(bias_audit))
    without_lesion = bias_audit["question"].isin([OCCLUDED, BOUNDING_BOX])
    colours = np.where(without_lesion, PALETTE[1], PALETTE[0]).tolist()
    for axis, (name, label) in zip(axes, panels.items(), strict=True):
        unit = 100 if name == "accuracy" else 1
        values, low, high = (
            bias_audit[name + end].to_numpy(float) * unit for end in ("", LOW, HIGH)
        )
        axis.hlines(places, low, high, colors=colours, linewidth=2)
        axis.scatter(values, places, c=colours, zorder=2)
        if unit == 1:
            axis.axvline(0.5, color="grey", linestyle=":", label="chance")
        axis.set(xlabel=label)
        axis.grid(axis="x", alpha=0.3)
        labels = [
            wrap_label(f"{row['question']} ({row['images']} images)", 1.9)
            for row in bias_audit.to_dict("records")
        ]
        axis.set_yticks(places, labels, fontsize=SMALL_TEXT)
    axes[0].invert_yaxis()
    handles = [
        axes[0].plot([], [], "o-", color=PALETTE[0], label="lesion visible")[0],
        axes[0].plot([], [], "o-", color=PALETTE[1], label="lesion not visible")[0],
        axes[0].plot([], [], color="grey", linestyle=":", label="AUC by chance")[0],
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=9)
    return figure
