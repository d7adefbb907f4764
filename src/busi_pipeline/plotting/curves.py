"""Curves that more than one stage draws: reliability, the flag, thresholds, net benefit."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator
from matplotlib.transforms import Bbox

from busi_pipeline.plotting.style import FLAG_STYLE, PALETTE, SMALL_TEXT, wrap_label

_LOWEST_THRESHOLD, _LOWEST_NAMED = 1e-6, 1e-4
_NO_SHARE = "–"
_PANEL, _TITLE_SIZE = 4.2, 10  # inches, points: of one of two panels on a page
# Ends and ticks of an axis of probabilities.
_STEPS = (0, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 0.75, 1)
_TICK_DISTANCE = 0.09


def format_percent(share: float) -> str:
    """Return a share in per cent without the sign: `0`, `< 0.1`, `1.2`, `34`."""
    if 0 < share < 0.001:
        return "< 0.1"
    return f"{100 * share:.1f}" if 0 < share < 0.0995 else f"{100 * share:.0f}"


def format_threshold(threshold: float) -> str:
    """Return a threshold so that a small one is not 0, nor one below 1 is 1: `0.012`."""
    if 0 < threshold < _LOWEST_NAMED:
        return f"below {_LOWEST_NAMED}"
    if 0.9995 <= threshold < 1:
        return "above 0.999"
    return f"{threshold:.2g}" if threshold < 0.1 else f"{threshold:.3g}"


def list_thresholds(scores: np.ndarray, threshold: float) -> np.ndarray:
    """Return float (n,), rising thresholds for a logarithmic axis that holds the scores.

    Args:
        scores: float (images,), 0 to 1.
        threshold: 0 to 1, that the axis has to hold; one of 0 lies at its lower end.
    """
    wanted = min(0.01, threshold or 0.01, max(float(np.quantile(scores, 0.02)), 0.001))
    lowest = 10.0 ** np.floor(np.log10(max(wanted * 0.9, _LOWEST_THRESHOLD)))
    inside = threshold if lowest < threshold < 1 else lowest
    return np.unique([*np.geomspace(lowest, 1, 301), inside])


def scale_thresholds(axis: Axes, thresholds: np.ndarray) -> None:
    """Make the x axis logarithmic over the thresholds, and write it in plain numbers."""
    axis.set_xscale("log")
    axis.set_xlim(thresholds[0] * 0.9, 1.1)
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())


def mark_threshold(axis: Axes, threshold: float, thresholds: np.ndarray, label: str) -> float:
    """Draw the threshold as a dashed line; return where: one of 0 lies at the end of the axis."""
    place = float(np.clip(threshold, thresholds[0], 1))
    axis.axvline(place, color="black", linestyle="--", linewidth=1.2, label=label)
    return place


def draw_net_benefit(
    axis: Axes,
    thresholds: np.ndarray,
    measure: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
    threshold: float,
    prevalence: float,
    names: Mapping[str, str],
) -> None:
    """Draw the decision curve of the model, of flagging all and none, and mark the threshold.

    Args:
        axis: to draw on.
        thresholds: float (n,), see `list_thresholds`.
        measure: takes thresholds below 1, gives the net benefit of the model and of flagging all.
        threshold: that is marked.
        prevalence: share of positives among the images.
        names: `positive`, `threshold` (whose it is), `images`.
    """
    below_1 = thresholds[thresholds < 1]
    of_model, of_all = measure(below_1)
    axis.plot(below_1, of_model, color=PALETTE[0], label="model")
    axis.plot(below_1, of_all, color=PALETTE[1], label="flag all")
    axis.axhline(0, color="grey", linestyle=":", label="flag none")
    place = mark_threshold(
        axis, threshold, thresholds, f"{names['threshold']} {format_threshold(threshold)}"
    )
    if 0 < threshold < 1:
        value = float(measure(np.array([place]))[0][0])
        axis.plot(place, value, **FLAG_STYLE, label=f"net benefit of the model there: {value:.3f}")
    scale_thresholds(axis, thresholds)
    axis.set(
        title=f"net benefit (decision curve): {format_percent(prevalence)} % of the "
        f"{names['images']} are {names['positive']}",
        xlabel=f"probability of {names['positive']} from which one would act",
        ylabel="found per image, less weighted false alarms",
        ylim=(-0.3 * prevalence, 1.15 * prevalence),
    )


def draw_reliability(
    axis: Axes, bins: pd.DataFrame, label: str, colour: str, small: pd.DataFrame | None = None
) -> None:
    """Draw observed share against predicted probability with intervals, and the perfect line.

    Args:
        axis: to draw on.
        bins: `predicted`, `observed`, `observed_ci_low`, `observed_ci_high`, `images`.
        label: of the points.
        colour: of the points.
        small: bins of the same before a step, drawn without intervals.
    """
    axis.plot([0, 1], [0, 1], color="grey", linestyle=":", label="perfect")
    if small is not None:
        axis.plot(
            small["predicted"],
            small["observed"],
            "x:",
            color=PALETTE[1],
            markersize=5,
            label="before calibration",
        )
    ends = [bins["observed_ci_low"], bins["observed_ci_high"]]
    lengths = np.abs(np.array([end - bins["observed"] for end in ends]))
    axis.errorbar(
        bins["predicted"],
        bins["observed"],
        yerr=lengths,
        fmt="o-",
        color=colour,
        linewidth=1,
        markersize=5,
        capsize=3,
        label=label,
    )
    axis.set_box_aspect(1)
    axis.grid(alpha=0.3)


def stretch_small_probabilities(axis: Axes, highest: float) -> None:
    """Give both axes the square root's scale, from 0 to a round number above `highest`.

    A probability of 1 % is a tenth of the axis away from 0, and not a hundredth.
    """
    end = min(step for step in _STEPS if step >= min(1.0, max(highest, 0.02)))
    ticks: list[float] = []
    for step in reversed([step for step in _STEPS if step <= end]):
        if not ticks or ticks[-1] ** 0.5 - step**0.5 >= _TICK_DISTANCE * end**0.5:
            ticks.append(step)
    labels = [f"{100 * tick:g}" for tick in ticks]
    scale = (lambda x: np.sign(x) * np.sqrt(np.abs(x)), lambda x: np.sign(x) * x**2)
    margin = 0.0009 * end
    axis.set_xscale("function", functions=scale)
    axis.set_yscale("function", functions=scale)
    axis.set(xlim=(-margin, end * 1.06), ylim=(-margin, end * 1.06))
    for part in (axis.xaxis, axis.yaxis):
        part.set_minor_locator(NullLocator())
        part.set_ticks(ticks, labels)


def list_bins(axis: Axes, bins: pd.DataFrame) -> None:
    """Write the numbers behind a reliability curve as a small table, a column a bin."""
    axis.axis("off")
    rows = {
        "predicted, %": [format_percent(value) for value in bins["predicted"]],
        "observed, %": [format_percent(value) for value in bins["observed"]],
        "images": [str(count) for count in bins["images"]],
    }
    table = axis.table(
        cellText=list(rows.values()),
        rowLabels=list(rows),
        cellLoc="center",
        bbox=Bbox.unit(),
        edges="horizontal",
    )
    table.auto_set_font_size(False)
    table.set_fontsize(SMALL_TEXT)


def draw_flag(
    axis: Axes, flag: Mapping[str, Any], texts: Mapping[str, str], names: Mapping[str, str]
) -> None:
    """Draw what the flag finds and costs, with intervals: the figures, each beside its number.

    Args:
        axis: to draw on.
        flag: `sensitivity`, `specificity`, `ppv`, `npv` with their intervals.
        texts: {the same: value with its interval, formatted}.
        names: `positive`, `negative`, and `title`.
    """
    positive, negative = names["positive"], names["negative"]
    meanings = {
        "sensitivity": f"sensitivity: {positive} that are flagged",
        "specificity": f"specificity: {negative} that are not flagged",
        "ppv": f"positive predictive value: flagged that are {positive}",
        "npv": f"negative predictive value: not flagged that are {negative}",
    }
    for place, (name, meaning) in enumerate(meanings.items()):
        if texts[name] != _NO_SHARE:
            low, high = (100 * flag[f"{name}_ci_{end}"] for end in ("low", "high"))
            axis.hlines(place, low, high, color="black", linewidth=2)
            axis.plot(100 * flag[name], place, **FLAG_STYLE)
        text = f"{wrap_label(meaning, _PANEL)}\n{texts[name]}"
        axis.text(0, place - 0.15, text, fontsize=SMALL_TEXT, va="bottom", ha="left")
    axis.set_yticks([])
    axis.set(title=names["title"], xlabel="% (95 % intervals)", xlim=(-2, 103), ylim=(3.3, -0.85))
    axis.grid(axis="x", alpha=0.3)
    wrap_texts(axis)


def put_legend_below(axis: Axes) -> None:
    """Break the texts of a panel into lines, and put its legend below, where it hides no line."""
    wrap_texts(axis)
    legend = axis.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, -0.15 - 0.05 * axis.get_xlabel().count("\n")),
        fontsize=SMALL_TEXT,
        frameon=False,
    )
    for text in legend.get_texts():
        text.set_text(wrap_label(text.get_text(), _PANEL + 0.4))


def wrap_texts(axis: Axes) -> None:
    """Break title and labels of a panel, one of two beside each other, where it ends."""
    axis.set_title(wrap_label(axis.get_title(), _PANEL, _TITLE_SIZE), fontsize=_TITLE_SIZE)
    for part in (axis.xaxis, axis.yaxis):
        part.set_label_text(wrap_label(part.get_label_text(), _PANEL, _TITLE_SIZE))
