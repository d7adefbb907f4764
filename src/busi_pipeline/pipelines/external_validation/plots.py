"""What a reader of an external test has to see: curves, subgroups, the worst mistakes."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.calibration import calibration_curve
from sklearn.metrics import roc_curve

from busi_pipeline.config.schemas import ModelSettings, PrivacySettings
from busi_pipeline.imaging.decoding import decode_image
from busi_pipeline.imaging.masks import load_mask
from busi_pipeline.imaging.text_cover import cover_text
from busi_pipeline.plotting.style import PALETTE, new_figure, new_picture_grid, show_picture
from busi_pipeline.stats.bootstrap import HIGH, LOW
from busi_pipeline.stats.classes import Classes
from busi_pipeline.stats.decision_curve import measure_net_benefit
from busi_pipeline.stats.scoring import format_number, format_share

RawImages = Mapping[str, Callable[[], bytes]]
_BINS = 8
_THRESHOLDS = np.linspace(0.01, 0.5, 50)
_SHOWN_MISTAKES = 6
_OUTLINE_SIZE = 256


def plot_site_curves(
    predictions: pd.DataFrame,
    metrics: Mapping[str, Any],
    settings: ModelSettings,
    classes: Classes,
) -> Figure:
    """Draw ROC with the delivered flag and the reader, calibration, and net benefit."""
    scores = metrics["external"]
    images = scores["images"]
    truth = predictions["is_positive"].to_numpy(dtype=bool)
    score = predictions["positive_score"].to_numpy()
    figure = new_figure(
        15,
        5.4,
        f"{settings.title} at {scores['site']}, a site it has not seen: {len(truth)} images, "
        f"{truth.sum()} {classes.positive_name}. Flag: sensitivity "
        f"{format_share(images['flag'], 'sensitivity')}, specificity "
        f"{format_share(images['flag'], 'specificity')}",
    )
    roc, reliability, benefit = figure.subplots(1, 3)
    _draw_roc(roc, truth, score, scores)
    _draw_reliability(reliability, truth, score, images["calibration"], classes)
    for label, probability, colour in (
        ("model", score, PALETTE[0]),
        ("flag all", np.ones_like(score), PALETTE[1]),
    ):
        values = measure_net_benefit(truth, probability, _THRESHOLDS)
        benefit.plot(_THRESHOLDS, values, color=colour, label=label)
    benefit.axhline(0, color="grey", linestyle=":", label="flag none")
    benefit.set(
        title=f"net benefit ({100 * truth.mean():.0f} % of these images are "
        f"{classes.positive_name})",
        xlabel=f"probability of {classes.positive_name} from which one would act",
        ylabel="found per image, less weighted false alarms",
        ylim=(-0.05, truth.mean() * 1.1),
    )
    for axis in (roc, reliability, benefit):
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8, loc="upper right" if axis is benefit else "lower right")
    return figure


def _draw_roc(axis: Axes, truth: np.ndarray, score: np.ndarray, scores: Mapping[str, Any]) -> None:
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
        "o",
        color=PALETTE[1],
        markersize=9,
        label="flag at the delivered threshold",
    )
    if "reader" in scores:
        reader = scores["reader"]
        axis.plot(
            1 - reader["specificity"],
            reader["sensitivity"],
            "D",
            color=PALETTE[2],
            markersize=8,
            label=f"readers: BI-RADS {reader['positive_from_birads']} or higher",
        )
    if "inside" in scores:
        axis.plot([], [], " ", label=f"inside: AUC {format_number(scores['inside'], 'auc')}")
    axis.plot([0, 1], [0, 1], color="grey", linestyle=":", label="chance")
    axis.set(
        title="ROC",
        xlabel="1 - specificity (false alarms)",
        ylabel="sensitivity",
        xlim=(-0.01, 1.01),
        ylim=(-0.01, 1.02),
        aspect="equal",
    )


def _draw_reliability(
    axis: Axes,
    truth: np.ndarray,
    score: np.ndarray,
    calibration: Mapping[str, Any],
    classes: Classes,
) -> None:
    """Draw bins of equal count with their binomial standard error."""
    shares, means = calibration_curve(truth, score, n_bins=_BINS, strategy="quantile")
    error = np.sqrt(shares * (1 - shares) / (len(truth) / len(shares)))
    axis.errorbar(
        means,
        shares,
        yerr=1.96 * error,
        fmt="o-",
        color=PALETTE[0],
        capsize=3,
        label=f"slope {format_number(calibration, 'slope')}\n"
        f"observed / expected {format_number(calibration, 'observed_expected')}",
    )
    axis.plot([0, 1], [0, 1], color="grey", linestyle=":", label="perfect")
    axis.set(
        title=f"calibration, {len(shares)} groups of equally many images",
        xlabel=f"predicted probability of {classes.positive_name}",
        ylabel=f"observed share of {classes.positive_name} images",
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.02),
        aspect="equal",
    )


def plot_subgroups(
    subgroups: pd.DataFrame, metrics: Mapping[str, Any], settings: ModelSettings
) -> Figure:
    """Draw AUC, sensitivity and specificity of the flag of each subgroup, with intervals."""
    scores = metrics["external"]["images"]
    shown = subgroups[subgroups[["auc", "sensitivity", "specificity"]].notna().any(axis=1)]
    figure = new_figure(
        14,
        1.9 + 0.34 * (len(shown) + 1),
        f"{settings.title} at {metrics['external']['site']}: subgroups with 95 % intervals "
        "(images in brackets; the grey line is the value of all images)",
    )
    axes = figure.subplots(1, 3, sharey=True)
    labels = [
        f"{row.variable}: {row.value} ({row.images})" for row in shown.itertuples(index=False)
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
        axis.set_yticks(places, labels, fontsize=9)
        axis.grid(alpha=0.3)
    return figure


def plot_worst_mistakes(
    raw_images: RawImages,
    manifest: pd.DataFrame,
    predictions: pd.DataFrame,
    settings: ModelSettings,
    privacy: PrivacySettings,
    classes: Classes,
) -> Figure:
    """Show the missed positive images with the lowest scores, then the strongest false alarms.

    At their true aspect ratio; the white line is the lesion, as its mask has it.
    """
    positive, flagged = (
        predictions[name].to_numpy(dtype=bool) for name in ("is_positive", "flagged")
    )
    ranked = predictions.sort_values("positive_score", kind="stable")
    missed = ranked[(positive & ~flagged)[ranked.index]].head(_SHOWN_MISTAKES)
    alarms = ranked[(~positive & flagged)[ranked.index]].tail(_SHOWN_MISTAKES).iloc[::-1]
    figure, axes = new_picture_grid(
        (2, _SHOWN_MISTAKES),
        (2.5, 2.9),
        f"{settings.title} at {predictions['site'].iloc[0]}: first row, the "
        f"{len(missed)} lowest-scored of {(positive & ~flagged).sum()} missed "
        f"{classes.positive_name} images; second row, the {len(alarms)} highest-scored of "
        f"{(~positive & flagged).sum()} false alarms",
    )
    known = manifest.set_index("image_id")
    for line, table in zip(axes, (missed, alarms), strict=True):
        for axis, row in zip(line, table.to_dict("records"), strict=False):
            image = known.loc[row["image_id"]]
            pixels = decode_image(raw_images[image["path"]]()).pixels
            if privacy.cover_text:
                pixels = cover_text(pixels)
            birads = f", BI-RADS {image['birads']}" if image["birads"] else ""
            show_picture(
                axis,
                pixels,
                f"{row['label']}{birads}\nclassified as {row['predicted']}, "
                f"p({classes.positive_name}) {row['positive_score']:.2g}\n"
                + ("flagged" if row["flagged"] else "not flagged"),
                PALETTE[1] if row["is_positive"] else "black",
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
        13,
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
        axis.set_yticks(range(len(titles)), titles[::-1])
        axis.grid(alpha=0.3)
    figure.axes[0].legend(fontsize=8, loc="lower left")
    return figure
