"""Folds of a cross-validation: which image is tested in which, and the split that a fold makes."""

import hashlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from busi_pipeline.config.schemas import CrossValidationSettings
from busi_pipeline.errors import BadInputError

# Orders in which groups are assigned, where a class is missing in a part.
_ATTEMPTS = 5


class Fold(NamedTuple):
    """One training of a cross-validation; both count from 1."""

    repeat: int
    fold: int

    @property
    def name(self) -> str:
        """As in datasets, file names and child runs."""
        return f"repeat_{self.repeat}_fold_{self.fold}"


class SiteFold(NamedTuple):
    """A training that leaves a site out, or keeps to one; `fold` counts from 1, as `Fold`'s.

    Attributes:
        fold: number of the training.
        site: that is tested.
        part: 0: the whole site is tested, by a model that learned from the others. Else the fold of
            the cross-validation that is tested, by a model that learned from the site itself.
    """

    fold: int
    site: str
    part: int = 0

    @property
    def repeat(self) -> int:
        """There is one."""
        return 1

    @property
    def name(self) -> str:
        """As in datasets, file names and child runs."""
        return f"{self.site}_fold_{self.part}" if self.part else self.site


def list_site_folds(sites: Sequence[str]) -> list[SiteFold]:
    """Return one training a site, which leaves it out."""
    return [SiteFold(number, site) for number, site in enumerate(sites, 1)]


def list_within_site_folds(sites: Sequence[str], folds: int) -> list[SiteFold]:
    """Return the trainings of a cross-validation within each site."""
    pairs = enumerate(product(sites, range(1, folds + 1)), 1)
    return [SiteFold(number, site, part) for number, (site, part) in pairs]


def list_folds(cross_validation: CrossValidationSettings) -> Iterator[Fold]:
    """Yield every fold of every repeat, repeat by repeat."""
    for repeat in range(1, cross_validation.repeats + 1):
        for fold in range(1, cross_validation.folds + 1):
            yield Fold(repeat, fold)


def name_repeat(repeat: int) -> str:
    """Return the column of the fold manifest that holds the folds of a repeat."""
    return f"repeat_{repeat}"


def select_parts(division: pd.DataFrame, *parts: str) -> pd.DataFrame:
    """Return the images of these parts of a split; of folds, which name no part, all."""
    return division[division["split"].isin(parts)] if "split" in division else division


def join_tables(**tables: pd.DataFrame) -> pd.DataFrame:
    """Return the tables of all folds, or of all experiments, in one, in order."""
    return pd.concat(list(tables.values()), ignore_index=True)


def hash_images(manifest: pd.DataFrame) -> str:
    """Return the SHA-256 over id, label and bytes of every image of a manifest."""
    identity = "\n".join(
        f"{r.image_id}\t{r.label}\t{r.byte_sha256}" for r in manifest.itertuples(index=False)
    )
    return hashlib.sha256(identity.encode()).hexdigest()


