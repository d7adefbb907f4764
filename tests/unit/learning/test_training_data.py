"""Training data: rows, labels and class weights by position; nothing missing in silence."""

import numpy as np
import pandas as pd
import pytest

from busi_pipeline.caching.arrays import StoredArray
from busi_pipeline.errors import BadInputError
from busi_pipeline.imaging.affine import FLIPPED, ORIGINAL
from busi_pipeline.learning.training_data import (
    compute_class_weights,
    compute_site_weights,
    find_evaluation_rows,
    is_not_augmented,
    label_rows,
    measure_cross_entropy,
    prepare_training_data,
)
from busi_pipeline.stats.classes import Classes
from tests.evaluation_factories import CLASS_SETS
from tests.factories import CLASSES, make_settings, store_array

TRAINING, VALIDATION, TEST = ["a", "b", "c", "d"], ["e", "f"], ["g"]


@pytest.fixture
def features() -> StoredArray:
    """Two augmented rows of each training image; of all but the test images original and flip."""
    rows = [(image_id, number) for image_id in TRAINING for number in (1, 2)]
    rows += [(image_id, ORIGINAL) for image_id in TRAINING + VALIDATION]
    rows += [(image_id, FLIPPED) for image_id in TRAINING + VALIDATION]
    ids, augmentation = zip(*rows, strict=True)
    return store_array(ids, np.arange(len(rows))[:, None], augmentation=augmentation)


@pytest.fixture
def split() -> pd.DataFrame:
    """Out of the features' order."""
    return pd.DataFrame(
        {
            "image_id": ["c", "a", "f", "b", "g", "e", "d"],
            "label": ["normal", "malignant", "benign", "benign", "benign", "normal", "malignant"],
            "split": ["train", "train", "validation", "train", "test", "validation", "train"],
        }
    )


def test_class_weights_come_from_counts() -> None:
    labels = np.array([0] * 6 + [1] * 3 + [2])
    weights = compute_class_weights(labels, 3, "balanced")
    np.testing.assert_allclose(weights, [10 / 18, 10 / 9, 10 / 3])
    assert weights[labels].sum() == pytest.approx(len(labels))
    np.testing.assert_array_equal(compute_class_weights(labels, 3, "none"), [1, 1, 1])


@pytest.mark.parametrize("classes", CLASS_SETS, ids=len)
def test_weights_have_the_order_of_the_classes(classes: Classes) -> None:
    counts = np.arange(1, len(classes) + 1)
    ids = [f"{name}/{n}" for name, k in zip(classes, counts, strict=True) for n in range(k)]
    split = pd.DataFrame(
        {"image_id": [*ids, "v"], "label": [*(i.rsplit("/", 1)[0] for i in ids), classes.names[0]]}
    ).assign(split=["train"] * len(ids) + ["validation"])
    features = store_array([*ids, "v"], np.zeros((len(ids) + 1, 1)), augmentation=ORIGINAL)
    settings = make_settings(training={"label_smoothing": 0.25})
    data = prepare_training_data(features, split, settings, classes)
    np.testing.assert_allclose(data.class_weights, counts.sum() / (len(classes) * counts))
    assert data.label_smoothing == 0.25
    plain = settings.updated({"training": {"class_weights": "none"}})
    weights = prepare_training_data(features, split, plain, classes).class_weights
    assert weights.tolist() == [1.0] * len(classes)


def test_training_images_have_all_rows(features: StoredArray, split: pd.DataFrame) -> None:
    part = label_rows(features, split, "train", CLASSES)
    named = features.index["image_id"].to_numpy()[part.rows]
    assert [set(row) for row in named.tolist()] == [{"c"}, {"a"}, {"b"}, {"d"}]
    numbers = features.index["augmentation"].to_numpy()[part.rows]
    assert numbers.tolist() == [[1, 2, ORIGINAL, FLIPPED]] * 4
    assert part.labels.tolist() == [2, 1, 0, 1]


def test_other_images_have_their_original_first(features: StoredArray, split: pd.DataFrame) -> None:
    part = label_rows(features, split, "validation", CLASSES)
    index = features.index.iloc[part.rows.ravel()]
    assert index["image_id"].tolist() == ["f", "f", "e", "e"]
    assert index["augmentation"].tolist() == [ORIGINAL, FLIPPED] * 2
    assert part.labels.tolist() == [0, 2]


def test_labels_are_positions_in_the_order_of_the_classes(
    features: StoredArray, split: pd.DataFrame
) -> None:
    other = Classes(("normal", "benign", "malignant"), ("malignant",))
    assert label_rows(features, split, "train", other).labels.tolist() == [0, 2, 1, 2]


def test_training_data_are_of_both_parts(features: StoredArray, split: pd.DataFrame) -> None:
    data = prepare_training_data(features, split, make_settings(), CLASSES)
    for found, part in ((data.training, "train"), (data.validation, "validation")):
        expected = label_rows(features, split, part, CLASSES)
        np.testing.assert_array_equal(found.rows, expected.rows)
        np.testing.assert_array_equal(found.labels, expected.labels)


def test_originals_and_flips_are_not_augmented(features: StoredArray) -> None:
    rows = np.array([0, 8, 14, 1, 19])
    assert is_not_augmented(features, rows).tolist() == [False, True, True, False, True]


