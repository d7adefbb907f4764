"""Who is judged in which fold."""

import hashlib
import logging
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from busi_pipeline.errors import BadInputError
from busi_pipeline.pipelines.split.nodes import check_mixed_labels, deal_groups, find_groups

logger = logging.getLogger(__name__)

_REPEAT = "repeat_"


class Folds(NamedTuple):
    """What the assignment hands over.

    Attributes:
        fold_manifest: `image_id`, `path`, `label`, `group`, `together` (images that share one are
            never parted) and `repeat_1`, `repeat_2`, ...: the fold, from 1, that judges the image
            in that repeat. Images of mixed groups are not in it unless they are to be kept.
        tags: `folds_sha256`, `folds_method`.
    """

    fold_manifest: pd.DataFrame
    tags: dict[str, str]


class Fold(NamedTuple):
    """One training of a cross-validation; both count from 1."""

    repeat: int
    fold: int

    @property
    def name(self) -> str:
        """As in file names and child runs."""
        return f"repeat_{self.repeat}_fold_{self.fold}"


def assign_folds(
    manifest: pd.DataFrame,
    image_groups: pd.DataFrame,
    split: Mapping[str, Any],
    cross_validation: Mapping[str, Any],
) -> Folds:
    """Deal the images into `folds` parts, `repeats` times, stratified by label.

    `split.method` decides as it does for the split: `grouped` keeps groups together, `random` parts
    copies (and leaves out the same images, so that both are judged on the same ones).

    Raises BadInputError for an impossible number of folds or repeats, or too few images.
    """
    folds, repeats = int(cross_validation["folds"]), int(cross_validation["repeats"])
    if folds < 2 or repeats < 1:
        raise BadInputError(
            "cross_validation.folds must be at least 2 and cross_validation.repeats at least 1; "
            f"got {folds} and {repeats}."
        )
    images = manifest[["image_id", "path", "label"]].copy()
    images["group"] = find_groups(images["image_id"], image_groups, "group")
    mixed = find_groups(images["image_id"], image_groups, "mixed_labels").astype(bool)
    if check_mixed_labels(split) == "exclude" and mixed.any():
        logger.warning(
            "%d images are left out: their copies carry another label (split.mixed_labels)",
            mixed.sum(),
        )
        images = images[~mixed].reset_index(drop=True)
    images["together"] = images["group" if split["method"] == "grouped" else "image_id"]
    smallest = int(images["label"].value_counts().min())
    if smallest < folds:
        raise BadInputError(
            f"cross_validation.folds is {folds}, but the smallest class has {smallest} images."
        )
    seed = int(cross_validation["seed"])
    for repeat in range(1, repeats + 1):
        images[f"{_REPEAT}{repeat}"] = 1 + _deal(images, folds, seed + repeat)
    told = images.drop(columns=["path", "label"]).to_csv(index=False)
    tags = {
        "folds_sha256": hashlib.sha256(told.encode()).hexdigest(),
        "folds_method": split["method"],
    }
    return Folds(images, tags)


def list_folds(fold_manifest: pd.DataFrame) -> Iterator[Fold]:
    """Yield every fold of every repeat, repeat by repeat."""
    for column in fold_manifest.columns[fold_manifest.columns.str.startswith(_REPEAT)]:
        for fold in sorted(fold_manifest[column].unique()):
            yield Fold(int(column.removeprefix(_REPEAT)), int(fold))


def select_fold(
    fold_manifest: pd.DataFrame, fold: Fold, cross_validation: Mapping[str, Any]
) -> pd.DataFrame:
    """Return `image_id`, `path`, `label`, `group` and `split`, as the split hands it over.

    `test` is the fold. Of the rest, a share that comes next to `validation` of all images is there
    to stop the training and to choose the decision; it is dealt like the folds.

    Raises BadInputError where the share leaves nothing to train on.
    """
    images = fold_manifest[["image_id", "path", "label", "group", "together"]].copy()
    is_test = fold_manifest[f"{_REPEAT}{fold.repeat}"] == fold.fold
    rest = images[~is_test]
    pieces = round(len(rest) / (float(cross_validation["validation"]) * len(images)))
    if pieces < 2:
        raise BadInputError(
            f"cross_validation.validation of {cross_validation['validation']} leaves nothing to "
            f"train on beside one of {int(cross_validation['folds'])} folds."
        )
    seed = int(cross_validation["seed"]) + 1000 * fold.repeat + fold.fold
    images["split"] = "test"
    images.loc[rest.index, "split"] = np.where(
        _deal(rest, pieces, seed) == 0, "validation", "train"
    )
    return images.drop(columns="together")


def _deal(images: pd.DataFrame, pieces: int, seed: int) -> np.ndarray:
    kept_together = images[["label"]].assign(group=images["together"])
    return deal_groups(kept_together, pieces, seed)
