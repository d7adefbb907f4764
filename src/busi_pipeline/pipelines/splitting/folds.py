"""Assign every image to folds, and make the split of each fold."""

import hashlib
import logging
from typing import NamedTuple

import pandas as pd

from busi_pipeline.config.schemas import CrossValidationSettings, SplitSettings
from busi_pipeline.errors import BadInputError
from busi_pipeline.learning.folds import assign_cv_groups, hash_images, name_repeat

from .nodes import find_groups

logger = logging.getLogger(__name__)


class Folds(NamedTuple):
    """What the assignment hands over.

    Attributes:
        fold_manifest: `image_id`, `path`, `label`, `group`, `cv_group` (images that share one are
            in one fold) and `repeat_1`, `repeat_2`, ...: the fold, from 1, in which the image is
            tested in that repeat. Images of mixed groups are not in it unless they are to be kept.
        fold_tags: `data_sha256` of the manifest, `split_sha256`, `split_method`.
    """

    fold_manifest: pd.DataFrame
    fold_tags: dict[str, str]


def assign_folds(
    manifest: pd.DataFrame,
    image_groups: pd.DataFrame,
    split: SplitSettings,
    cross_validation: CrossValidationSettings,
) -> Folds:
    """Assign the images to `folds`, `repeats` times, stratified by label.

    `split.method` decides as it does for the hold-out split: `grouped` keeps groups together,
    `random` parts duplicates (and leaves out the same images, so that both are evaluated on the
    same ones).

    Raises BadInputError where a class has fewer groups than there are folds.
    """
    images = manifest[["image_id", "path", "label"]].copy()
    site = manifest["site"]
    images["group"] = find_groups(images["image_id"], image_groups, "group")
    mixed = find_groups(images["image_id"], image_groups, "mixed_labels").astype(bool)
    if split.mixed_labels == "exclude" and mixed.any():
        logger.warning(
            "%d images are left out: duplicates of them carry another label (split.mixed_labels)",
            mixed.sum(),
        )
        images = images[~mixed].reset_index(drop=True)
        site = site[~mixed].reset_index(drop=True)
    images["cv_group"] = images["group" if split.method == "grouped" else "image_id"]
    groups = images.groupby("label")["cv_group"].nunique()
    if groups.min() < cross_validation.folds:
        raise BadInputError(
            f"cross_validation.folds is {cross_validation.folds}, but class {groups.idxmin()} has "
            f"images of {groups.min()} groups (patients, or duplicates of one scan), and a group "
            "is in one fold: take fewer folds or add images of other patients."
        )
    for repeat in range(1, cross_validation.repeats + 1):
        assigned = assign_cv_groups(images, cross_validation.folds, cross_validation.seed + repeat)
        images[name_repeat(repeat)] = 1 + assigned
    identity = images.drop(columns=["path", "label"]).to_csv(index=False)
    tags = {
        "data_sha256": hash_images(manifest),
        "split_sha256": hashlib.sha256(identity.encode()).hexdigest(),
        "split_method": split.method,
    }
    return Folds(images.assign(site=site), tags)


def assign_random_folds(
    manifest: pd.DataFrame,
    image_groups: pd.DataFrame,
    split: SplitSettings,
    cross_validation: CrossValidationSettings,
) -> Folds:
    """Assign the same images without regard to duplicates, once: see `assign_folds`."""
    return assign_folds(
        manifest,
        image_groups,
        split.model_copy(update={"method": "random"}),
        cross_validation.model_copy(update={"repeats": 1}),
    )
