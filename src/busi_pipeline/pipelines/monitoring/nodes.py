"""Evidence of drift, and a verdict on the sensitivity, that hold whenever one looks."""

import logging
import math
from collections.abc import Mapping
from typing import Any, Final

import pandas as pd

from busi_pipeline.config.schemas import MonitoringSettings, PredictionSettings
from busi_pipeline.config.sites import make_name
from busi_pipeline.datasets.journal import Journal
from busi_pipeline.errors import BadInputError
from busi_pipeline.models.package_parts import read_tested
from busi_pipeline.models.packaged import READER, PackagedModel
from busi_pipeline.stats.anytime import (
    bet_on_miscalibration,
    bet_on_ranks,
    bound_share,
    rank_values,
)

logger = logging.getLogger(__name__)

_NOVEL, _NEW_DEVICE = "out_of_distribution", "new_device"
QUANTITIES: Final = {
    "distance": "distance from the images learned from",
    _NOVEL: "share that does not look like the images learned from",
    "positive_score": "score",
    "flagged": "share that is flagged",
    _NEW_DEVICE: "share from devices that it neither learned from nor was tested on",
    "brightness": "brightness",
    "contrast": "contrast",
    "detail": "detail",
    "colour": "colour",
    "shorter_side": "size: shorter side in pixels",
}
"""What is watched, in words."""
ALL = "all"
"""Evidence of all quantities together."""
YES, NO, CANNOT_TELL = "yes", "no", "cannot tell"
_KEPT = ["batch", "image", *QUANTITIES]
# What the model says, and what the picture is.
_SAID = ("distance", _NOVEL, "positive_score", "flagged")
_LABELS = ["batch", "image", "label"]


def observe(
    findings: pd.DataFrame,
    model: PackagedModel,
    journal: Journal,
    prediction: PredictionSettings,
    monitoring: MonitoringSettings,
) -> pd.DataFrame:
    """Add the findings to what was observed of this model; return all of it, in the order it came.

    Args:
        findings: of `pipelines.prediction`, of one batch.
        model: that answered.
        journal: of the observations so far. An image that is in it, of this model, is not counted
            again, whatever its name.
        prediction: `folder` gives the batch its name.
        monitoring: `seed`. New images are added in a random order, since files are sorted by names
            that have nothing to do with time. What was added before keeps its place.

    Left out are copies of images that were sent before, and answers at boxes of readers: no image
    of the test had one.

    Returns `batch`, `image` and QUANTITIES, one row an image.

    Raises BadInputError where the findings are of another model.
    """
    usable = findings[findings["problem"] == ""]
    others = sorted(set(usable["model_version"]) - {model.version})
    if others:
        raise BadInputError(
            f"the findings are of the model {others[0]}, and {model.name} {model.version} is "
            "watched: run `kedro run --pipeline=predict` with the same prediction.folder and "
            "prediction.model first."
        )
    alone = usable[(usable["same_as"] == "") & (usable["box_source"] != READER)]
    batch, new = make_name(prediction.folder or ""), 0
    for finding in alone.sample(frac=1, random_state=monitoring.seed).to_dict("records"):
        key = f"{model.version} {finding['byte_sha256']}"
        if key in journal:
            continue
        record = {"batch": batch, "image": finding["image"]}
        record |= {name: float(value) for name, value in _measure(finding, model).items()}
        journal.add(key, record)
        new += 1
    rows = [record for key, record in journal.items() if key.startswith(f"{model.version} ")]
    logger.info(
        "%d new images, %d observed of %s in all; left out: %d copies, or with a reader's box",
        *(new, len(rows), model.version, len(usable) - len(alone)),
    )
    if not rows:
        raise BadInputError("no image that the model answered on: nothing to watch.")
    return pd.DataFrame(rows)[_KEPT]


def _measure(finding: Mapping[Any, Any], model: PackagedModel) -> dict[str, Any]:
    """Return QUANTITIES of a finding."""
    known = model.description.get("devices", [])
    counted = {
        _NOVEL: _NOVEL in str(finding["reasons"]).split(";"),
        # Where either side does not know devices, nothing can be new.
        _NEW_DEVICE: bool(known and finding["device"]) and finding["device"] not in known,
    }
    return {name: counted[name] if name in counted else finding[name] for name in QUANTITIES}