def share_tags(tags: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Return the tags that all trainings have, with the same value; of `weights`, all there are."""
    first, *others = tags
    shared = {k: v for k, v in first.items() if all(other.get(k) == v for other in others)}
    weights = sorted({own["weights"] for own in tags if "weights" in own})
    return shared | ({"weights": " and ".join(weights)} if weights else {})


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


def assign_parts(
    images: pd.DataFrame, shares: Mapping[str, float], most: int, seed: int
) -> np.ndarray:
    """Return str (images,): the part that each image's group is in, with every class in each.

    `assign_groups` makes `most` folds, or as many as there are groups of the rarest class. Each
    part takes folds that come next to its share, `train` the others. Where a class is missing in a
    part, other orders and fewer folds are tried.

    Args:
        images: `label` and `group`, one row an image.
        shares: {part: share of the images} of all parts but `train`.
        most: folds.
        seed: see `assign_groups`.

    Raises BadInputError where there are too few groups for that.
    """
    groups = images.groupby("label")["group"].nunique()
    parts = [*shares, "train"]
    tried = product(range(min(most, int(groups.min())), len(shares), -1), range(_ATTEMPTS))
    for n_splits, attempt in tried:
        fold = assign_groups(images, n_splits, seed + attempt)
        sizes = np.bincount(fold, minlength=n_splits)
        left = list(range(n_splits))
        part = np.full(len(images), "train", dtype=object)
        for (name, share), count in zip(
            shares.items(), _count_folds(list(shares.values()), n_splits), strict=True
        ):
            # Many folds are of like size, and their order is random. Few are not.
            is_like = n_splits == most
            taken = left[:count] if is_like else _take_nearest(sizes, left, share, count)
            part[np.isin(fold, taken)] = name
            left = [number for number in left if number not in taken]
        if (pd.crosstab(images["label"].to_numpy(), part).reindex(columns=parts) > 0).all(
            axis=None
        ):
            return part
    raise BadInputError(
        f"{', '.join(parts)} must each have images of every class, and no two of them may share a "
        f"group (a patient, or duplicates of one scan): so each class needs at least {len(parts)} "
        f"groups, and not the same ones as another class; there are {groups.to_dict()}. Add images "
        "of other patients, or leave out the class."
    )


def _count_folds(shares: list[float], n_splits: int) -> list[int]:
    """Return how many folds come next to each share, at least one, and leave one for the rest."""
    counts = [max(1, round(share * n_splits)) for share in shares]
    while sum(counts) >= n_splits:
        counts[counts.index(max(counts))] -= 1
    return counts


def _take_nearest(sizes: np.ndarray, left: list[int], share: float, count: int) -> list[int]:
    """Return up to `count` of the folds in `left`, whose images come nearest to the share.

    Where one fold more is as near, it is taken: a small part is measured badly.
    """
    wanted = share * sizes.sum()
    taken: list[int] = []
    for _ in range(count):
        best = min(
            (n for n in left if n not in taken),
            key=lambda n: abs(sizes[[*taken, n]].sum() - wanted),
        )
        if taken and abs(sizes[[*taken, best]].sum() - wanted) > abs(sizes[taken].sum() - wanted):
            break
        taken.append(best)
    return taken


def select_fold(
    fold_manifest: pd.DataFrame, fold: Fold, cross_validation: CrossValidationSettings
) -> pd.DataFrame:
    """Return the split that a fold makes: `image_id`, `path`, `label`, `group`, `split`.

    `test` is the fold. Of the rest, a share that comes next to `validation` of all images stops the
    training and chooses the operating point; it is assigned as the folds are.

    Raises BadInputError where the share leaves nothing to train on, where the rest has too few
    groups of a class, or the manifest is of another number of folds or repeats.
    """
    _check_fold_manifest(fold_manifest, fold.repeat, cross_validation)
    is_test = fold_manifest[name_repeat(fold.repeat)] == fold.fold
    seed = cross_validation.seed + 1000 * fold.repeat + fold.fold
    share = cross_validation.validation * len(fold_manifest) / max(1, (~is_test).sum())
    return _split_rest(fold_manifest, is_test, share, seed, fold.name)


def select_site_fold(
    fold_manifest: pd.DataFrame, fold: SiteFold, cross_validation: CrossValidationSettings
) -> pd.DataFrame:
    """Return the split of a training that leaves a site out, or keeps to it; see `select_fold`.

    A group of images that lies in the site and outside it is in no part of a training that leaves
    the site out, but in the test.

    Raises BadInputError where a site lacks a class: a model could tell sites apart by it.
    """
    _check_fold_manifest(fold_manifest, 1, cross_validation)
    of_site = fold_manifest["site"] == fold.site
    if not of_site.any():
        raise BadInputError(
            f"there is no image of site {fold.site}, but of "
            f"{', '.join(sorted(fold_manifest['site'].unique()))}: give each site an entry in "
            "`sites` and name it in ingestion.sites."
        )
    found = pd.crosstab(fold_manifest["site"], fold_manifest["label"])
    if (found == 0).any(axis=None):
        site, label = found.index[(found == 0).any(axis=1)][0], found.columns[(found == 0).any()][0]
        raise BadInputError(
            f"site {site} has no image of class {label}: with such sites a model learns the site. "
            "Set `classes` to those that all sites have."
        )
    if fold.part:
        images, is_test = fold_manifest[of_site], fold_manifest[name_repeat(1)] == fold.part
    else:
        shared = fold_manifest["group"].isin(fold_manifest.loc[of_site, "group"])
        images, is_test = fold_manifest[of_site | ~shared], of_site
    images, is_test = images.reset_index(drop=True), is_test[images.index].reset_index(drop=True)
    seed = cross_validation.seed + 100_000 + 1000 * fold.part + fold.fold
    share = cross_validation.validation / (1 - 1 / cross_validation.folds)
    return _split_rest(images, is_test, share, seed, fold.name)


def _check_fold_manifest(
    fold_manifest: pd.DataFrame, repeat: int, cross_validation: CrossValidationSettings
) -> None:
    column = name_repeat(repeat)
    if column not in fold_manifest or fold_manifest[column].max() != cross_validation.folds:
        raise BadInputError(
            "the fold manifest is of another number of folds or repeats than the parameters "
            f"cross_validation.folds ({cross_validation.folds}) and repeats "
            f"({cross_validation.repeats}): run the pipeline without --only-missing-outputs or "
            "--from-nodes, which makes it anew."
        )


def _split_rest(
    fold_manifest: pd.DataFrame,
    is_test: pd.Series,
    share: float,
    seed: int,
    name: str,
) -> pd.DataFrame:
    """Return the split, with this share of the rest as validation images."""
    kept = ["image_id", "path", "label", "group", "site", "cv_group"]
    images = fold_manifest.filter(items=kept).copy()
    rest = images[~is_test]
    if round(1 / share) < 2:
        raise BadInputError(
            f"cross_validation.validation leaves nothing to train on beside the test images of "
            f"{name}: take a smaller share."
        )
    grouped = rest[["label"]].assign(group=rest["cv_group"])
    images["split"] = "test"
    try:
        images.loc[rest.index, "split"] = assign_parts(
            grouped, {"validation": share}, round(1 / share), seed
        )
    except BadInputError as error:
        raise BadInputError(f"{name}, without its test images: {error}") from None
    return images.drop(columns="cv_group")


def assign_cv_groups(images: pd.DataFrame, n_splits: int, seed: int) -> np.ndarray:
    """Return what `assign_groups` does of the groups in `cv_group`."""
    return assign_groups(
        images[["label"]].assign(group=images["cv_group"]), n_splits=n_splits, seed=seed
    )
