"""Metrics against counts done by hand."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    brier_score_loss,
    f1_score,
    log_loss,
    precision_score,
    recall_score,
    roc_auc_score,
)

from busi_pipeline.errors import BadInputError
from busi_pipeline.stats.classes import Classes
from busi_pipeline.stats.metrics import (
    brier_score,
    list_classification_denominators,
    mean_log_loss,
    score_classification,
    smoothed_log_loss,
)

MakeClasses = Callable[[str], Classes]

# Ten images; rows: true class, columns: predicted. benign 3 of 4, malignant 2 of 4, normal 2 of 2.
LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2, 2])
PREDICTED = np.array([0, 0, 0, 1, 1, 1, 0, 2, 2, 2])


@pytest.fixture
def probabilities() -> np.ndarray:
    return np.eye(3)[PREDICTED] * 0.7 + 0.1


def test_scores_are_the_hand_counted_ones(
    probabilities: np.ndarray, make_classes: MakeClasses
) -> None:
    scores = score_classification(LABELS, probabilities, make_classes("three"))
    assert (scores["images"], scores["correct"]) == (10, 7)
    assert scores["accuracy"] == pytest.approx(0.7)
    assert scores["balanced_accuracy"] == pytest.approx((3 / 4 + 2 / 4 + 1) / 3)
    malignant = scores["malignant"]
    assert malignant["sensitivity"] == pytest.approx(2 / 4)
    assert malignant["specificity"] == pytest.approx(5 / 6)
    assert malignant["precision"] == pytest.approx(2 / 3)
    assert malignant["f1"] == pytest.approx(2 * (2 / 3) * (1 / 2) / (2 / 3 + 1 / 2))
    counts = {"images": 4, "found": 2, "missed": 2, "false_alarms": 1}
    assert {name: malignant[name] for name in counts} == counts
    assert scores["loss"] == pytest.approx(-(7 * np.log(0.8) + 3 * np.log(0.1)) / 10)
    assert scores["positive"] == malignant


def test_positive_block_pools_the_positive_classes(make_classes: MakeClasses) -> None:
    """Confusing the two positive classes is no error here; finding either is."""
    classes = make_classes("four")  # normal, malignant, benign, suspicious
    labels = np.array([0, 1, 2, 3, 1, 3])
    probabilities = np.array(
        [
            [0.7, 0.1, 0.1, 0.1],
            [0.1, 0.3, 0.1, 0.5],  # malignant, called suspicious
            [0.1, 0.5, 0.3, 0.1],  # benign, called malignant
            [0.1, 0.1, 0.1, 0.7],
            [0.3, 0.25, 0.25, 0.2],  # malignant, called normal: its positive score is 0.45
            [0.15, 0.25, 0.2, 0.4],
        ]
    )
    scores = score_classification(labels, probabilities, classes)
    positive = scores["positive"]
    assert positive["sensitivity"] == pytest.approx(3 / 4)
    assert positive["specificity"] == pytest.approx(1 / 2)
    assert positive["precision"] == pytest.approx(3 / 4)
    assert (positive["found"], positive["missed"], positive["false_alarms"]) == (3, 1, 1)
    # Positive scores 0.8, 0.8, 0.45, 0.65 against 0.2 and 0.6: 7 of 8 pairs in order.
    assert positive["auc"] == pytest.approx(7 / 8)
    assert scores["malignant"]["sensitivity"] == 0
    assert scores["malignant"]["precision"] == 0


@pytest.mark.parametrize("kind", ["two", "three", "four", "odd"])
def test_averages_are_scikit_learns(
    make_classes: MakeClasses, kind: str, rng: np.random.Generator
) -> None:
    classes = make_classes(kind)
    labels = rng.integers(0, len(classes), 60)
    probabilities = rng.dirichlet(np.ones(len(classes)), size=60)
    predicted = probabilities.argmax(axis=1)
    scores = score_classification(labels, probabilities, classes)
    assert scores["macro_f1"] == pytest.approx(f1_score(labels, predicted, average="macro"))
    one_hot = np.eye(len(classes))[labels]
    assert scores["macro_auc"] == pytest.approx(roc_auc_score(one_hot, probabilities))
    assert scores["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, predicted))
    assert scores["loss"] == pytest.approx(log_loss(labels, probabilities))
    for i, name in enumerate(classes):
        one = scores[name]
        expected = average_precision_score(labels == i, probabilities[:, i])
        assert one["average_precision"] == pytest.approx(expected)
        expected = precision_score(labels == i, predicted == i, zero_division=0)
        assert one["precision"] == pytest.approx(expected)


def test_specificity_is_taken_at_nine_in_ten(make_classes: MakeClasses) -> None:
    malignant = np.array([0.05, *np.linspace(0.5, 0.9, 9), 0.6, 0.4, 0.3, 0.2])
    labels = np.array([1] * 10 + [0] * 4)
    scores = score_classification(
        labels, np.stack([1 - malignant, malignant], axis=1), make_classes("two")
    )
    assert scores["malignant"]["specificity_at_90_sensitivity"] == pytest.approx(3 / 4)


def test_scores_are_plain_numbers(probabilities: np.ndarray, make_classes: MakeClasses) -> None:
    scores = score_classification(LABELS, probabilities, make_classes("three"))
    values = [v for v in scores.values() if not isinstance(v, dict)]
    values += [v for inner in scores.values() if isinstance(inner, dict) for v in inner.values()]
    assert {type(value) for value in values} == {int, float}


@pytest.mark.filterwarnings("error")
def test_losses_are_scikit_learns_without_its_warning(rng: np.random.Generator) -> None:
    probabilities = rng.dirichlet(np.ones(3), size=40)
    labels = rng.integers(0, 3, 40)
    assert mean_log_loss(labels, probabilities) == pytest.approx(log_loss(labels, probabilities))
    expected = brier_score_loss(labels, probabilities, scale_by_half=False)
    assert brier_score(labels, probabilities) == pytest.approx(expected)
    rounded = probabilities.astype(np.float32).astype(float)
    assert mean_log_loss(labels, rounded) == pytest.approx(log_loss(labels, probabilities))
    assert np.isfinite(mean_log_loss(np.array([0]), np.array([[0.0, 1.0]])))


def test_smoothed_loss_spreads_a_share_of_the_label() -> None:
    """Keras: target (1 - 0.3) + 0.3 / 3 for the label, 0.3 / 3 for each other class."""
    probabilities = np.array([[0.7, 0.2, 0.1]])
    expected = -(0.8 * np.log(0.7) + 0.1 * np.log(0.2) + 0.1 * np.log(0.1))
    assert smoothed_log_loss(np.array([0]), probabilities, 0.3) == pytest.approx(expected)
    assert smoothed_log_loss(np.array([0]), probabilities, 0.0) == pytest.approx(-np.log(0.7))
    assert np.isfinite(smoothed_log_loss(np.array([0]), np.array([[0.0, 1.0]]), 0.1))


def test_absent_class_is_an_error(probabilities: np.ndarray, make_classes: MakeClasses) -> None:
    with pytest.raises(BadInputError, match="no image of class \\['normal'\\] among the 10"):
        score_classification(np.where(LABELS == 2, 0, LABELS), probabilities, make_classes("three"))


def test_the_bound_of_f1_is_nothing_where_both_are(make_classes: MakeClasses) -> None:
    classes = make_classes("three")
    rules = list_classification_denominators(LABELS, np.eye(3)[PREDICTED], classes)
    f1 = rules["malignant"]["f1"]
    assert f1.combine(0.0, 0.0) == 0
    assert f1.combine(0.5, 1.0) == pytest.approx(2 / 3)


@settings(deadline=None)
@given(
    st.integers(2, 5),
    st.integers(0, 40),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0, 1, 2]),
)
def test_whatever_is_scored_scikit_learn_says_the_same(
    count: int, more: int, seed: int, decimals: int
) -> None:
    """Few decimals make ties; labels have every class, and the first ones are of any shares."""
    rng = np.random.default_rng(seed)
    names = tuple(f"c{n}" for n in range(count))
    labels = np.concatenate([np.arange(count), rng.integers(0, count, more)])
    raw = np.round(rng.random((len(labels), count)), decimals) + 0.01
    probabilities = raw / raw.sum(axis=1, keepdims=True)
    predicted = probabilities.argmax(axis=1)
    scores = score_classification(labels, probabilities, Classes(names, names[1:2]))
    assert scores["accuracy"] == pytest.approx(accuracy_score(labels, predicted))
    assert scores["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, predicted))
    assert scores["macro_f1"] == pytest.approx(
        f1_score(labels, predicted, average="macro", labels=range(count), zero_division=0)
    )
    assert scores["loss"] == pytest.approx(log_loss(labels, probabilities, labels=range(count)))
    for n, name in enumerate(names):
        own, found, score = labels == n, predicted == n, probabilities[:, n]
        expected = {
            "sensitivity": recall_score(own, found),
            "specificity": recall_score(~own, ~found),
            "precision": precision_score(own, found, zero_division=0),
            "f1": f1_score(own, found, zero_division=0),
            "auc": roc_auc_score(own, score),
            "average_precision": average_precision_score(own, score),
        }
        assert {key: scores[name][key] for key in expected} == pytest.approx(expected)
    assert scores["positive"] == scores["c1"]