def measure_evidence(
    observations: pd.DataFrame, model: PackagedModel, monitoring: MonitoringSettings
) -> pd.DataFrame:
    """Return the evidence after each image, that it is not like those of the test.

    A column for each of `list_quantities`, each a test martingale, see stats.anytime; and ALL, the
    highest of them by their number: where nothing differs, the chance that it ever reaches
    1 / alpha is at most alpha, however the quantities go together (Bonferroni).
    """
    tested = list_reference(model)
    evidence = pd.DataFrame(
        {
            name: bet_on_ranks(
                rank_values(
                    tested[name].tolist(), observations[name].tolist(), monitoring.seed + number
                )
            )
            for number, name in enumerate(tested)
        }
    )
    evidence[ALL] = evidence.max(axis=1) / len(tested.columns)
    return pd.DataFrame({"batch": observations["batch"].to_numpy()}).join(evidence)


def list_quantities(model: PackagedModel) -> list[str]:
    """Return which QUANTITIES can be compared.

    A model that joins folds was tested by parts of itself: what it says of new images is compared
    with nothing of the same kind. Then the pictures alone are.
    """
    return [n for n in QUANTITIES if n not in _SAID or not model.description.get("of_folds")]


def list_reference(model: PackagedModel) -> pd.DataFrame:
    """Return the quantities of images that a model was tested on: one of each group."""
    tested = read_tested(model).drop_duplicates("group")
    novel = tested["distance"] > model.limits.distance
    values = tested.assign(out_of_distribution=novel, new_device=0)
    return values[list_quantities(model)].astype(float)


def summarise_drift(
    evidence: pd.DataFrame,
    observations: pd.DataFrame,
    model: PackagedModel,
    monitoring: MonitoringSettings,
) -> pd.DataFrame:
    """Return a row a quantity, and one for ALL.

    `quantity`; `tested` and `observed`, the mean of shares and the median of others; `evidence`,
    the highest so far; `limit`, from where on it is an alarm; `alarm`; `since`, the number of
    images after which it was one, 0 for none. Limits of single quantities allow for their number.
    """
    tested = list_reference(model)
    rows = []
    for name in (ALL, *tested):
        limit = (1 if name == ALL else len(tested.columns)) / monitoring.alpha
        over = evidence[name].to_numpy() >= limit
        row: dict[str, Any] = {
            "quantity": name,
            "tested": math.nan,
            "observed": math.nan,
            "evidence": float(evidence[name].max()),
            "limit": limit,
            "alarm": bool(over.any()),
            "since": int(over.argmax()) + 1 if over.any() else 0,
        }
        if name != ALL:
            row["tested"], row["observed"] = (
                _summarise(table[name]) for table in (tested, observations)
            )
        rows.append(row)
    drift = pd.DataFrame(rows)
    for _, alarm in drift[drift["alarm"]].iterrows():
        words = QUANTITIES.get(alarm["quantity"], "all together")
        logger.warning("drift after %d images: %s", alarm["since"], words)
    return drift


def _summarise(values: pd.Series) -> float:
    values = values.astype(float)
    return float(values.mean() if values.isin([0.0, 1.0]).all() else values.median())


def judge_sensitivity(
    observations: pd.DataFrame,
    labels: pd.DataFrame | None,
    drift: pd.DataFrame,
    model: PackagedModel,
    monitoring: MonitoringSettings,
) -> dict[str, Any]:
    """Say whether the sensitivity that the model was made for is still supported.

    Args:
        observations: of `observe`.
        labels: `image`, `label` and, where several batches have images of one name, `batch`; None
            where none came yet.
        drift: of `summarise_drift`.
        model: knows its classes and its target.
        monitoring: `tolerance`, `min_images`, `alpha`.

    Returns `supported` (yes, no or cannot tell), `because` (a sentence), `images`, `drift`, and
    where labels came `labelled`, `positives`, `found`, `sensitivity` with `_low` and `_high` (an
    interval that holds whenever one looks), `calibration_evidence`, `calibration_alarm`.

    Raises BadInputError where labels have other classes, or name an image twice or none at all.
    """
    is_drift = bool(drift.set_index("quantity").loc[ALL, "alarm"])
    verdict: dict[str, Any] = {"images": len(observations), "drift": is_drift}
    low, high, target = 0.0, 1.0, float(model.description["target_sensitivity"])
    if labels is not None:
        scored = _score_labels(observations, labels, model, monitoring)
        verdict |= scored
        low, high = scored["sensitivity_low"], scored["sensitivity_high"]
    enough = len(observations) >= monitoring.min_images
    if high < target:
        said = NO, f"with labels, at most {high:.3f} of positive images are flagged"
    elif low >= target - monitoring.tolerance:
        said = YES, f"with labels, at least {low:.3f} of positive images are flagged"
    elif is_drift:
        said = CANNOT_TELL, "images differ from those that it was tested on; labels would tell"
    elif not enough:
        said = CANNOT_TELL, f"{len(observations)} images are too few to see a difference"
    elif verdict.get("calibration_alarm"):
        said = CANNOT_TELL, "the probabilities are not those that came true"
    elif verdict.get("positives"):
        said = CANNOT_TELL, f"labels are too few: between {low:.3f} and {high:.3f} are flagged"
    else:
        said = YES, "nothing differs from the images that it was tested on"
    logger.info("sensitivity still supported: %s, since %s", *said)
    return {"supported": said[0], "because": said[1]} | verdict


