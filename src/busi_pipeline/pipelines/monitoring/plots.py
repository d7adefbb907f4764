"""The evidence of drift, image by image."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from busi_pipeline.config.schemas import MonitoringSettings
from busi_pipeline.plotting.style import PALETTE, SMALL_TEXT, new_figure

from .nodes import ALL, QUANTITIES

_HIGHEST, _LOWEST = 1e9, 1e-3


def plot_evidence(evidence: pd.DataFrame, monitoring: MonitoringSettings) -> Figure:
    """Draw the evidence of each quantity over the images, and of all together, with its limit."""
    figure = new_figure(
        9,
        5.4,
        "Do new images differ from those that the model was tested on? Above the limit yes, with a "
        f"chance below {monitoring.alpha:g} of an alarm where nothing differs",
    )
    axis = figure.subplots()
    images = np.arange(1, len(evidence) + 1)
    watched = [name for name in QUANTITIES if name in evidence]
    for number, name in enumerate(watched):
        values = evidence[name].clip(_LOWEST, _HIGHEST)
        axis.plot(
            images,
            values,
            color=PALETTE[number % (len(PALETTE) - 1)],
            linestyle="-" if number < len(PALETTE) - 1 else "--",
            linewidth=1.2,
            label=QUANTITIES[name],
        )
    axis.plot(
        images, evidence[ALL].clip(_LOWEST, _HIGHEST), "k", linewidth=2.4, label="all together"
    )
    # One of many quantities alone has to have more.
    limits = {"all together": 1 / monitoring.alpha, "one alone": len(watched) / monitoring.alpha}
    for (name, limit), style in zip(limits.items(), ("-", ":"), strict=True):
        axis.axhline(limit, color="#B00020", linestyle=style, linewidth=1.4, label=f"alarm, {name}")
    axis.set_yscale("log")
    axis.set_ylim(_LOWEST, _HIGHEST * 3)
    axis.set_xlabel("images")
    axis.set_ylabel("evidence of a difference (1: none)")
    axis.legend(fontsize=SMALL_TEXT, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    return figure
