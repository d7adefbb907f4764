"""Learn where lesions are, find them, and say how well."""

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from busi_pipeline.caching.arrays import StoredArray
from busi_pipeline.caching.cache import Cache
from busi_pipeline.config.experiments import gather_experiments
from busi_pipeline.config.schemas import EvaluationSettings, LocalizationSettings
from busi_pipeline.datasets.pretrained_weights import WeightsSource
from busi_pipeline.errors import BadInputError
from busi_pipeline.learning import localization as library
from busi_pipeline.models.delivered import DeliveredModel
from busi_pipeline.stats.localization import score_boxes
from busi_pipeline.stats.scoring import format_number, format_share

if TYPE_CHECKING:
    import keras

logger = logging.getLogger(__name__)
RawImages = Mapping[str, Callable[[], bytes]]
_NO_VIEWS = 0


def prepare_views(
    raw_images: RawImages, manifest: pd.DataFrame, localization: LocalizationSettings, cache: Cache
) -> StoredArray:
    """Return what the localizer sees; see learning.localization.prepare_views."""
    return library.prepare_views(raw_images, manifest, localization, localization.per_image, cache)


def prepare_site_views(
    raw_images: RawImages, manifest: pd.DataFrame, localization: LocalizationSettings, cache: Cache
) -> StoredArray:
    """Return the same of images that nothing is learned from: as they came alone."""
    return library.prepare_views(raw_images, manifest, localization, _NO_VIEWS, cache)


def extract_pyramid(
    views: StoredArray,
    localization: LocalizationSettings,
    pretrained_weights: WeightsSource,
    cache: Cache,
    *,
    backbone: str,
) -> StoredArray:
    """Return the frozen features of every view; see learning.localization.extract_pyramid."""
    weights = pretrained_weights.choose(backbone, localization.weights)
    return library.extract_pyramid(views, backbone, localization, weights, cache)


class Located(NamedTuple):
    """What the hold-out split, or the folds, hand over.

    Attributes:
        lesion_boxes: see learning.localization.list_boxes; out of fold where they were learned.
        localizer: uint8 (n, size, size) -> maps.
        metrics: {`localizer`: {part of the split, or `out_of_fold`: scores}}.
    """

    lesion_boxes: pd.DataFrame
    localizer: "keras.Model"
    metrics: dict[str, Any]


def locate_hold_out(
    views: StoredArray,
    manifest: pd.DataFrame,
    split_manifest: pd.DataFrame,
    localization: LocalizationSettings,
    evaluation: EvaluationSettings,
    pretrained_weights: WeightsSource,
    cache: Cache,
    **of_backbones: Any,
) -> Located:
    """Learn from the training images; find the lesions of all.

    Args:
        views: see learning.localization.prepare_views.
        manifest, split_manifest: of the images.
        localization, evaluation, pretrained_weights, cache: how.
        of_backbones: `features` of each backbone, see config.experiments.name_items.
    """
    parts = {part: f"{part} images" for part in ("train", "validation", "test")}
    located, metrics = _locate_split(
        views,
        of_backbones,
        manifest,
        split_manifest,
        localization,
        evaluation,
        cache,
        parts,
    )
    localizer = _build(localization, pretrained_weights, located)
    return Located(located.boxes, localizer, {"localizer": metrics})


def _gather_features(of_backbones: Mapping[str, Any]) -> dict[str, StoredArray]:
    """Return {backbone: features} of a node's named arguments."""
    gathered = gather_experiments(of_backbones)
    return {backbone: items["features"] for backbone, items in gathered.items()}


def _build(
    localization: LocalizationSettings,
    pretrained_weights: WeightsSource,
    located: library.Localized,
) -> "keras.Model":
    weights = {
        backbone: pretrained_weights.choose(backbone, localization.weights)
        for backbone in located.decoders
    }
    return library.build_localizer(localization, weights, located.decoders)


