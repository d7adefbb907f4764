"""Each site is tested once by a model that learned from all others; its own ceiling beside it."""

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from busi_pipeline.config.experiments import gather_experiments
from busi_pipeline.config.schemas import EvaluationSettings, IngestionSettings, ModelSettings
from busi_pipeline.errors import BadInputError
from busi_pipeline.plotting.style import (
    PAGE_WIDTH,
    PALETTE,
    SMALL_TEXT,
    new_figure,
    wrap_label,
)
from busi_pipeline.stats.bootstrap import HIGH, LOW
from busi_pipeline.stats.classes import Classes
from busi_pipeline.stats.external import add_positive_score, score_site
from busi_pipeline.stats.scoring import format_number, select_test

logger = logging.getLogger(__name__)

OTHER_SITES, OWN_SITE = "other sites", "own site"
_MEASURED = {
    "auc": (),
    "specificity_at_90_sensitivity": (),
    "sensitivity": ("flag",),
    "specificity": ("flag",),
}


def refuse_single_site(ingestion: IngestionSettings) -> None:
    """Raise BadInputError: there is no site to leave out."""
    raise BadInputError(
        f"leave_one_site_out needs two sites or more, but ingestion.sites has "
        f"{', '.join(ingestion.sites)}: add sites to `sites` and name them in ingestion.sites."
    )


def score_sites(
    fold_manifest: pd.DataFrame,
    settings: ModelSettings,
    evaluation: EvaluationSettings,
    classes: Classes,
    **predictions: pd.DataFrame,
) -> pd.DataFrame:
    """Score the test images of each site by what their models learned from.

    Args:
        fold_manifest: the site of each image.
        settings: title of the experiment.
        evaluation: prevalence, bootstrap.
        classes: in the order of the probabilities.
        predictions: calibrated, `<model>__left_out` (by models that learned from the other sites)
            and `<model>__own_site` (out of fold, by models that learned from the site itself), of
            the models `fine_tuned` and `linear_probe`.

    Returns one row a model, site and source: `title`, `model`, `site`, `learned_from`, `images`,
    `positives`, and auc, specificity_at_90_sensitivity, sensitivity and specificity (of the flag),
    each with its interval over patients and duplicates.
    """
    site_of = fold_manifest.set_index("image_id")["site"]
    rows = []
    for model, tables in gather_experiments(predictions).items():
        for source, learned_from in (("left_out", OTHER_SITES), ("own_site", OWN_SITE)):
            test = select_test(tables[source])
            for site, part in test.groupby(test["image_id"].map(site_of), sort=True):
                scores = _score(part, classes, evaluation)
                rows.append(
                    {
                        "title": settings.title,
                        "model": model.replace("_", "-"),
                        "site": site,
                        "learned_from": learned_from,
                        "images": len(part),
                        "positives": scores["flag"]["positives"],
                        **_select(scores),
                    }
                )
                logger.info(
                    "%s, %s, at %s, learned from %s: AUC of %s %s",
                    settings.title,
                    model.replace("_", "-"),
                    site,
                    learned_from,
                    classes.positive_name,
                    format_number(scores, "auc"),
                )
    return pd.DataFrame(rows).round(4)


def _score(part: pd.DataFrame, classes: Classes, evaluation: EvaluationSettings) -> dict[str, Any]:
    table = add_positive_score(part, classes)
    return score_site(table, evaluation.prevalence, evaluation.n_resamples, evaluation.seed)


def _select(scores: Mapping[str, Any]) -> dict[str, float]:
    selected: dict[str, float] = {}
    for name, path in _MEASURED.items():
        part = scores[path[0]] if path else scores
        selected |= {name + end: part[name + end] for end in ("", LOW, HIGH)}
    return selected


def plot_sites(sites: pd.DataFrame, classes: Classes) -> Figure:
    """Draw the AUC at each site, learned from the others and from the site itself."""
    names = sorted(sites["site"].unique())
    rows = list(dict.fromkeys(zip(sites["title"], sites["model"], strict=True)))
    figure = new_figure(
        min(PAGE_WIDTH, 5 + 4 * len(names)),
        2.2 + 0.55 * len(rows),
        f"AUC of {classes.positive_name} at a site, learned from the other sites and, as a "
        "ceiling, from the site itself (cross-validated); 95 % intervals",
    )
    axes = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    width = (figure.get_figwidth() - 2.5) / len(names)
    lowest = min(0.4, float(sites["auc" + LOW].min()) - 0.02)
    for axis, site in zip(axes, names, strict=True):
        for learned_from, colour, shift in (
            (OWN_SITE, PALETTE[0], 0.14),
            (OTHER_SITES, PALETTE[1], -0.14),
        ):
            part = sites[(sites["site"] == site) & (sites["learned_from"] == learned_from)]
            places = [
                len(rows) - 1 - rows.index(row) + shift
                for row in zip(part["title"], part["model"], strict=True)
            ]
            ends = [part["auc"] - part["auc" + LOW], part["auc" + HIGH] - part["auc"]]
            axis.errorbar(
                part["auc"],
                places,
                xerr=np.maximum(np.array(ends, dtype=float), 0),
                fmt="o",
                color=colour,
                capsize=3,
                label="learned from "
                + ("the site itself" if learned_from == OWN_SITE else learned_from),
            )
        counts = sites[sites["site"] == site].iloc[0]
        axis.axvline(0.5, color="grey", linestyle=":")
        axis.set(
            title=wrap_label(
                f"{site}: {counts['images']} images, {counts['positives']} {classes.positive_name}",
                width,
                10,
            ),
            xlabel="AUC (0.5: chance)",
            xlim=(lowest, 1.01),
            ylim=(-0.6, len(rows) - 0.4),
        )
        axis.title.set_fontsize(10)
        axis.set_yticks(
            range(len(rows)),
            [wrap_label(f"{title}, {model}", 1.9) for title, model in reversed(rows)],
            fontsize=SMALL_TEXT,
        )
        axis.grid(alpha=0.3)
    # Below: within the axes it would hide an interval.
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure
