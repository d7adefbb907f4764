"""Export a delivered model's networks, compare them with Keras, pack what their use takes."""

import logging
import math
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from busi_pipeline.caching.arrays import StoredArray
from busi_pipeline.config.schemas import LocalizationSettings, ModelSettings, PackagingSettings
from busi_pipeline.errors import BadInputError
from busi_pipeline.imaging.decoding import decode_image
from busi_pipeline.imaging.quality import Quality, measure_quality
from busi_pipeline.learning.folds import select_parts
from busi_pipeline.learning.predicting import read_inputs
from busi_pipeline.models.delivered import LEARNED_FROM, DeliveredModel
from busi_pipeline.models.exporting import (
    PHONE,
    SINGLE,
    ExportedNetworks,
    convert_to_half,
    cut_to_features,
    export_classifier,
    export_model,
    list_export_problems,
    quantize,
)
from busi_pipeline.models.novelty import (
    UNLIMITED,
    build_reference,
    choose_limit,
    turn_images,
)
from busi_pipeline.models.onnx_networks import FEATURES, OnnxNetworks
from busi_pipeline.models.package_parts import PackageParts
from busi_pipeline.models.packaged import Limits, measure_margin
from busi_pipeline.models.runtime_cost import measure_cost
from busi_pipeline.progress import track
from busi_pipeline.stats.calibration import Calibration, apply_calibration
from busi_pipeline.stats.classes import Classes
from busi_pipeline.stats.scoring import probability_columns, select_test

logger = logging.getLogger(__name__)

RawImages = Mapping[str, Callable[[], bytes]]
_AT_ONCE = 8
# Share of the pixels that a marker may colour, even where no image learned from has one.
_SOME_COLOUR = 0.01
_CALIBRATED_AT_ONCE = 4
_NOVELTY = ("distance", "turned", "similarity")
KERAS = "keras"
PRECISIONS = (SINGLE, "half", "int8")


def export_networks(
    model: DeliveredModel,
    images: StoredArray,
    division: pd.DataFrame,
    packaging: PackagingSettings,
) -> ExportedNetworks:
    """Return the networks of a delivered model as ONNX files, the classifier in three precisions.

    Args:
        model: the delivered model.
        images: what its network sees.
        division: a split, or folds: which images were learned from.
        packaging: how many of them give int8 its range of values.
    """
    described = model.description
    positive = [described["classes"].index(name) for name in described["positive_classes"]]
    single = export_classifier(model.model, positive)
    taught = _choose(select_parts(division, "train"), packaging.calibration_images, packaging.seed)
    batches = read_inputs(images, taught, _CALIBRATED_AT_ONCE, "int8")
    return ExportedNetworks(
        {
            SINGLE: single,
            "half": convert_to_half(single),
            "int8": quantize(single, batches),
        },
        None if model.localizer is None else export_model(model.localizer),
        _export_for_phone(model, packaging.phone),
    )


def _export_for_phone(
    model: DeliveredModel, weights: Literal["half", "int8"] | None
) -> dict[str, bytes]:
    """Return the LiteRT files that were asked for."""
    if weights is None:
        return {}
    from busi_pipeline.models.phone import export_litert

    networks = {"classifier": model.model, "localizer": model.localizer}
    return {
        name: export_litert(network, weights)
        for name, network in networks.items()
        if network is not None
    }


def _choose(images: pd.DataFrame, count: int, seed: int) -> list[str]:
    """Return the `image_id` of so many images at most."""
    image_ids = images["image_id"]
    return image_ids.sample(min(count, len(image_ids)), random_state=seed).sort_values().tolist()


