"""Metrics against counts done by hand."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score, roc_auc_score

from busi_pipeline.metrics import score_classification, smoothed_log_loss
from tests.conftest import CLASSES

# Ten images; rows: true class, columns: predicted. benign 3 of 4, malignant 2 of 4, normal 2 of 2.
LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2, 2])
PREDICTED = np.array([0, 0, 0, 1, 1, 1, 0, 2, 2, 2])


@pytest.fixture
def probabilities() -> np.ndarray:
    return np.eye(3)[PREDICTED] * 0.7 + 0.1


def test_scores_are_the_hand_counted_ones(probabilities: np.ndarray) -> None:
    scores = score_classification(LABELS, probabilities, CLASSES)
    assert (scores["images"], scores["correct"]) == (10, 7)
    assert scores["accuracy"] == pytest.approx(0.7)
    assert scores["balanced_accuracy"] == pytest.approx((3 / 4 + 2 / 4 + 1) / 3)
    malignant = scores["malignant"]
    assert malignant["sensitivity"] == pytest.approx(2 / 4)
    assert malignant["specificity"] == pytest.approx(5 / 6)
    assert malignant["precision"] == pytest.approx(2 / 3)
    assert malignant["f1"] == pytest.approx(2 * (2 / 3) * (1 / 2) / (2 / 3 + 1 / 2))
    assert (malignant["found"], malignant["missed"], malignant["false_alarms"]) == (2, 2, 1)
    assert scores["loss"] == pytest.approx(-(7 * np.log(0.8) + 3 * np.log(0.1)) / 10)


def test_auc_is_the_share_of_pairs_in_order() -> None:
    labels = np.array([0, 1, 1, 2])
    malignant = np.array([0.3, 0.2, 0.6, 0.1])
    rest = (1 - malignant) / 2
    scores = score_classification(labels, np.stack([rest, malignant, rest], axis=1), CLASSES)
    # Pairs of (malignant, other): 0.2 beats 0.1 and not 0.3; 0.6 beats both.
    assert scores["malignant"]["auc"] == pytest.approx(3 / 4)


def test_averages_are_scikit_learns(rng: np.random.Generator) -> None:
    labels = rng.integers(0, 3, 60)
    probabilities = rng.dirichlet(np.ones(3), size=60)
    predicted = probabilities.argmax(axis=1)
    scores = score_classification(labels, probabilities, CLASSES)
    assert scores["macro_f1"] == pytest.approx(f1_score(labels, predicted, average="macro"))
    assert scores["macro_auc"] == pytest.approx(
        roc_auc_score(labels, probabilities, multi_class="ovr")
    )
    assert scores["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, predicted))


def test_smoothed_loss_is_keras_own(rng: np.random.Generator) -> None:
    import keras

    probabilities = rng.dirichlet(np.ones(3), size=20)
    labels = rng.integers(0, 3, 20)
    expected = keras.losses.CategoricalCrossentropy(label_smoothing=0.1)(
        np.eye(3)[labels], probabilities
    )
    assert smoothed_log_loss(labels, probabilities, 0.1) == pytest.approx(float(expected), rel=1e-5)


def test_absent_class_is_an_error(probabilities: np.ndarray) -> None:
    with pytest.raises(ValueError, match="no image of class \\['normal'\\]"):
        score_classification(np.where(LABELS == 2, 0, LABELS), probabilities, CLASSES)
