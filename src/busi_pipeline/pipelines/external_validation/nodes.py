"""Test delivered models, unchanged, on a site that they have not seen."""

import logging
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from busi_pipeline.caching.arrays import StoredArray
from busi_pipeline.caching.cache import Cache
from busi_pipeline.config.schemas import (
    DeduplicationSettings,
    EvaluationSettings,
    ExternalSettings,
    LocalizationSettings,
    ModelSettings,
)
from busi_pipeline.errors import BadInputError
from busi_pipeline.imaging.duplicate_search import PAIR_COLUMNS, find_duplicate_pairs
from busi_pipeline.learning.predicting import read_inputs
from busi_pipeline.models.delivered import LEARNED_FROM, DeliveredModel
from busi_pipeline.stats.bootstrap import LOW
from busi_pipeline.stats.classes import Classes
from busi_pipeline.stats.external import (
    add_positive_score,
    gather_patients,
    score_reader,
    score_site,
    score_subgroups,
)
from busi_pipeline.stats.operating_point import allow_single_precision
from busi_pipeline.stats.scoring import (
    format_number,
    format_share,
    probability_columns,
    select_test,
)

from .characteristics import list_failures, list_variables, read_birads

logger = logging.getLogger(__name__)

RawImages = Mapping[str, Callable[[], bytes]]
_KNOWN, _EXTERNAL = "learned from/", "external/"
_KNOWN_PIXELS = "known_pixel_sha256"
# Columns of what a model says where the image is known to show a lesion.
_GIVEN_LESION, _FLAGGED_GIVEN_LESION = "score_given_lesion", "flagged_given_lesion"
_OF_MODEL = (
    "title",
    "sites",
    "threshold",
    "data_sha256",
    "split_sha256",
    "training_sha256",
    "parent",
)
_READER_POSITIVE = 4  # BI-RADS category from which a biopsy is advised


class SitePairs(NamedTuple):
    """What the search over both sites hands over.

    Attributes:
        duplicate_pairs: within the external site, as deduplication has them.
        overlap: between it and the images that models learn from, the same columns: `image_a` is
            the external image; and `known_pixel_sha256` of the other one.
        tags: `overlap_searched`: `yes`; `no` or `partly` where the images that models learned from
            are not at hand.
    """

    duplicate_pairs: pd.DataFrame
    overlap: pd.DataFrame
    tags: dict[str, str]


def find_site_duplicates(
    raw_images: RawImages,
    manifest: pd.DataFrame,
    known_images: RawImages | None,
    known_manifest: pd.DataFrame | None,
    deduplication: DeduplicationSettings,
    cache: Cache,
) -> SitePairs:
    """Search the external images and those that models learn from together.

    Args:
        raw_images, manifest: of the external site.
        known_images, known_manifest: of the sites that models learn from; None where a model is
            used without them.
        deduplication: settings of the search.
        cache: of its result.
    """
    parts = [(_EXTERNAL, raw_images, manifest)]
    searched = "no"
    if known_images and known_manifest is not None:
        at_hand = known_manifest["path"].isin(known_images)
        parts.insert(0, (_KNOWN, known_images, known_manifest[at_hand]))
        searched = "yes" if at_hand.all() else "partly"
    if searched != "yes":
        logger.warning(
            "%s images that models learned from are not at hand: copies of them among the "
            "external images cannot be looked for",
            "the" if searched == "no" else "some",
        )
    files = {start + path: read for start, images, _ in parts for path, read in images.items()}
    together = pd.concat(
        [
            table.assign(image_id=start + table["image_id"], path=start + table["path"])
            for start, _, table in parts
        ],
        ignore_index=True,
    )
    pairs = find_duplicate_pairs(files, together, deduplication, cache)
    is_external = {end: pairs[f"image_{end}"].str.startswith(_EXTERNAL) for end in "ab"}
    within = pairs[is_external["a"] & is_external["b"]].copy()
    between = _put_external_first(pairs[is_external["a"] != is_external["b"]])
    for table in (within, between):
        for end in "ab":
            table[f"image_{end}"] = [name.partition("/")[2] for name in table[f"image_{end}"]]
    between[_KNOWN_PIXELS] = ""
    if known_manifest is not None:
        pixels = known_manifest.set_index("image_id")["pixel_sha256"]
        between[_KNOWN_PIXELS] = between["image_b"].map(pixels)
    return SitePairs(within, between, {"overlap_searched": searched})