@pytest.mark.parametrize(
    ("moved", "message"),
    [
        ({"g": "train"}, r"1 train images have no features \('g' is the first\)"),
        ({"g": "validation"}, "1 validation images have no features"),
        ({"e": "test", "f": "test"}, "the split has no validation image"),
        ({"e": "train"}, r"1 train images have no features \('e' is the first\)"),
        ({"b": "test"}, "no training image is benign: every class needs some"),
        ({"b": "test", "c": "test"}, "no training image is benign or normal: every"),
    ],
)
def test_a_changed_split_is_refused(
    features: StoredArray, split: pd.DataFrame, moved: dict[str, str], message: str
) -> None:
    changed = split["image_id"].map(moved)
    split["split"] = changed.where(changed.notna(), split["split"])
    with pytest.raises(BadInputError, match=message) as caught:
        prepare_training_data(features, split, make_settings(), CLASSES)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("part", ["test", "validation"])
def test_a_training_image_in_another_part_is_refused(
    features: StoredArray, split: pd.DataFrame, part: str
) -> None:
    learned = split[split["split"] == "train"].iloc[[0]]
    overlapping = pd.concat([split, learned.assign(split=part)], ignore_index=True)
    with pytest.raises(BadInputError, match="has 1 images more than once, 'c' first"):
        prepare_training_data(features, overlapping, make_settings(), CLASSES)


def test_every_site_counts_the_same_in_each_class() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2])
    sites = pd.Series(["a", "a", "a", "b", "a", "b", "b", "a", "a"])
    weights = compute_site_weights(labels, sites)
    for label in (0, 1):
        of_site = [weights[(labels == label) & (sites == site)].sum() for site in "ab"]
        assert of_site[0] == pytest.approx(of_site[1])
        assert weights[labels == label].mean() == pytest.approx(1)
    assert weights[labels == 2].tolist() == [1, 1], "a site without the class has no say in it"


def test_validation_images_know_their_site_where_the_worst_one_decides(
    features: StoredArray, split: pd.DataFrame
) -> None:
    split = split.assign(site=["x" if n % 2 else "y" for n in range(len(split))])
    assert prepare_training_data(features, split, make_settings(), CLASSES).validation.sites is None
    worst = make_settings(training={"choose_by": "worst_site"})
    found = prepare_training_data(features, split, worst, CLASSES).validation.sites
    assert found is not None
    sites = split.loc[split["split"] == "validation", "site"]
    assert found.tolist() == [int(site == "y") for site in sites]


def test_the_worst_site_counts_alone() -> None:
    labels, sites = np.array([0, 0, 0, 1]), np.array([5, 5, 5, 9])
    probabilities = np.array([[0.9, 0.1]] * 3 + [[0.75, 0.25]])
    everything = measure_cross_entropy(labels, probabilities)
    assert everything == pytest.approx(-(3 * np.log(0.9) + np.log(0.25)) / 4)
    assert measure_cross_entropy(labels, probabilities, sites) == pytest.approx(-np.log(0.25))


def test_image_weights_are_of_class_and_site(features: StoredArray, split: pd.DataFrame) -> None:
    of_image = {"a": "benign", "b": "benign", "c": "benign"}
    split = split.assign(
        label=[of_image.get(image_id, "malignant") for image_id in split["image_id"]],
        site=["x" if image_id in "ab" else "y" for image_id in split["image_id"]],
    )
    two = Classes(("benign", "malignant"), ("malignant",))
    plain = prepare_training_data(features, split, make_settings(), two)
    balanced = make_settings(training={"site_weights": "balanced"})
    data = prepare_training_data(features, split, balanced, two)
    assert plain.site_weights is None
    np.testing.assert_array_equal(plain.image_weights, plain.class_weights[plain.training.labels])
    assert data.site_weights is not None
    # In the order of the split: c, a, b, d.
    np.testing.assert_allclose(data.site_weights, [1.5, 0.75, 0.75, 1.0])
    np.testing.assert_allclose(data.image_weights, plain.image_weights * data.site_weights)


def test_evaluation_rows_are_original_and_flip(features: StoredArray) -> None:
    wanted = pd.Series(["f", "a"])
    assert find_evaluation_rows(features, wanted, flip=True).tolist() == [[13, 19], [8, 14]]
    assert find_evaluation_rows(features, wanted, flip=False).tolist() == [[13], [8]]


@pytest.mark.parametrize("flip", [True, False])
def test_evaluation_rows_are_those_of_every_window(flip: bool) -> None:
    numbers = [ORIGINAL, FLIPPED, -2, -3, 1] if flip else [ORIGINAL, -2, 1]
    features = store_array(["a"] * len(numbers), np.zeros((len(numbers), 1)), augmentation=numbers)
    rows = find_evaluation_rows(features, pd.Series(["a"]), flip=flip)
    assert rows.tolist() == [list(range(len(numbers) - 1))]
    assert find_evaluation_rows(features, pd.Series(["a"]), flip=False).shape == (1, 2)


def test_the_first_row_of_all_can_be_evaluated() -> None:
    features = store_array(["a", "b"], np.zeros((2, 1)), augmentation=ORIGINAL)
    assert find_evaluation_rows(features, pd.Series(["b", "a"]), flip=False).tolist() == [[1], [0]]


def test_an_evaluated_image_without_features_is_refused(features: StoredArray) -> None:
    """It was predicted from the last row, whichever image that is of."""
    with pytest.raises(BadInputError, match=r"1 evaluated images have no features \('g' is"):
        find_evaluation_rows(features, pd.Series(["e", "g"]), flip=False)


def test_features_without_flips_are_refused_where_needed(features: StoredArray) -> None:
    chosen = np.flatnonzero(features.index["augmentation"] != FLIPPED)
    index = features.index.iloc[chosen]
    plain = store_array(
        index["image_id"].tolist(),
        features.values[chosen],
        augmentation=index["augmentation"].tolist(),
    )
    assert find_evaluation_rows(plain, pd.Series(["e"]), flip=False).shape == (1, 1)
    with pytest.raises(BadInputError, match="the settings changed since"):
        find_evaluation_rows(plain, pd.Series(["e"]), flip=True)
