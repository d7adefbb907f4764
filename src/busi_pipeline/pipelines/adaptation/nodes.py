"""Fit a delivered model to a new site by labelled images of it, and say what they buy."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from busi_pipeline.config.schemas import AdaptationSettings, EvaluationSettings, ModelSettings
from busi_pipeline.errors import BadInputError
from busi_pipeline.models.delivered import DeliveredModel, build_delivered_model
from busi_pipeline.plotting.style import PAGE_WIDTH, PALETTE, SMALL_TEXT, new_figure
from busi_pipeline.stats.adaptation import draw_images, fit_site, measure_adaptation
from busi_pipeline.stats.bootstrap import HIGH, LOW
from busi_pipeline.stats.calibration import (
    Calibration,
    invert_calibration,
    relate_calibrations,
)
from busi_pipeline.stats.classes import Classes
from busi_pipeline.stats.external import add_positive_score, score_site
from busi_pipeline.stats.scoring import (
    apply_operating_point,
    describe_target,
    format_share,
    probability_columns,
)

logger = logging.getLogger(__name__)

_SHOWN = {
    "sensitivity": "sensitivity of the flag",
    "specificity": "specificity of the flag",
    "observed_expected": "observed over expected (1 is right)",
}


class Adapted(NamedTuple):
    """What the fit to a site hands over.

    Attributes:
        model: a new version: the same network, another calibration and threshold. Its description
            names its `parent`, the site (`adapted_to`) and the number of images.
        predictions: of the patients that it was not fitted to, by it.
        metrics: {`adaptation`: `images`, `positives` (fitted to), `before` and `after` (see
            stats.external.score_site), both on those predictions}.
    """

    model: DeliveredModel
    predictions: pd.DataFrame
    metrics: dict[str, Any]


def trace_adaptation(
    predictions: pd.DataFrame,
    model: DeliveredModel,
    evaluation: EvaluationSettings,
    adaptation: AdaptationSettings,
    classes: Classes,
) -> pd.DataFrame:
    """Return what n labelled images of the site buy; see stats.adaptation.measure_adaptation.

    Args:
        predictions: of the external site by the model as delivered.
        model: whose calibration is taken back first.
        evaluation: target and rule of the threshold.
        adaptation: sizes, draws, seed.
        classes: of the model.

    Raises BadInputError where the site has too few images for the smallest size.
    """
    if 2 * min(adaptation.sizes) > len(predictions):
        raise BadInputError(
            f"the site has {len(predictions)} images, too few to fit to "
            f"{min(adaptation.sizes)} and test on as many: lower adaptation.sizes."
        )
    return measure_adaptation(
        _take_back(predictions, model, classes),
        classes,
        evaluation,
        adaptation.sizes,
        adaptation.n_draws,
        adaptation.seed,
    ).round(4)


def adapt_model(
    predictions: pd.DataFrame,
    manifest: pd.DataFrame,
    model: DeliveredModel,
    settings: ModelSettings,
    evaluation: EvaluationSettings,
    adaptation: AdaptationSettings,
    classes: Classes,
) -> Adapted:
    """Fit the model to `adaptation.images` labelled images, and test it on the other patients.

    Args:
        predictions: of the external site by the model as delivered.
        manifest: of the site, for the hashes of what the new version learned from.
        model: the parent.
        settings: title of the experiment.
        evaluation: target and rule of the threshold; the bootstrap.
        adaptation: number of images, seed.
        classes: of the model.

    Raises BadInputError where the site has too few images, or they hold one kind alone.
    """
    count = adaptation.images
    draw = draw_images(
        predictions["group"].tolist(), count, np.random.default_rng([adaptation.seed, count])
    )
    parts = [predictions["is_positive"].to_numpy(dtype=bool)[rows] for rows in draw]
    if any(truth.all() or not truth.any() for truth in parts):
        raise BadInputError(
            f"adaptation.images is {count}: the images to fit to, or the rest of the "
            f"{len(predictions)} images of the site, are not of both kinds. Take another number, "
            "or label more images."
        )
    table = _take_back(predictions, model, classes)
    point = fit_site(table, draw.fitted, classes, evaluation)
    # As the new version does it: from the probabilities of its parent.
    change = relate_calibrations(_calibration_of(model), point.calibration)
    tested = predictions.iloc[draw.tested].copy()
    tested[probability_columns(classes, uncalibrated=True)] = tested[probability_columns(classes)]
    tested = apply_operating_point(tested, replace(point, calibration=change), classes)
    tested = add_positive_score(tested, classes)
    resampling = evaluation.prevalence, evaluation.n_resamples, evaluation.seed
    metrics: dict[str, Any] = {
        "images": len(draw.fitted),
        "positives": int(parts[0].sum()),
        "expected_sensitivity": point.expected_sensitivity,
        "threshold": point.threshold,
        "before": score_site(predictions.iloc[draw.tested], *resampling),
        "after": score_site(tested, *resampling),
    }
    site = str(predictions["site"].iloc[0])
    for when in ("before", "after"):
        logger.info(
            "%s at %s, %s fitting to %d images: flag with sensitivity %s, specificity %s",
            settings.title,
            site,
            when,
            len(draw.fitted),
            format_share(metrics[when]["flag"], "sensitivity"),
            format_share(metrics[when]["flag"], "specificity"),
        )
    about: dict[str, Any] = {
        "title": f"{settings.title}, adapted to {site}",
        "image_size": model.description["image_size"],
        "adapted_to": site,
        "adaptation_images": len(draw.fitted),
        "parent": {
            name: model.description.get(name, "not known")
            for name in ("title", "mlflow_run_id", "model_sha256")
        },
        **{
            name: model.description[name]
            for name in ("sites", "data_sha256", "split_sha256", "training_sha256", "input")
            if name in model.description
        },
    }
    chosen = point.describe() | describe_target(evaluation, classes)
    fitted = predictions["image_id"].iloc[draw.fitted]
    pixels = manifest.loc[manifest["image_id"].isin(fitted), "pixel_sha256"]
    adapted = _recalibrate(model, point.calibration, chosen, classes, about, pixels)
    kept = ["image_id", "site", "patient", "group", "label", *probability_columns(classes)]
    kept += ["predicted", "is_positive", "positive_score", "flagged"]
    return Adapted(adapted, tested[kept], {"adaptation": metrics})


def _take_back(predictions: pd.DataFrame, model: DeliveredModel, classes: Classes) -> pd.DataFrame:
    """Return the table with the probabilities as they were before the model's own calibration."""
    table = predictions.copy()
    calibrated = table[probability_columns(classes)].to_numpy()
    table[probability_columns(classes, uncalibrated=True)] = invert_calibration(
        calibrated, _calibration_of(model)
    )
    return table


