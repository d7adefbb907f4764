"""Assign every image of the manifest to train, validation or test."""

import hashlib
import logging
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold, train_test_split

from busi_pipeline.errors import BadInputError

logger = logging.getLogger(__name__)

SPLITS = ("train", "validation", "test")
EXCLUDED = "excluded"
# A part is made of so many of these, which bounds how near it can come to its share; of fewer where
# no class has so many images.
_PIECES = 20


class Split(NamedTuple):
    """What the split hands over.

    Attributes:
        split_manifest: `image_id`, `path`, `label`, `group` (images that belong together share
            one), `split` (train, validation, test or excluded), in the manifest's order.
        summary: counts per split and class; `test_images_with_copy_in_train`; for MLflow's metrics.
        tags: `split_sha256` over id and split, `split_method`.
    """

    split_manifest: pd.DataFrame
    summary: dict[str, Any]
    tags: dict[str, str]


def split_images(
    manifest: pd.DataFrame, image_groups: pd.DataFrame, split: Mapping[str, Any]
) -> Split:
    """Split by `split.method` with `split.seed` into shares `split.validation` and `split.test`.

    `grouped` keeps the images of a group in one part. Groups whose images have different labels
    cannot be right, so they are in no part (`excluded`), unless `split.mixed_labels` is `keep`.
    `random` is blind to groups, as the published work is, and excludes nothing.

    Raises BadInputError for an unknown method, impossible shares, or a class too small to be in all
    three parts.
    """
    method = split["method"]
    if method not in SPLIT_METHODS:
        raise BadInputError(
            f"split.method must be one of {sorted(SPLIT_METHODS)}; got {method!r}. "
            "Set it in conf/base/parameters_split.yml."
        )
    validation, test = float(split["validation"]), float(split["test"])
    if validation <= 0 or test <= 0 or validation + test >= 1:
        raise BadInputError(
            "split.validation and split.test must be above 0 and together below 1; "
            f"got {validation} and {test}."
        )
    assigned = manifest[["image_id", "path", "label"]].copy()
    assigned["group"] = find_groups(assigned["image_id"], image_groups, "group")
    mixed = find_groups(assigned["image_id"], image_groups, "mixed_labels").astype(bool)
    left_out = mixed & (method == "grouped" and check_mixed_labels(split) == "exclude")
    usable = assigned[~left_out]
    assigned["split"] = EXCLUDED
    assigned.loc[usable.index, "split"] = SPLIT_METHODS[method](
        usable, validation, test, int(split["seed"])
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
            "%d images are left out: their copies carry another label (split.mixed_labels)",
            left_out.sum(),
        )
    copied = _count_copied(assigned)
    if copied:
        logger.warning(
            "%d of %d test images have a copy in the training set: scores are partly memory",
            copied,
            (assigned["split"] == "test").sum(),
        )
    identity = "\n".join(f"{r.image_id}\t{r.split}" for r in assigned.itertuples(index=False))
    tags = {
        "split_sha256": hashlib.sha256(identity.encode()).hexdigest(),
        "split_method": method,
    }
    totals = {name: int(n) for name, n in assigned["split"].value_counts().items()}
    summary = {name: row | {"all": totals[name]} for name, row in counts.to_dict("index").items()}
    summary[EXCLUDED] = {"all": int(left_out.sum())}
    record = {"split": summary | {"test_images_with_copy_in_train": copied}}
    return Split(assigned, record, tags)


def check_mixed_labels(split: Mapping[str, Any]) -> str:
    """Return `split.mixed_labels`; raises BadInputError where it is neither exclude nor keep."""
    choice = str(split["mixed_labels"])
    if choice not in ("exclude", "keep"):
        raise BadInputError(
            f"split.mixed_labels must be 'exclude' or 'keep'; got {choice!r}. "
            "Set it in conf/base/parameters_split.yml."
        )
    return choice


def find_groups(image_ids: pd.Series, image_groups: pd.DataFrame, column: str) -> pd.Series:
    """Return a column of `image_groups` for each image.

    Raises BadInputError where an image is in no group: the groups are of other images.
    """
    found = image_ids.map(image_groups.set_index("image_id")[column])
    if found.isna().any():
        raise BadInputError(
            f"{found.isna().sum()} images are in no group ({image_ids[found.isna()].iloc[0]!r} is "
            "the first): the data changed since; rerun `kedro run --pipeline=copies`."
        )
    return found


def _count_copied(assigned: pd.DataFrame) -> int:
    trained = set(assigned.loc[assigned["split"] == "train", "group"])
    return int((assigned["group"].isin(trained) & (assigned["split"] == "test")).sum())


def _split_grouped(images: pd.DataFrame, validation: float, test: float, seed: int) -> pd.Series:
    """Split whole groups at random, stratified by label.

    scikit-learn's StratifiedGroupKFold cuts them into twenty pieces of like size and like classes;
    the test part takes as many as come next to its share, then the validation part.
    """
    pieces = min(_PIECES, int(images["label"].value_counts().max()))
    testing, validating = (max(1, round(share * pieces)) for share in (test, validation))
    piece = deal_groups(images, pieces, seed)
    parts = [piece < testing, piece < testing + validating]
    return pd.Series(np.select(parts, ["test", "validation"], "train"), index=images.index)


def deal_groups(images: pd.DataFrame, pieces: int, seed: int) -> np.ndarray:
    """Return int (images,): the piece, from 0, that each image's group is dealt to.

    Args:
        images: `label` and `group`, one row an image.
        pieces: at most as many as the largest class has images.
        seed: of the order in which groups are dealt.

    Raises BadInputError where there are too few images for so many pieces.
    """
    dealer = StratifiedGroupKFold(n_splits=pieces, shuffle=True, random_state=seed)
    piece = np.empty(len(images), dtype=int)
    try:
        with warnings.catch_warnings():
            # A class smaller than the number of pieces is not in each, and need not be.
            warnings.filterwarnings("ignore", message="The least populated class")
            dealt = list(dealer.split(images, images["label"], images["group"]))
    except ValueError as error:
        raise BadInputError(
            f"too few images to split: {images['label'].value_counts().to_dict()} ({error})."
        ) from None
    for number, (_, rows) in enumerate(dealt):
        piece[rows] = number
    return piece


def _split_random(images: pd.DataFrame, validation: float, test: float, seed: int) -> pd.Series:
    """Split images at random, stratified by label, blind to copies: the published protocol.

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
