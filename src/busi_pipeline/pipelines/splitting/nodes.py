"""Assign every image of the manifest to train, validation or test."""

import hashlib
import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import pandas as pd
from sklearn.model_selection import train_test_split

from busi_pipeline.config.schemas import SplitSettings
from busi_pipeline.errors import BadInputError
from busi_pipeline.learning.folds import assign_parts, hash_images

logger = logging.getLogger(__name__)

SPLITS = ("train", "validation", "test")
EXCLUDED = "excluded"
# Parts are made of so many folds, which bounds how near they come to their shares; of fewer where a
# class has fewer groups.
_N_SPLITS = 20


class Split(NamedTuple):
    """What the split hands over.

    Attributes:
        split_manifest: `image_id`, `path`, `label`, `group` (images that belong together
            share one), `split` (train, validation, test or excluded), `site`, in the manifest's
            order.
        summary: counts per split and class, `test_images_with_duplicate_in_train`; for MLflow's
            metrics.
        tags: `data_sha256` of the manifest, `split_sha256` over id and split, `split_method`.
    """

    split_manifest: pd.DataFrame
    summary: dict[str, Any]
    tags: dict[str, str]


def split_images(manifest: pd.DataFrame, image_groups: pd.DataFrame, split: SplitSettings) -> Split:
    """Split by `split.method` with `split.seed` into shares `split.validation` and `split.test`.

    `grouped` keeps the images of a group in one part. Duplicates with different labels cannot be
    right, so they are in no part (`excluded`), unless `split.mixed_labels` is `keep`.
    `random` disregards groups, as the published work is, and excludes nothing.

    Raises BadInputError where a class is too small to be in all three parts.
    """
    assigned = manifest[["image_id", "path", "label"]].copy()
    assigned["group"] = find_groups(assigned["image_id"], image_groups, "group")
    mixed = find_groups(assigned["image_id"], image_groups, "mixed_labels").astype(bool)
    left_out = mixed & (split.method == "grouped" and split.mixed_labels == "exclude")
    usable = assigned[~left_out]
    assigned["split"] = EXCLUDED
    assigned.loc[usable.index, "split"] = SPLIT_METHODS[split.method](
        usable, split.validation, split.test, split.seed
    )
    counts = pd.crosstab(assigned["split"], assigned["label"]).reindex(SPLITS, fill_value=0)
    if (counts == 0).any(axis=None):
        raise BadInputError(
            "every class must be in train, validation and test; the split gave "
            f"{counts.to_dict('index')}. Add images, or raise split.validation and split.test."
        )
    logger.info("split %s", "; ".join(f"{s} {r}" for s, r in counts.to_dict("index").items()))
    if left_out.any():
        logger.warning(
            "%d images are left out: duplicates of them carry another label (split.mixed_labels)",
            left_out.sum(),
        )
    duplicated = _count_duplicated(assigned)
    if duplicated:
        logger.warning(
            "%d of %d test images have a duplicate in the training set: scores are partly memory",
            duplicated,
            (assigned["split"] == "test").sum(),
        )
    identity = "\n".join(f"{r.image_id}\t{r.split}" for r in assigned.itertuples(index=False))
    tags = {
        "data_sha256": hash_images(manifest),
        "split_sha256": hashlib.sha256(identity.encode()).hexdigest(),
        "split_method": split.method,
    }
    totals = {name: int(n) for name, n in assigned["split"].value_counts().items()}
    summary = {name: row | {"all": totals[name]} for name, row in counts.to_dict("index").items()}
    summary[EXCLUDED] = {"all": int(left_out.sum())}
    record = {"split": summary | {"test_images_with_duplicate_in_train": duplicated}}
    return Split(assigned.assign(site=manifest["site"]), record, tags)


def find_groups(image_ids: pd.Series, image_groups: pd.DataFrame, column: str) -> pd.Series:
    """Return a column of `image_groups` for each image.

    Raises BadInputError where an image is in no group: the groups are of other images.
    """
    found = image_ids.map(image_groups.set_index("image_id")[column])
    if found.isna().any():
        raise BadInputError(
            f"{found.isna().sum()} images are in no group ({image_ids[found.isna()].iloc[0]!r} is "
            "the first): the data changed since; rerun `kedro run --pipeline=deduplication`."
        )
    return found


def _count_duplicated(assigned: pd.DataFrame) -> int:
    trained = set(assigned.loc[assigned["split"] == "train", "group"])
    return int((assigned["group"].isin(trained) & (assigned["split"] == "test")).sum())


def _split_grouped(images: pd.DataFrame, validation: float, test: float, seed: int) -> pd.Series:
    """Split whole groups at random, stratified by label.

    scikit-learn's StratifiedGroupKFold makes twenty folds of like size and like classes, or as many
    as the rarest class has groups; the test part takes as many as come next to its share, then the
    validation part.
    """
    shares = {"test": test, "validation": validation}
    return pd.Series(assign_parts(images, shares, _N_SPLITS, seed), index=images.index)


def _split_random(images: pd.DataFrame, validation: float, test: float, seed: int) -> pd.Series:
    """Split images at random, stratified by label, as the published work did: duplicates part.

    Two calls of `train_test_split`, first training against the rest, then the rest in two.
    """
    held_out = validation + test
    try:
        _, rest = train_test_split(
            images.index, test_size=held_out, stratify=images["label"], random_state=seed
        )
        validating, testing = train_test_split(
            rest, test_size=test / held_out, stratify=images.loc[rest, "label"], random_state=seed
        )
    except ValueError as error:
        counts = images["label"].value_counts().to_dict()
        raise BadInputError(
            f"a class is too small to split: {counts} images for shares of {validation:g} and "
            f"{test:g} ({error}). Add images, or raise split.validation and split.test."
        ) from None
    split = pd.Series("train", index=images.index)
    split.loc[validating] = "validation"
    split.loc[testing] = "test"
    return split


SPLIT_METHODS: dict[str, Callable[[pd.DataFrame, float, float, int], pd.Series]] = {
    "grouped": _split_grouped,
    "random": _split_random,
}
