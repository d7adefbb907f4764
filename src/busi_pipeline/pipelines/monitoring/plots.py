"""The evidence of drift, image by image."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from busi_pipeline.config.schemas import MonitoringSettings
from busi_pipeline.plotting.style import PALETTE, new_figure

from .nodes import ALL, QUANTITIES

_HIGHEST, _LOWEST = 1e9, 1e-3


def plot_evidence(evidence: pd.DataFrame, monitoring: MonitoringSettings) -> Figure:
    """Draw the evidence of each quantity over the images, and of all together, with its limit."""
    figure = new_figure(9, 5.4, "Do new images differ from those that the model was tested on?")
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
    axis.axhline(1 / monitoring.alpha, color="#B00020", linestyle=":", linewidth=1.6)
    axis.annotate(
        f"alarm from {1 / monitoring.alpha:g} on: chance below {monitoring.alpha:g} where nothing "
        "differs",
        (images[-1], 1 / monitoring.alpha),
        ha="right",
        va="bottom",
        color="#B00020",
        fontsize=9,
    )
    axis.set_yscale("log")
    axis.set_ylim(_LOWEST, _HIGHEST * 3)
    axis.set_xlabel("images")
    axis.set_ylabel("evidence of a difference (1: none)")
    axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    return figure