def _put_external_first(pairs: pd.DataFrame) -> pd.DataFrame:
    turned = pairs.rename(
        columns={
            "image_a": "image_b",
            "image_b": "image_a",
            "label_a": "label_b",
            "label_b": "label_a",
        }
    )
    is_turned = pairs["image_b"].str.startswith(_EXTERNAL)
    return pd.concat([pairs[~is_turned], turned[is_turned]])[PAIR_COLUMNS]


def check_overlap(
    overlap: pd.DataFrame, known_split_manifest: pd.DataFrame | None
) -> dict[str, int]:
    """Count external images that models learned from; refuse copies of them.

    Args:
        overlap: pairs of an external image (`image_a`) and one of the sites that models learn from.
        known_split_manifest: says which of these were learned from; None counts all of them.

    Returns `same_frame` (0) and `neighbouring_frame`, the numbers of pairs.

    Raises BadInputError where an external image shows the same frame as one that models learned
    from (training or validation images).
    """
    learned = overlap
    if known_split_manifest is not None:
        of_image = known_split_manifest.set_index("image_id")["split"]
        learned = overlap[overlap["image_b"].map(of_image).isin(LEARNED_FROM)]
    same = learned["same_frame"].astype(bool)
    if same.any():
        first = learned[same].iloc[0]
        raise BadInputError(
            "the external site has images that models learned from, or copies of them: "
            f"{learned.loc[same, 'image_a'].nunique()} in all ({first['image_a']} and "
            f"{first['image_b']}, for one). Such a site is not external. overlap.csv of the site "
            "lists them: take them out of the folder, or test on another site."
        )
    count = int((~same).sum())
    if count:
        logger.warning(
            "%d external images are a little like images that models learned from (overlap.csv): "
            "look at them",
            count,
        )
    return {"same_frame": 0, "neighbouring_frame": count}


def describe_model(model: DeliveredModel) -> tuple[dict[str, Any], dict[str, str]]:
    """Return which model is tested: a record for the metrics file, and tags for the MLflow run."""
    about = model.description
    record = {name: about[name] for name in _OF_MODEL if name in about}
    tags = {
        "model_run_id": about.get("mlflow_run_id", "not known"),
        "model_sha256": about["model_sha256"],
    }
    return record | tags, tags


def predict_site(
    images: StoredArray,
    manifest: pd.DataFrame,
    image_groups: pd.DataFrame,
    overlap: pd.DataFrame,
    overlap_summary: Mapping[str, int],
    model: DeliveredModel,
    settings: ModelSettings,
    classes: Classes,
) -> pd.DataFrame:
    """Predict every image of the site by the delivered model, calibration and flag included.

    Args:
        images: uint8 (n, size, size, 3) of the manifest.
        manifest: of the external site.
        image_groups: `group` by `image_id`: patients and duplicates together.
        overlap: see SitePairs.
        overlap_summary: of `check_overlap`, which has to come first.
        model: as delivered.
        settings: title and batch size.
        classes: of the session.

    Returns `image_id`, `site`, `patient`, `group`, `label`, the calibrated `p_<class>`,
    `predicted` (likeliest class), `is_positive`, `positive_score`, `flagged`; of a model that knows
    lesion-free classes, `score_given_lesion` and `flagged_given_lesion`: what it says where the
    image is known to show a lesion.

    Raises BadInputError where the model has other classes or sees something else than the session
    has, or learned from one of the images or from a copy of one.
    """
    from busi_pipeline.learning.device import choose_batch_size

    _check_classes(model, classes, settings.title)
    _check_input(model, settings)
    _check_pixels(model, manifest, overlap, settings.title)
    batch_size = choose_batch_size(settings.extraction_batch_size, model.model)
    batches = read_inputs(images, manifest["image_id"].tolist(), batch_size, settings.title)
    answers = [model.model.predict_on_batch(batch) for batch in batches]
    probabilities = np.concatenate([answer["probabilities"] for answer in answers]).astype(float)
    group_of = image_groups.set_index("image_id")["group"]
    table = manifest[["image_id", "site", "patient", "label"]].copy()
    table.insert(3, "group", table["image_id"].map(group_of))
    table[probability_columns(classes)] = probabilities
    table["predicted"] = np.array(classes.names)[probabilities.argmax(axis=1)]
    table["is_positive"] = classes.is_positive(table["label"])
    table["positive_score"] = np.concatenate([a["positive_score"] for a in answers]).astype(float)
    table["flagged"] = np.concatenate([a["flagged"] for a in answers]).astype(bool)
    threshold = model.description.get("threshold_given_lesion")
    if threshold is not None:
        table[_GIVEN_LESION] = classes.positive_score(classes.given_lesion(probabilities))
        table[_FLAGGED_GIVEN_LESION] = table[_GIVEN_LESION] >= allow_single_precision(threshold)
    return table


