"""Assign every image of the manifest to train, validation or test."""

import hashlib
import logging
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pandas as pd
from sklearn.model_selection import train_test_split

from busi_pipeline.errors import BadInputError

logger = logging.getLogger(__name__)

SPLITS = ("train", "validation", "test")


class Split(NamedTuple):
    """What the split hands over.

    Attributes:
        split_manifest: `image_id`, `path`, `label`, `group` (images that must stay together share
            one), `split` (train, validation or test), in the manifest's order.
        summary: counts per split and class, for MLflow's metrics.
        tags: `split_sha256` over id and split, `split_method`.
    """

    split_manifest: pd.DataFrame
    summary: dict[str, Any]
    tags: dict[str, str]


def split_images(manifest: pd.DataFrame, split: Mapping[str, Any]) -> Split:
    """Split by `split.method` with `split.seed` into shares `split.validation` and `split.test`.

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
    assigned["group"] = assigned["image_id"]
    assigned["split"] = SPLIT_METHODS[method](assigned, validation, test, int(split["seed"]))
    counts = pd.crosstab(assigned["split"], assigned["label"]).reindex(SPLITS, fill_value=0)
    if (counts == 0).any(axis=None):
        raise BadInputError(
            "every class must be in train, validation and test; the split gave "
            f"{counts.to_dict('index')}. Add images, or raise split.validation and split.test."
        )
    logger.info("split %s", "; ".join(f"{s} {r}" for s, r in counts.to_dict("index").items()))
    identity = "\n".join(f"{r.image_id}\t{r.split}" for r in assigned.itertuples(index=False))
    tags = {
        "split_sha256": hashlib.sha256(identity.encode()).hexdigest(),
        "split_method": method,
    }
    totals = {name: int(n) for name, n in assigned["split"].value_counts().items()}
    summary = {name: row | {"all": totals[name]} for name, row in counts.to_dict("index").items()}
    return Split(assigned, {"split": summary}, tags)


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
    "random": _split_random,
}