def _calibration_of(model: DeliveredModel) -> Calibration:
    return Calibration(model.description["temperature"], tuple(model.description["offsets"]))


def _recalibrate(
    parent: DeliveredModel,
    calibration: Calibration,
    chosen: Mapping[str, Any],
    classes: Classes,
    about: Mapping[str, Any],
    pixels: pd.Series,
) -> DeliveredModel:
    import keras

    probabilities = keras.Model(parent.model.input, parent.model.output["probabilities"])
    change = relate_calibrations(_calibration_of(parent), calibration)
    steps = dict(chosen) | {"temperature": change.temperature, "offsets": list(change.offsets)}
    adapted = build_delivered_model(
        probabilities,
        steps,
        classes,
        about,
        {*parent.training_pixels, *pixels},
        parent.localizer,
    )
    # The description has the whole calibration, from the network on.
    return adapted._replace(description=adapted.description | dict(chosen))


def plot_adaptation(
    adaptation_curve: pd.DataFrame,
    predictions: pd.DataFrame,
    settings: ModelSettings,
    evaluation: EvaluationSettings,
    classes: Classes,
) -> Figure:
    """Draw sensitivity, specificity and calibration against the number of labelled images."""
    site = predictions["site"].iloc[0]
    figure = new_figure(
        PAGE_WIDTH,
        4.8,
        f"{settings.title} fitted to labelled images of {site}: mean over draws, and the range of "
        "95 % of them; 0 images is the model as delivered",
    )
    fitted = adaptation_curve[adaptation_curve["images"] > 0]
    delivered = adaptation_curve[adaptation_curve["images"] == 0].iloc[0]
    for axis, (name, title) in zip(figure.subplots(1, len(_SHOWN)), _SHOWN.items(), strict=True):
        places = np.arange(1, len(fitted) + 1)
        axis.plot(0, delivered[name], "s", color=PALETTE[1], label="as delivered")
        axis.errorbar(
            places,
            fitted[name],
            yerr=[fitted[name] - fitted[name + LOW], fitted[name + HIGH] - fitted[name]],
            fmt="o-",
            color=PALETTE[0],
            capsize=4,
            label="fitted",
        )
        if name == "sensitivity":
            axis.plot(
                places, fitted["promised"], ":", color=PALETTE[2], label="promised on average"
            )
            axis.axhline(
                evaluation.target_sensitivity, color="grey", linestyle="--", label="target"
            )
        ticks = ["0", *(f"{row.images}\n({row.positives:.0f})" for row in fitted.itertuples())]
        axis.set_xticks(range(len(ticks)), ticks, fontsize=SMALL_TEXT)
        axis.set_title(title, fontsize=10)
        axis.set(xlabel=f"labelled images (of which {classes.positive_name})")
        if name != "observed_expected":
            axis.set_ylim(-0.02, 1.02)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=SMALL_TEXT)
    return figure
