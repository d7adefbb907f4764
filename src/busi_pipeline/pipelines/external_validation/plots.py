"""What a reader of an external test has to see: curves, subgroups, the worst mistakes."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import roc_curve

from busi_pipeline.config.schemas import EvaluationSettings, ModelSettings, PrivacySettings
from busi_pipeline.imaging.decoding import decode_image
from busi_pipeline.imaging.masks import load_mask
from busi_pipeline.imaging.text_cover import cover_text
from busi_pipeline.plotting.curves import (
    draw_flag,
    draw_net_benefit,
    draw_reliability,
    format_threshold,
    list_bins,
    list_thresholds,
    put_legend_below,
    stretch_small_probabilities,
)
from busi_pipeline.plotting.style import (
    ALARM,
    FLAG_STYLE,
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
from busi_pipeline.stats.decision_curve import measure_net_benefit
from busi_pipeline.stats.reliability import measure_reliability
from busi_pipeline.stats.scoring import format_number, format_share

RawImages = Mapping[str, Callable[[], bytes]]
_THRESHOLD = "delivered threshold"
_SHOWN_MISTAKES, _COLUMNS = 8, 4
_OUTLINE_SIZE = 256


def plot_site_curves(
    predictions: pd.DataFrame,
    metrics: Mapping[str, Any],
    settings: ModelSettings,
    evaluation: EvaluationSettings,
    classes: Classes,
) -> Figure:
    """Draw ROC with the delivered flag and the reader, calibration, net benefit, and the flag."""
    scores = metrics["external"]
    images = scores["images"]
    truth = predictions["is_positive"].to_numpy(dtype=bool)
    score = predictions["positive_score"].to_numpy()
    threshold = float(scores["model"]["threshold"])
    figure = new_figure(
        PAGE_WIDTH,
        12.4,
        f"{settings.title} at {scores['site']}, a site it has not seen: {len(truth)} images, "
        f"{truth.sum()} {classes.positive_name}",
    )
    panels = figure.subplots(3, 2, height_ratios=(5, 1, 5))
    (roc, reliability), (empty, table), (benefit, flag) = panels
    empty.remove()
    _draw_roc(roc, truth, score, scores, threshold)
    bins = measure_reliability(
        truth, score, predictions["group"].tolist(), evaluation.n_resamples, evaluation.seed
    )
    _draw_calibration(reliability, bins, images["calibration"], classes)
    list_bins(table, bins)
    draw_net_benefit(
        benefit,
        list_thresholds(score, threshold),
        lambda at: (
            measure_net_benefit(truth, score, at),
            measure_net_benefit(truth, np.ones_like(score), at),
        ),
        threshold,
        float(truth.mean()),
        {"positive": classes.positive_name, "threshold": _THRESHOLD, "images": "images"},
    )
    shares = ("sensitivity", "specificity", "ppv", "npv")
    draw_flag(
        flag,
        images["flag"],
        {name: format_share(images["flag"], name) for name in shares},
        {
            "positive": classes.positive_name,
            "negative": classes.negative_name if len(classes.positive) == 1 else "the others",
            "title": f"the flag, from a probability of {format_threshold(threshold)} on",
        },
    )
    for axis in (roc, reliability, benefit):
        axis.grid(alpha=0.3)
        put_legend_below(axis)
    return figure


def _draw_roc(
    axis: Axes, truth: np.ndarray, score: np.ndarray, scores: Mapping[str, Any], threshold: float
) -> None:
    false_alarms, found, _ = roc_curve(truth, score)
    images, flag = scores["images"], scores["images"]["flag"]
    axis.plot(
        false_alarms,
        found,
        color=PALETTE[0],
        label=f"model: AUC {format_number(images, 'auc')}",
    )
    axis.plot(
        1 - flag["specificity"],
        flag["sensitivity"],
        **FLAG_STYLE,
        label=f"flag at the {_THRESHOLD} {format_threshold(threshold)}",
    )
    if "reader" in scores:
        reader = scores["reader"]
        axis.plot(
            1 - reader["specificity"],
            reader["sensitivity"],
            "s",
            color=PALETTE[2],
            markersize=8,
            label=f"readers: BI-RADS {reader['positive_from_birads']} or higher",
        )
    axis.plot([0, 1], [0, 1], color="grey", linestyle=":", label="chance")
    inside = scores.get("inside")
    axis.set(
        title="ROC" + (f" (AUC at its own site: {format_number(inside, 'auc')})" if inside else ""),
        xlabel="1 - specificity (false alarms)",
        ylabel="sensitivity",
        xlim=(-0.01, 1.01),
        ylim=(-0.01, 1.02),
    )
    axis.set_box_aspect(1)


def _draw_calibration(
    axis: Axes, bins: pd.DataFrame, calibration: Mapping[str, Any], classes: Classes
) -> None:
    draw_reliability(
        axis, bins, f"{len(bins)} groups of equally many images, 95 % intervals", PALETTE[0]
    )
    stretch_small_probabilities(axis, max(bins["predicted"].max(), bins[f"observed{HIGH}"].max()))
    axis.set(
        title=f"calibration (axes stretched near 0)\n"
        f"slope {format_number(calibration, 'slope')}; 1 is perfect\n"
        f"observed over expected {format_number(calibration, 'observed_expected')}; 1 is perfect",
        xlabel=f"predicted probability of {classes.positive_name} (%)",
        ylabel=f"observed frequency of {classes.positive_name} (%)",
    )


def plot_subgroups(
    subgroups: pd.DataFrame, metrics: Mapping[str, Any], settings: ModelSettings
) -> Figure | NothingToShow:
    """Draw AUC, sensitivity and specificity of the flag of each subgroup, with intervals."""
    scores = metrics["external"]["images"]
    shown = subgroups[subgroups[["auc", "sensitivity", "specificity"]].notna().any(axis=1)]
    if shown.empty:
        return NothingToShow(
            f"{settings.title} at {metrics['external']['site']}: no subgroup has enough images."
        )
    figure = new_figure(
        PAGE_WIDTH,
        1.9 + 0.36 * (len(shown) + 1),
        f"{settings.title} at {metrics['external']['site']}: subgroups with 95 % intervals "
        "(images in brackets; the grey line is the value of all images)",
    )
    axes = figure.subplots(1, 3, sharey=True)
    labels = [
        wrap_label(f"{row.variable}: {row.value} ({row.images})", 2.2)
        for row in shown.itertuples(index=False)
    ]
    places = np.arange(len(shown))[::-1]
    whole = {
        "auc": scores["auc"],
        "sensitivity": scores["flag"]["sensitivity"],
        "specificity": scores["flag"]["specificity"],
    }
    titles = {
        "auc": "AUC",
        "sensitivity": "sensitivity of the flag",
        "specificity": "specificity of the flag",
    }
    for axis, (name, value) in zip(axes, whole.items(), strict=True):
        known = shown[name].notna().to_numpy()
        part = shown[known]
        ends = [part[name] - part[name + LOW], part[name + HIGH] - part[name]]
        axis.errorbar(
            part[name],
            places[known],
            xerr=np.maximum(np.array(ends, dtype=float), 0),
            fmt="o",
            color=PALETTE[0],
            capsize=3,
        )
        axis.axvline(value, color="grey", linestyle="--")
        axis.set(title=titles[name], xlim=(-0.02, 1.02))
        axis.title.set_fontsize(10)
        axis.set_yticks(places, labels, fontsize=SMALL_TEXT)
        axis.grid(alpha=0.3)
    return figure


def plot_worst_mistakes(
    raw_images: RawImages,
    manifest: pd.DataFrame,
    predictions: pd.DataFrame,
    settings: ModelSettings,
    privacy: PrivacySettings,
    classes: Classes,
) -> Figure | NothingToShow:
    """Show the missed positive images with the lowest scores, then the strongest false alarms.

    At their true aspect ratio; the white line is the lesion, as its mask has it.
    """
    positive, flagged = (
        predictions[name].to_numpy(dtype=bool) for name in ("is_positive", "flagged")
    )
    ranked = predictions.sort_values("positive_score", kind="stable")
    missed = ranked[(positive & ~flagged)[ranked.index]].head(_SHOWN_MISTAKES)
    alarms = ranked[(~positive & flagged)[ranked.index]].tail(_SHOWN_MISTAKES).iloc[::-1]
    where = f"{settings.title} at {predictions['site'].iloc[0]}"
    if missed.empty and alarms.empty:
        return NothingToShow(
            f"{where}: no {classes.positive_name} image is missed, and there is no false alarm."
        )
    lines = [-(-len(table) // _COLUMNS) for table in (missed, alarms)]
    figure, axes = new_picture_grid(
        (sum(lines), _COLUMNS),
        (PAGE_WIDTH / _COLUMNS, 3.0),
        f"{where}: first, in colour, the {len(missed)} lowest-scored of "
        f"{(positive & ~flagged).sum()} missed {classes.positive_name} images; then the "
        f"{len(alarms)} highest-scored of {(~positive & flagged).sum()} false alarms",
    )
    known = manifest.set_index("image_id")
    parts = axes[: lines[0]], axes[lines[0] :]
    for part, table in zip(parts, (missed, alarms), strict=True):
        for axis, row in zip(part.flat, table.to_dict("records"), strict=False):
            image = known.loc[row["image_id"]]
            pixels = decode_image(raw_images[image["path"]]()).pixels
            if privacy.cover_text:
                pixels = cover_text(pixels)
            birads = f", BI-RADS {image['birads']}" if image["birads"] else ""
            show_picture(
                axis,
                pixels,
                f"{row['label']}{birads}\nclassified as {row['predicted']}, "
                f"p({classes.positive_name}) "
                f"{format_threshold(row['positive_score'])}\n"
                + ("flagged: false alarm" if row["flagged"] else "not flagged: missed"),
                ALARM if row["is_positive"] else "black",
            )
            paths = json.loads(image["mask_paths"])
            if paths:
                outline_lesion(axis, load_mask(raw_images, paths, _OUTLINE_SIZE), pixels.shape)
    return figure


def outline_lesion(axis: Axes, mask: np.ndarray, shape: tuple[int, ...]) -> None:
    """Draw the outline of a mask of any size over a picture of this shape (height, width, ...)."""
    height, width = shape[:2]
    # The picture's first row is at the top, where its y axis begins.
    extent = (-0.5, width - 0.5, -0.5, height - 0.5)
    axis.contour(mask, levels=[0.5], colors="white", linewidths=1, extent=extent, origin="lower")


def plot_inside_and_outside(external_comparison: pd.DataFrame, classes: Classes) -> Figure:
    """Draw AUC, sensitivity and specificity of each model inside and outside, side by side."""
    panels = [
        ("auc", f"AUC of {classes.positive_name}"),
        ("sensitivity", "sensitivity of the flag"),
        ("specificity", "specificity of the flag"),
    ]
    titles = list(dict.fromkeys(external_comparison["title"]))
    sites = ", ".join(
        dict.fromkeys(external_comparison.loc[~external_comparison["inside"], "site"])
    )
    figure = new_figure(
        PAGE_WIDTH,
        1.9 + 0.6 * len(titles),
        f"Own test images, and {sites}, which no model has seen; 95 % intervals",
    )
    for axis, (name, title) in zip(
        figure.subplots(1, len(panels), sharey=True), panels, strict=True
    ):
        for inside, colour, label, shift in (
            (True, PALETTE[0], "inside", 0.12),
            (False, PALETTE[1], "site not seen", -0.12),
        ):
            part = external_comparison[external_comparison["inside"] == inside]
            places = np.array([len(titles) - 1 - titles.index(t) for t in part["title"]]) + shift
            ends = [part[name] - part[name + LOW], part[name + HIGH] - part[name]]
            axis.errorbar(
                part[name],
                places,
                xerr=np.maximum(np.array(ends, dtype=float), 0),
                fmt="o",
                color=colour,
                capsize=3,
                label=label,
            )
        axis.set(title=title, xlim=(-0.02, 1.02), ylim=(-0.6, len(titles) - 0.4))
        axis.title.set_fontsize(10)
        axis.set_yticks(range(len(titles)), [wrap_label(t, 1.8, 10) for t in titles[::-1]])
        axis.grid(alpha=0.3)
    # Below: within the axes it would hide an interval.
    entries = figure.axes[0].get_legend_handles_labels()
    figure.legend(*entries, loc="outside lower center", ncols=2, fontsize=SMALL_TEXT)
    return figure
