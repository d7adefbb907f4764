"""Folds of a cross-validation: which image is tested in which, and the split that a fold makes."""

import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from busi_pipeline.config.schemas import CrossValidationSettings
from busi_pipeline.errors import BadInputError


class Fold(NamedTuple):
    """One training of a cross-validation; both count from 1."""

    repeat: int
    fold: int

    @property
    def name(self) -> str:
        """As in datasets, file names and child runs."""
        return f"repeat_{self.repeat}_fold_{self.fold}"

    @classmethod
    def parse(cls, name: str) -> "Fold":
        """Return the fold of this name."""
        _, repeat, _, fold = name.split("_")
        return cls(int(repeat), int(fold))


def list_folds(cross_validation: CrossValidationSettings) -> Iterator[Fold]:
    """Yield every fold of every repeat, repeat by repeat."""
    for repeat in range(1, cross_validation.repeats + 1):
        for fold in range(1, cross_validation.folds + 1):
            yield Fold(repeat, fold)


def name_repeat(repeat: int) -> str:
    """Return the column of the fold manifest that holds the folds of a repeat."""
    return f"repeat_{repeat}"


def assign_groups(images: pd.DataFrame, n_splits: int, seed: int) -> np.ndarray:
    """Return int (images,): the fold, from 0, that each image's group is assigned to.

    Args:
        images: `label` and `group`, one row an image.
        n_splits: at most as many as the largest class has images.
        seed: of the order in which groups are assigned; counted modulo 2**32.

    Raises BadInputError where there are too few images for so many folds.
    """
    # Seeds of repeats and folds are counted up from the user's, which may be the highest there is.
    random_state = seed % 2**32
    splitter = StratifiedGroupKFold(n_splits=n_splits, shuffle=True, random_state=random_state)
    assigned = np.empty(len(images), dtype=int)
    try:
        with warnings.catch_warnings():
            # A class smaller than the number of folds is not in each, and need not be.
            warnings.filterwarnings("ignore", message="The least populated class")
            folds = list(splitter.split(images, images["label"], images["group"]))
    except ValueError as error:
        raise BadInputError(
            f"too few images to split: {images['label'].value_counts().to_dict()} ({error})."
        ) from None
    for number, (_, rows) in enumerate(folds):
        assigned[rows] = number
    return assigned


def select_fold(
    fold_manifest: pd.DataFrame, fold: Fold, cross_validation: CrossValidationSettings
) -> pd.DataFrame:
    """Return the split that a fold makes: `image_id`, `path`, `label`, `group`, `split`.

    `test` is the fold. Of the rest, a share that comes next to `validation` of all images stops the
    training and chooses the operating point; it is assigned as the folds are.

    Raises BadInputError where the share leaves nothing to train on, or the manifest is of another
    number of folds or repeats.
    """
    column = name_repeat(fold.repeat)
    if column not in fold_manifest or fold_manifest[column].max() != cross_validation.folds:
        raise BadInputError(
            "the fold manifest is of another number of folds or repeats than the parameters "
            f"cross_validation.folds ({cross_validation.folds}) and repeats "
            f"({cross_validation.repeats}): run the pipeline without --only-missing-outputs or "
            "--from-nodes, which makes it anew."
        )
    images = fold_manifest[["image_id", "path", "label", "group", "cv_group"]].copy()
    is_test = fold_manifest[column] == fold.fold
    rest = images[~is_test]
    n_splits = round(len(rest) / (cross_validation.validation * len(images)))
    if n_splits < 2:
        raise BadInputError(
            f"cross_validation.validation of {cross_validation.validation} leaves nothing to "
            f"train on beside one of {cross_validation.folds} folds: take a smaller share."
        )
    seed = cross_validation.seed + 1000 * fold.repeat + fold.fold
    images["split"] = "test"
    is_validation = assign_cv_groups(rest, n_splits, seed) == 0
    images.loc[rest.index, "split"] = np.where(is_validation, "validation", "train")
    return images.drop(columns="cv_group")


def assign_cv_groups(images: pd.DataFrame, n_splits: int, seed: int) -> np.ndarray:
    """Return what `assign_groups` does of the groups in `cv_group`."""
    return assign_groups(
        images[["label"]].assign(group=images["cv_group"]), n_splits=n_splits, seed=seed
    )
