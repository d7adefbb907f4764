"""Which features belong to which images, what their labels are, and how much each class weighs."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.metrics import log_loss
from sklearn.utils.class_weight import compute_class_weight

from busi_pipeline.caching.arrays import StoredArray
from busi_pipeline.config.schemas import ExperimentSettings
from busi_pipeline.errors import BadInputError
from busi_pipeline.imaging.affine import ORIGINAL, list_evaluated
from busi_pipeline.stats.classes import Classes


class LabelledRows(NamedTuple):
    """Features of labelled images.

    Attributes:
        rows: int (images, augmentations), the rows of each image in the features.
        labels: int (images,), class positions.
        sites: int (images,), the site of each, where the worst one decides; else None.
    """

    rows: np.ndarray
    labels: np.ndarray
    sites: np.ndarray | None = None


class TrainingData(NamedTuple):
    """What is learned, and by which loss.

    Attributes:
        training, validation: of validation images, the first row is evaluated.
        class_weights: float (classes,), of the training images in the loss.
        label_smoothing: of the cross-entropy, in training and validation loss alike.
        site_weights: float (training images,), by which these are multiplied so that every site
            counts the same in each class; None where it need not.
    """

    training: LabelledRows
    validation: LabelledRows
    class_weights: np.ndarray
    label_smoothing: float
    site_weights: np.ndarray | None = None

    @property
    def image_weights(self) -> np.ndarray:
        """Float (training images,), of each in the loss."""
        weights = self.class_weights[self.training.labels]
        return weights if self.site_weights is None else weights * self.site_weights


def measure_cross_entropy(
    labels: np.ndarray, probabilities: np.ndarray, sites: np.ndarray | None = None
) -> float:
    """Return the mean cross-entropy; where sites are given, that of the site with the highest.

    Args:
        labels: int (images,), class positions.
        probabilities: float (images, classes).
        sites: int (images,), or None.
    """
    positions = list(range(probabilities.shape[1]))
    parts = [np.ones(len(labels), bool)]
    if sites is not None:
        parts = [sites == site for site in np.unique(sites)]
    return max(
        float(log_loss(labels[part], probabilities[part], labels=positions)) for part in parts
    )


def compute_class_weights(labels: np.ndarray, classes: int, method: str) -> np.ndarray:
    """Return float64 (classes,), the weight of each class by its share of the training labels.

    "balanced" is n / (classes * n_class), so that every class weighs the same in the loss; "none"
    is 1 each. Weights are looked up by position, never by name: Keras ignores a `class_weight`
    dictionary with string keys without a word.
    """
    if method == "none":
        return np.ones(classes)
    return compute_class_weight("balanced", classes=np.arange(classes), y=labels)


def compute_site_weights(labels: np.ndarray, sites: pd.Series) -> np.ndarray:
    """Return float64 (images,): every site of a class counts the same in it, and the mean is 1.

    A site that lacks a class has no say in it, so that no site is learned by its classes alone.

    Args:
        labels: int (images,), class positions.
        sites: of each image.
    """
    site = sites.to_numpy()
    weights = np.empty(len(labels))
    for label in np.unique(labels):
        of_class = labels == label
        present, counts = np.unique(site[of_class], return_counts=True)
        shares = of_class.sum() / (len(present) * counts)
        weights[of_class] = shares[np.searchsorted(present, site[of_class])]
    return weights


def prepare_training_data(
    features: StoredArray, split: pd.DataFrame, settings: ExperimentSettings, classes: Classes
) -> TrainingData:
    """Return what is learned from the training images and evaluated on the validation images.

    Raises BadInputError where an image is in the split twice or has no features, a class has no
    training image, or the split no validation image.
    """
    twice = split.loc[split["image_id"].duplicated(), "image_id"].unique()
    if len(twice):
        raise BadInputError(
            f"the split has {len(twice)} images more than once, {twice[0]!r} first: an image that "
            "is learned from tests nothing. Run the pipeline `splitting` again."
        )
    training = label_rows(features, split, "train", classes)
    validation = label_rows(features, split, "validation", classes)
    absent = [name for position, name in enumerate(classes) if position not in training.labels]
    if absent:
        raise BadInputError(
            f"no training image is {' or '.join(absent)}: every class needs some to be learned. "
            "Add images or patient groups of the class, or take another split.seed or fewer folds."
        )
    weights = compute_class_weights(training.labels, len(classes), settings.training.class_weights)
    if settings.training.choose_by == "worst_site":
        of_image = split.loc[split["split"] == "validation", "site"].astype(str)
        validation = validation._replace(sites=np.unique(of_image, return_inverse=True)[1])
    site_weights = None
    if settings.training.site_weights == "balanced":
        sites = split.loc[split["split"] == "train", "site"].astype(str)
        site_weights = compute_site_weights(training.labels, sites)
    return TrainingData(
        training, validation, weights, settings.training.label_smoothing, site_weights
    )


def label_rows(
    features: StoredArray, split: pd.DataFrame, part: str, classes: Classes
) -> LabelledRows:
    """Return the rows of each image of a part of the split, with its label's position.

    Of training images these are all rows, of others those not augmented, the original first.

    Raises BadInputError where an image of the split has no features, or not all of them.
    """
    images = split[split["split"] == part]
    if images.empty:
        raise BadInputError(f"the split has no {part} image: run the whole pipeline again.")
    wanted = np.arange(len(features.index))
    if part != "train":
        wanted = wanted[is_not_augmented(features, wanted)]
    places = features.index.iloc[wanted].groupby("image_id", sort=False).indices
    rows_of = {image_id: wanted[rows] for image_id, rows in places.items()}
    counts = np.array([len(rows_of.get(image_id, ())) for image_id in images["image_id"]])
    _refuse_missing(images["image_id"], np.less(counts, max(1, counts.max())), f"{part} images")
    rows = np.stack([rows_of[image_id] for image_id in images["image_id"]])
    return LabelledRows(rows, classes.positions(images["label"]))


def _refuse_missing(image_ids: pd.Series, is_missing: np.ndarray, what: str) -> None:
    """Raise BadInputError where features of images are missing."""
    if is_missing.any():
        raise BadInputError(
            f"{is_missing.sum()} {what} have no features ({image_ids[is_missing].iloc[0]!r} is the "
            "first): the split or the settings changed since. Run the whole pipeline again, "
            "without --from-nodes."
        )


def is_not_augmented(features: StoredArray, rows: np.ndarray) -> np.ndarray:
    """Return bool, as many as rows: whether a row is of an original or its horizontal flip."""
    return features.index["augmentation"].to_numpy()[rows] <= ORIGINAL


def find_evaluation_rows(features: StoredArray, image_ids: pd.Series, flip: bool) -> np.ndarray:
    """Return int (images, rows): the row of the original, and with `flip` of its flip, window by
    window.

    Raises BadInputError where an image has no such row.
    """
    places = pd.MultiIndex.from_frame(features.index[["image_id", "augmentation"]])
    lowest = min(0, int(features.index["augmentation"].min()))
    wanted = [
        number
        for window in range(1 - (lowest + 1) // 2)
        for number in list_evaluated(window)[: 2 if flip else 1]
    ]
    rows = np.stack(
        [
            places.get_indexer(pd.MultiIndex.from_product([image_ids, [number]])).astype(np.int64)
            for number in wanted
        ],
        axis=1,
    )
    _refuse_missing(image_ids, np.asarray((rows < 0).any(axis=1)), "evaluated images")
    return rows