def compare_networks(
    model: DeliveredModel,
    exported_networks: ExportedNetworks,
    images: StoredArray,
    division: pd.DataFrame,
    packaging: PackagingSettings,
    classes: Classes,
) -> pd.DataFrame:
    """Compare the exported networks with Keras, those of less precision with single precision.

    Returns one row a network: `network` (keras, single, half, int8, and phone where there is one),
    `images`, `largest_difference` of its probabilities, `changed_classes` and `changed_flags`
    (numbers of images), `positive_auc`, `megabytes` of its file (of a phone's, together), and of
    one image on one core `milliseconds` (of a phone's classifier, on this machine) and
    `peak_megabytes` (of the whole process; nan for Keras and LiteRT).

    Raises BadInputError, one line, where the network in single precision differs from Keras, or the
    chosen one from that, by more than is allowed.
    """
    compared = _choose(
        select_parts(division, "validation"), packaging.compared_images, packaging.seed
    )
    labels = division.set_index("image_id").loc[compared, "label"]
    is_positive = classes.is_positive(labels)

    def answer(classify: Callable[[Any], Mapping[str, np.ndarray]], name: str) -> pd.DataFrame:
        batches = read_inputs(images, compared, _AT_ONCE, f"{model.description['title']}, {name}")
        answers = [classify(batch) for batch in batches]
        table = pd.DataFrame(np.concatenate([own["probabilities"] for own in answers]))
        return table.assign(
            score=np.concatenate([own["positive_score"] for own in answers]),
            flagged=np.concatenate([own["flagged"] for own in answers]),
        )

    tables = {KERAS: answer(model.classify, KERAS)}
    rows = [_compare(tables[KERAS], tables[KERAS], is_positive) | {"network": KERAS}]
    for precision in PRECISIONS:
        content = exported_networks.classifiers[precision]
        tables[precision] = answer(OnnxNetworks(content).classify, precision)
        cost = measure_cost(content)
        against = tables[KERAS if precision == SINGLE else SINGLE]
        rows.append(
            _compare(tables[precision], against, is_positive)
            | {
                "network": precision,
                "megabytes": len(content) / 1e6,
                "milliseconds": cost.milliseconds,
                "peak_megabytes": cost.peak_mb,
            }
        )
    if exported_networks.phone:
        rows.append(_compare_phone(exported_networks.phone, answer, tables[SINGLE], is_positive))
    comparison = pd.DataFrame(rows).set_index("network").reset_index()
    for row in comparison[comparison["network"] != KERAS].to_dict("records"):
        logger.info(
            "%s: largest difference %.1e, %d of %d flags changed, AUC %.4f, %.0f MB, %.0f ms",
            *(row["network"], row["largest_difference"], row["changed_flags"], row["images"]),
            *(row["positive_auc"], row["megabytes"], row["milliseconds"]),
        )
    check_export(comparison, packaging)
    return comparison.round({"positive_auc": 4, "megabytes": 2, "milliseconds": 1})


def _compare_phone(
    phone: Mapping[str, bytes],
    answer: Callable[..., pd.DataFrame],
    single: pd.DataFrame,
    is_positive: np.ndarray,
) -> dict[str, Any]:
    from busi_pipeline.models.phone import LitertClassifier

    network = LitertClassifier(phone["classifier"])
    begun = time.perf_counter()
    table = answer(network.classify, PHONE)
    seconds = time.perf_counter() - begun
    return _compare(table, single, is_positive) | {
        "network": PHONE,
        "megabytes": sum(map(len, phone.values())) / 1e6,
        "milliseconds": 1000 * seconds / len(table),
    }


def _compare(table: pd.DataFrame, other: pd.DataFrame, is_positive: np.ndarray) -> dict[str, Any]:
    probabilities = [c for c in table if isinstance(c, int)]
    own, others = table[probabilities].to_numpy(), other[probabilities].to_numpy()
    both = is_positive.any() and not is_positive.all()
    return {
        "images": len(table),
        "largest_difference": float(np.abs(own - others).max()),
        "changed_classes": int((own.argmax(axis=1) != others.argmax(axis=1)).sum()),
        "changed_flags": int((table["flagged"] != other["flagged"]).sum()),
        "positive_auc": roc_auc_score(is_positive, table["score"]) if both else math.nan,
    }