def locate_folds(
    views: StoredArray,
    manifest: pd.DataFrame,
    fold_manifest: pd.DataFrame,
    localization: LocalizationSettings,
    evaluation: EvaluationSettings,
    pretrained_weights: WeightsSource,
    cache: Cache,
    **of_backbones: Any,
) -> Located:
    """Find the lesion of every image by decoders that did not learn from its group.

    The localizer is all of them together: of images that none has learned from.
    """
    images = _join(manifest, fold_manifest)
    images["is_learned"] = images["group"].notna()
    features = _gather_features(of_backbones)
    located = library.locate_lesions(views, features, images, localization, cache)
    learned = images["is_learned"].to_numpy()
    scores = _score(
        located.boxes[learned],
        images.loc[learned, "group"],
        localization,
        evaluation,
        "out of fold",
    )
    return Located(
        located.boxes,
        _build(localization, pretrained_weights, located),
        {"localizer": {"out_of_fold": scores}},
    )


def locate_left_out(
    views: StoredArray,
    manifest: pd.DataFrame,
    split_manifest: pd.DataFrame,
    localization: LocalizationSettings,
    evaluation: EvaluationSettings,
    cache: Cache,
    **of_backbones: Any,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Find the lesions of a fold: learn from its training images, never where they are tested."""
    located, metrics = _locate_split(
        views,
        of_backbones,
        manifest,
        split_manifest,
        localization,
        evaluation,
        cache,
        {"test": "at the site left out"},
    )
    return located.boxes, {"localizer": {"left_out": metrics["test"]}}


def _locate_split(
    views: StoredArray,
    of_backbones: Mapping[str, Any],
    manifest: pd.DataFrame,
    split_manifest: pd.DataFrame,
    localization: LocalizationSettings,
    evaluation: EvaluationSettings,
    cache: Cache,
    scored: Mapping[str, str],
) -> tuple[library.Localized, dict[str, Any]]:
    """Learn from the training images, find the lesions of all, score some parts.

    Args:
        scored: {part of the split: how the log calls it}; their scores are returned by part.
    """
    images = _join(manifest, split_manifest)
    features = _gather_features(of_backbones)
    located = library.locate_lesions(
        views, features, images.assign(is_learned=images["split"] == "train"), localization, cache
    )
    metrics = {}
    for part, where in scored.items():
        own = (images["split"] == part).to_numpy()
        metrics[part] = _score(
            located.boxes[own], images.loc[own, "group"], localization, evaluation, where
        )
    return located, metrics


def locate_site(
    model: DeliveredModel,
    views: StoredArray,
    manifest: pd.DataFrame,
    image_groups: pd.DataFrame,
    localization: LocalizationSettings,
    evaluation: EvaluationSettings,
    cache: Cache,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Find the lesions of a site that the model has not seen, by its own localizer.

    Raises BadInputError where it has none, or one that sees another size.
    """
    title = model.description["title"]
    if model.localizer is None:
        raise BadInputError(
            f"{title} was delivered without a localizer, but the experiment looks at the lesion: "
            "train it again."
        )
    size = int(model.localizer.input_shape[1])
    if size != localization.image_size:
        raise BadInputError(
            f"the localizer of {title} sees images of {size} pixels, but localization.image_size "
            f"is {localization.image_size}: train it again, or run with the same value."
        )
    boxes = library.locate_with(model.localizer, views, manifest, cache)
    groups = manifest["image_id"].map(image_groups.set_index("image_id")["group"])
    scores = _score(boxes, groups, localization, evaluation, "at the external site")
    return boxes, {"localizer": {"external": scores}}


def _join(manifest: pd.DataFrame, division: pd.DataFrame) -> pd.DataFrame:
    """Return all images with height and width, and what a split or folds say of them.

    An image that these leave out is not learned from, and found like any other.
    """
    shapes = manifest[["image_id", "height", "width"]]
    return shapes.merge(division, on="image_id", how="left", validate="one_to_one")


def _score(
    boxes: pd.DataFrame,
    groups: pd.Series,
    localization: LocalizationSettings,
    evaluation: EvaluationSettings,
    where: str,
) -> dict[str, Any]:
    scores = score_boxes(
        boxes, groups, localization.min_confidence, evaluation.n_resamples, evaluation.seed
    )
    if scores["images"]:
        logger.info(
            "localizer, %s: of %d lesions the centre of the box lies in %s, IoU of the boxes %s, "
            "Dice %s; missed %s",
            where,
            scores["images"],
            format_share(scores, "centre_hit"),
            format_number(scores, "iou"),
            format_number(scores, "dice"),
            format_share(scores, "lesions_missed"),
        )
    else:
        logger.warning("localizer, %s: no lesion is drawn, so it is not scored", where)
    return scores