def _score_labels(
    observations: pd.DataFrame,
    labels: pd.DataFrame,
    model: PackagedModel,
    monitoring: MonitoringSettings,
) -> dict[str, Any]:
    missing = [name for name in ("image", "label") if name not in labels]
    if missing:
        raise BadInputError(f"monitoring.labels has no column {missing[0]}: it needs image, label.")
    known = set(model.description["classes"])
    unknown = sorted(set(labels["label"]) - known)
    if unknown:
        raise BadInputError(
            f"monitoring.labels has the label {unknown[0]!r}; allowed: {', '.join(sorted(known))}."
        )
    keys = ["batch", "image"] if "batch" in labels else ["image"]
    if "batch" in labels:
        labels = labels.assign(batch=labels["batch"].map(make_name))
    twice = labels[labels.duplicated(keys)]
    if len(twice):
        raise BadInputError(
            f"monitoring.labels has {twice['image'].iloc[0]!r} more than once; where batches have "
            "images of one name, a column batch keeps them apart."
        )
    labelled = observations.merge(labels[[*keys, "label"]], on=keys)
    if labelled.empty:
        raise BadInputError(
            f"monitoring.labels names no image that was observed, such as "
            f"{observations['image'].iloc[0]!r}."
        )
    twice = labelled[labelled.duplicated(keys)]
    if len(twice):
        raise BadInputError(
            f"monitoring.labels names {twice['image'].iloc[0]!r}, which several folders have: a "
            "column batch, the name of the folder, keeps them apart."
        )
    if others := len(labels) - len(labelled):
        logger.warning("%d labels are of images that were not observed", others)
    positive = labelled["label"].isin(model.description["positive_classes"]).to_numpy()
    flagged = labelled["flagged"].to_numpy() > 0
    found = int((positive & flagged).sum())
    low, high = bound_share(found, int(positive.sum()), monitoring.alpha)
    evidence = bet_on_miscalibration(positive, labelled["positive_score"].to_numpy())
    return {
        "labelled": len(labelled),
        "positives": int(positive.sum()),
        "found": found,
        "sensitivity": found / positive.sum() if positive.any() else math.nan,
        "sensitivity_low": low,
        "sensitivity_high": high,
        "calibration_evidence": float(evidence.max()),
        "calibration_alarm": bool(evidence.max() >= 1 / monitoring.alpha),
    }


def describe(
    drift: pd.DataFrame,
    verdict: Mapping[str, Any],
    model: PackagedModel,
    monitoring: MonitoringSettings,
) -> str:
    """Return the verdict and what it rests on, as Markdown."""
    lines = [
        f"# {model.description['title']}, {model.name} {model.version}",
        "",
        f"**Is the sensitivity of {model.description['target_sensitivity']:g} still supported? "
        f"{str(verdict['supported']).capitalize()}:** {verdict['because']}.",
        "",
        f"{verdict['images']} images were observed.",
    ]
    if "positives" in verdict:
        lines += [
            f"{verdict['labelled']} have labels: {verdict['found']} of {verdict['positives']} "
            f"positive ones are flagged, {100 * verdict['sensitivity']:.1f} % "
            f"({100 * verdict['sensitivity_low']:.1f} to {100 * verdict['sensitivity_high']:.1f}, "
            "at every number of images at once).",
            "The probabilities "
            + (
                "are **not** those that came true."
                if verdict["calibration_alarm"]
                else "do not contradict what came true."
            ),
        ]
    lines += [
        "",
        "| | tested | observed | evidence | alarm from | alarm |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in drift.to_dict("records"):
        values = [
            "" if math.isnan(row[name]) else f"{row[name]:.4g}" for name in ("tested", "observed")
        ]
        alarm = f"yes, after {row['since']} images" if row["alarm"] else "no"
        name = QUANTITIES.get(row["quantity"], "all together")
        lines.append(
            f"| {name} | {values[0]} | {values[1]} | {row['evidence']:.3g} | "
            f"{row['limit']:.0f} | {alarm} |"
        )
    lines += [
        "",
        f"Where nothing differs, the chance of an alarm, ever, is at most {monitoring.alpha:g}.",
        "",
    ]
    return "\n".join(lines)