def take_lesion_for_granted(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return the predictions with score and flag of images that are known to show a lesion."""
    if _GIVEN_LESION not in predictions:
        return predictions
    return predictions.assign(
        positive_score=predictions[_GIVEN_LESION], flagged=predictions[_FLAGGED_GIVEN_LESION]
    )


def _check_classes(model: DeliveredModel, classes: Classes, title: str) -> None:
    for name, value in (("classes", classes.names), ("positive_classes", classes.positive)):
        if list(value) != list(model.description[name]):
            raise BadInputError(
                f"{title} was trained with {name} {list(model.description[name])}, but this run "
                f"has {list(value)}: set `{name}` to those of the model, or train it again."
            )


def _check_input(model: DeliveredModel, settings: ModelSettings) -> None:
    now = {"image_size": settings.image_size, "input": settings.input.model_dump(mode="json")}
    for name, value in now.items():
        made = model.description.get(name, value)
        if made != value:
            raise BadInputError(
                f"{settings.title} was trained with {name} {made}, but this run has {value}: set "
                "it to that of the model, or train the model again."
            )


def _check_pixels(
    model: DeliveredModel, manifest: pd.DataFrame, overlap: pd.DataFrame, title: str
) -> None:
    """Refuse images that this very model learned from; of a bag, these are those of all folds."""
    copies = overlap["same_frame"].astype(bool) & overlap[_KNOWN_PIXELS].isin(model.training_pixels)
    is_copy = manifest["image_id"].isin(overlap.loc[copies, "image_a"])
    known = manifest["pixel_sha256"].isin(model.training_pixels) | is_copy
    if known.any():
        raise BadInputError(
            f"{title} learned from {known.sum()} of these images, or from copies of them "
            f"({manifest.loc[known, 'image_id'].iloc[0]!r}, for one): such a site is not external. "
            "Take them out of the folder, or test on another site."
        )


class SiteScores(NamedTuple):
    """What scoring hands over.

    Attributes:
        metrics: {`external`: `site`, `images` (scores, see stats.external.score_site), `patients`
            (the same, by the worst image of each; left out where no patient is known), `inside`
            (the same on images of its own site that it did not learn from, of the same
            classes), `given_lesion` (the same
            as `images`, each known to show a lesion; where all of them do), `reader_box` (the
            same with the boxes of readers), `reader` (where BI-RADS is known), `likeliest` ({class:
            share of images}), `verdict`}.
        subgroups: see stats.external.score_subgroups.
        failures: see characteristics.list_failures.
    """

    metrics: dict[str, Any]
    subgroups: pd.DataFrame
    failures: pd.DataFrame


def score_external(
    predictions: pd.DataFrame,
    manifest: pd.DataFrame,
    properties: pd.DataFrame,
    inside_predictions: pd.DataFrame | None,
    model_record: Mapping[str, Any],
    settings: ModelSettings,
    evaluation: EvaluationSettings,
    external: ExternalSettings,
    classes: Classes,
    reader_box_predictions: pd.DataFrame | None = None,
    lesion_boxes: pd.DataFrame | None = None,
    localization: LocalizationSettings | None = None,
) -> SiteScores:
    """Score the site: images, patients, reader, subgroups, failures; beside the model's own test.

    `reader_box_predictions` are those of a model that was shown the boxes of readers instead of
    those that it finds, `lesion_boxes` are the latter, and below the confidence of `localization`
    no lesion was found; None of one that sees the whole image.

    Raises BadInputError where the site has no positive, or no other, image.
    """
    counts = predictions["is_positive"].sum(), (~predictions["is_positive"]).sum()
    if not all(counts):
        raise BadInputError(
            f"the external site has {counts[0]} {classes.positive_name} and {counts[1]} other "
            "images: both are needed. See ingestion.class_names if its labels have other names."
        )
    resampling = evaluation.n_resamples, evaluation.seed
    images = score_site(predictions, evaluation.prevalence, *resampling)
    external_scores: dict[str, Any] = {
        "site": str(predictions["site"].iloc[0]),
        "model": dict(model_record),
        "images": images,
    }
    patients = gather_patients(predictions)
    if not patients.empty and patients["is_positive"].nunique() == 2:
        external_scores["patients"] = score_site(patients, evaluation.prevalence, *resampling)
    inside = _score_inside(predictions, inside_predictions, evaluation, classes)
    if inside is not None:
        external_scores["inside"] = inside
    if _GIVEN_LESION in predictions and classes.has_lesion(predictions["label"]).all():
        external_scores["given_lesion"] = score_site(
            take_lesion_for_granted(predictions), evaluation.prevalence, *resampling
        )
    if reader_box_predictions is not None:
        # Who draws a box says that there is a lesion.
        external_scores["reader_box"] = score_site(
            take_lesion_for_granted(reader_box_predictions), evaluation.prevalence, *resampling
        )
    reader = _score_reader(predictions, manifest, *resampling)
    if reader is not None:
        external_scores["reader"] = reader
    external_scores["likeliest"] = {
        name: float((predictions["predicted"] == name).mean()) for name in classes
    }
    external_scores["verdict"] = judge(images, external)
    variables = list_variables(manifest, properties)
    subgroups = score_subgroups(predictions, variables, external.min_images, *resampling)
    found = None
    if lesion_boxes is not None and localization is not None:
        confidence = lesion_boxes.set_index("image_id")["confidence"]
        found = confidence >= localization.min_confidence
    failures = list_failures(predictions, manifest, properties, found)
    _log_scores(settings.title, external_scores, classes)
    return SiteScores({"external": external_scores}, subgroups, failures)


def _score_inside(
    predictions: pd.DataFrame,
    inside: pd.DataFrame | None,
    evaluation: EvaluationSettings,
    classes: Classes,
) -> dict[str, Any] | None:
    """Score the model inside, on the labels that occur outside, so that both compare."""
    if inside is None:
        return None
    test = select_test(inside)
    test = test[test["label"].isin(predictions["label"].unique())]
    table = add_positive_score(test, classes)
    if table["is_positive"].nunique() < 2:
        return None
    return score_site(table, evaluation.prevalence, evaluation.n_resamples, evaluation.seed)


def _score_reader(
    predictions: pd.DataFrame, manifest: pd.DataFrame, n_resamples: int, seed: int
) -> dict[str, Any] | None:
    category = read_birads(manifest["birads"])
    known = category.notna().to_numpy()
    if not known.any():
        return None
    table = predictions[known]
    truth = table["is_positive"].to_numpy(dtype=bool)
    called = (category[known] >= _READER_POSITIVE).to_numpy()
    if truth.all() or not truth.any() or not called[truth].any() or called[~truth].all():
        return None
    scores = score_reader(
        truth,
        called,
        table["positive_score"].to_numpy(),
        table["group"].tolist(),
        n_resamples,
        seed,
    )
    return {"images": int(known.sum()), "positive_from_birads": _READER_POSITIVE} | scores


def judge(images: Mapping[str, Any], external: ExternalSettings) -> dict[str, Any]:
    """Return whether the model travels by the criteria of the parameters, and each one's outcome.

    Args:
        images: scores of the images, with intervals.
        external: `min_auc` and `min_sensitivity` are held against lower bounds.
    """
    calibration, ratio = images["calibration"], external.max_miscalibration

    def holds(value: float) -> bool:
        return 1 / ratio <= value <= ratio

    outcome = {
        "ranking": images["auc" + LOW] >= external.min_auc,
        "finding": images["flag"]["sensitivity" + LOW] >= external.min_sensitivity,
        "cost": images["flag"]["specificity"] >= external.min_specificity,
        "calibration": holds(calibration["slope"]) and holds(calibration["observed_expected"]),
    }
    held = {name: "held" if value else "missed" for name, value in outcome.items()}
    return {"travels": "yes" if all(outcome.values()) else "no"} | held


def _log_scores(title: str, scores: Mapping[str, Any], classes: Classes) -> None:
    images, flag = scores["images"], scores["images"]["flag"]
    inside = scores.get("inside")
    logger.info(
        "%s at %s, not seen before: AUC of %s %s%s; flagged: sensitivity %s, specificity %s",
        title,
        scores["site"],
        classes.positive_name,
        format_number(images, "auc"),
        f" (inside {format_number(inside, 'auc')})" if inside else "",
        format_share(flag, "sensitivity"),
        format_share(flag, "specificity"),
    )
    for key, how in (
        ("given_lesion", "where each image is known to show a lesion"),
        ("reader_box", "with the boxes of readers"),
    ):
        if key in scores:
            of_key = scores[key]
            logger.info(
                "%s %s: AUC of %s %s; flagged: sensitivity %s, specificity %s",
                title,
                how,
                classes.positive_name,
                format_number(of_key, "auc"),
                format_share(of_key["flag"], "sensitivity"),
                format_share(of_key["flag"], "specificity"),
            )
    missed = [name for name, value in scores["verdict"].items() if value == "missed"]
    logger.info(
        "%s: by the criteria of `external` the model %s",
        title,
        "travels" if not missed else f"does not travel: {', '.join(missed)} missed",
    )