def check_export(comparison: pd.DataFrame, packaging: PackagingSettings) -> None:
    """Raise BadInputError, one line, where an exported network differs more than is allowed.

    Args:
        comparison: of `compare_networks`.
        packaging: what is allowed, and which network is packed.
    """
    problems = list_export_problems(comparison, packaging)
    if problems:
        raise BadInputError(
            f"the exported network is not the delivered one on {comparison['images'].max()} "
            f"images: {'; '.join(problems)}. Nothing was packed."
        )


def build_package(
    model: DeliveredModel,
    exported_networks: ExportedNetworks,
    export_comparison: pd.DataFrame,
    images: StoredArray,
    division: pd.DataFrame,
    raw_images: RawImages,
    manifest: pd.DataFrame,
    predictions: pd.DataFrame,
    model_card: str,
    settings: ModelSettings,
    packaging: PackagingSettings,
    localization: LocalizationSettings,
    classes: Classes,
) -> PackageParts:
    """Return a package: networks, limits, what is known of the images learned from, model card.

    Args:
        model, exported_networks: the delivered model, and its networks.
        export_comparison: that these are the same; see `compare_networks`.
        images: what its network sees.
        division: the split or folds that it learned from.
        raw_images, manifest: the images as they came.
        predictions: of the images that the threshold was chosen on, and others.
        model_card: of the model.
        settings: of the experiment.
        packaging: limits, as shares of the images learned from.
        localization: `min_confidence`.
        classes: in the order of the probabilities.
    """
    check_export(export_comparison, packaging)
    learned = select_parts(division, *LEARNED_FROM)
    classifier = exported_networks.classifiers[packaging.precision]
    network = OnnxNetworks(cut_to_features(classifier))
    features = _compute_features(network, images, learned["image_id"].tolist(), settings.title)
    groups = learned.set_index("image_id")["group"]
    some = _choose(learned, packaging.turned_images, packaging.seed)
    turned = _compute_turned(network, images, some, settings.title)
    reference = build_reference(
        features,
        groups.to_numpy(),
        turned,
        np.repeat(groups.loc[some].to_numpy(), len(turned) // len(some)),
        packaging.components,
    )
    qualities = _measure_qualities(raw_images, manifest, division["image_id"])
    distances = pd.Series(reference.distances, learned["image_id"], name="distance")
    others = division.loc[~division["image_id"].isin(learned["image_id"]), "image_id"].tolist()
    if others:
        features = _compute_features(network, images, others, settings.title)
        far = pd.Series(reference.measure_distance(features), others)
        distances = pd.concat([distances, far])
    tested = _list_tested(predictions, manifest, classes, qualities, distances)
    limits = Limits(
        choose_limit(reference.distances, packaging.refused_share),
        max(0.0, choose_limit(reference.turned_scores, packaging.turned_share)),
        choose_limit(reference.similarities, packaging.copy_share),
        _choose_margin(
            model.description, predictions, division, packaging.near_threshold_share, classes
        ),
        localization.min_confidence,
        *_choose_quality(
            qualities.loc[learned["image_id"]], packaging, model.description["image_size"]
        ),
    )
    unlimited = [name for name in _NOVELTY if getattr(limits, name) >= UNLIMITED]
    if unlimited:
        logger.warning(
            "%s: %d images are too few for a limit of %s: nothing is referred for it",
            settings.title,
            len(learned),
            ", ".join(unlimited),
        )
    logger.info(
        "%s, packed: distance up to %.3f, referred where a score is within %.2f of the threshold "
        "(logits)",
        settings.title,
        limits.distance,
        limits.near_threshold,
    )
    return PackageParts(
        classifier=classifier,
        localizer=exported_networks.localizer,
        description=model.description
        | {
            "devices": _list_devices(manifest, division),
            "of_folds": "split" not in division,
        },
        limits=limits,
        reference=reference,
        training_pixels=model.training_pixels,
        tested=tested,
        card=model_card,
        precision=packaging.precision,
        cases=learned[["image_id", "label"]] if packaging.shows_cases else None,
    )


def _compute_features(
    network: OnnxNetworks, images: StoredArray, image_ids: list[str], title: str
) -> np.ndarray:
    """Return float32 (images, channels), what the packed network sees."""
    batches = read_inputs(images, image_ids, _AT_ONCE, f"{title}, features")
    return np.concatenate([network.classify(batch)[FEATURES] for batch in batches])


def _compute_turned(
    network: OnnxNetworks, images: StoredArray, image_ids: list[str], title: str
) -> np.ndarray:
    """Return float32 (images x turns, channels), the turns of an image one after the other."""
    computed = []
    for batch in read_inputs(images, image_ids, _AT_ONCE, f"{title}, turned"):
        turns = [network.classify(turned)[FEATURES] for turned in turn_images(batch)]
        computed.append(np.stack(turns, axis=1).reshape(-1, turns[0].shape[-1]))
    return np.concatenate(computed)


def _choose_margin(
    description: Mapping[str, Any],
    predictions: pd.DataFrame,
    division: pd.DataFrame,
    share: float,
    classes: Classes,
) -> float:
    """Return the difference of logits within which this share of the images lies."""
    decided = predictions["split"] == ("validation" if "split" in division else "test")
    calibration = Calibration(description["temperature"], tuple(description["offsets"]))
    columns = probability_columns(classes, uncalibrated=True)
    calibrated = apply_calibration(predictions.loc[decided, columns].to_numpy(), calibration)
    margins = [
        measure_margin(score, description["threshold"])
        for score in classes.positive_score(calibrated)
    ]
    return float(np.quantile(margins, share))


def _list_devices(manifest: pd.DataFrame, division: pd.DataFrame) -> list[str]:
    """Return the scanners of all images of the division, as far as they are known."""
    known = manifest.loc[manifest["image_id"].isin(division["image_id"]), "device"]
    return sorted(set(known[known.notna()]) - {""})


def _measure_qualities(
    raw_images: RawImages, manifest: pd.DataFrame, image_ids: pd.Series
) -> pd.DataFrame:
    """Return the qualities of images, by `image_id`."""
    paths = manifest.set_index("image_id").loc[image_ids, "path"]
    followed = track(paths, "quality of images", "image", total=len(paths))
    measured = [measure_quality(decode_image(raw_images[path]()).pixels) for path in followed]
    return pd.DataFrame(measured, index=paths.index)


def _list_tested(
    predictions: pd.DataFrame,
    manifest: pd.DataFrame,
    classes: Classes,
    qualities: pd.DataFrame,
    distances: pd.Series,
) -> pd.DataFrame:
    """Return what package_parts.PackageParts.tested is."""
    tested = select_test(predictions)
    shown = tested["image_id"]
    return tested.assign(
        positive_score=classes.positive_score(tested[probability_columns(classes)].to_numpy()),
        pixel_sha256=shown.map(manifest.set_index("image_id")["pixel_sha256"]),
        distance=shown.map(distances),
        **{name: shown.map(qualities[name]) for name in Quality._fields},
    )


def _choose_quality(
    qualities: pd.DataFrame, packaging: PackagingSettings, image_size: int
) -> tuple[Quality, Quality]:
    """Return the lowest and the highest quality that an image may have.

    It may be lower than nearly all images learned from by the slack: other scanners have other
    contrasts, which is no fault of an image. What is as large as the network's input is large
    enough.
    """
    share, slack = packaging.quality_share, packaging.quality_slack
    low, high = (
        Quality(*map(float, qualities[[*Quality._fields]].quantile(q))) for q in (share, 1 - share)
    )
    return (
        low._replace(
            shorter_side=min(low.shorter_side, float(image_size)),
            contrast=low.contrast * (1 - slack),
            detail=low.detail * (1 - slack),
        ),
        high._replace(detail=high.detail * (1 + slack), colour=max(_SOME_COLOUR, high.colour)),
    )
