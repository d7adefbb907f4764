"""Evaluation: scores per split, and plots that show the numbers they should."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from busi_pipeline.arrays import StoredArray
from busi_pipeline.metrics import score_classification
from busi_pipeline.pipelines.evaluation.nodes import predict_images, score_predictions
from busi_pipeline.pipelines.evaluation.plots import (
    draw_confusion_matrix,
    draw_learning_curves,
    draw_ranking_curves,
    draw_worst_mistakes,
)
from tests.conftest import CLASSES
from tests.test_metrics import LABELS, PREDICTED

SETTINGS: dict[str, Any] = {
    "title": "T",
    "published": {"accuracy": 0.5},
    "training": {"extraction_batch_size": 4},
}


@pytest.fixture
def predictions() -> pd.DataFrame:
    """Ten test images with seven right, and three validation images, all wrong."""
    table = pd.DataFrame(np.eye(3)[PREDICTED] * 0.7 + 0.1, columns=[f"p_{c}" for c in CLASSES])
    table.insert(0, "image_id", [f"{CLASSES[i]}/{n}" for n, i in enumerate(LABELS)])
    table.insert(1, "split", "test")
    table.insert(2, "label", np.array(CLASSES)[LABELS])
    table.insert(3, "predicted", np.array(CLASSES)[PREDICTED])
    validation = table.iloc[[0, 4, 8]].assign(split="validation", p_benign=0.0, p_malignant=0.0)
    validation["p_normal"] = 1.0
    validation["predicted"] = "normal"
    validation["image_id"] += "v"
    table = pd.concat([validation, table], ignore_index=True)
    return table.assign(correct=table["label"] == table["predicted"])


class Recorder:
    """A model that remembers what it was shown and predicts by brightness."""

    def __init__(self) -> None:
        self.shown: list[np.ndarray] = []

    def predict_on_batch(self, images: np.ndarray) -> np.ndarray:
        self.shown.append(images)
        assert images.dtype == np.uint8
        return np.eye(3, dtype=np.float32)[images[:, 0, 0, 0] % 3]


def test_validation_and_test_images_are_predicted_and_no_other() -> None:
    split = pd.DataFrame(
        {
            "image_id": list("abcdef"),
            "label": ["benign", "malignant", "normal"] * 2,
            "split": ["train", "test", "validation", "test", "train", "test"],
        }
    )
    pixels = np.arange(6, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    images = StoredArray(split[["image_id"]], pixels)
    model = Recorder()
    table = predict_images(model, images, split, SETTINGS, CLASSES)
    assert list(table["image_id"]) == ["b", "c", "d", "f"]
    assert np.concatenate(model.shown)[:, 0, 0, 0].tolist() == [1, 2, 3, 5]
    assert list(table["predicted"]) == ["malignant", "normal", "benign", "normal"]
    assert list(table["correct"]) == [True, True, True, True]


def test_splits_are_scored_apart(predictions: pd.DataFrame) -> None:
    scores = score_predictions(
        predictions,
        SETTINGS,
        {"training": {"seconds": {"total": 12.5}}},
        {"weights": "none"},
        {"split_sha256": "abc"},
        CLASSES,
    )
    test = predictions[predictions["split"] == "test"]
    expected = score_classification(LABELS, test[[f"p_{c}" for c in CLASSES]].to_numpy(), CLASSES)
    assert scores.metrics["test"] == expected
    assert scores.metrics["validation"]["correct"] == 1
    assert scores.metrics["training_seconds"] == 12.5
    assert scores.metrics["depends_on"] == {"split_sha256": "abc", "weights": "none"}
    assert scores.metrics["experiment"] == {"title": "T", "published": {"accuracy": 0.5}}
    table = scores.class_table.set_index("class")
    assert table.loc["malignant", "missed"] == 2
    assert list(table.index) == CLASSES


def test_confusion_matrix_shows_counts_and_row_shares(predictions: pd.DataFrame) -> None:
    figure = draw_confusion_matrix(predictions, SETTINGS, CLASSES)
    counts, shares = figure.axes
    assert [t.get_text() for t in counts.texts] == ["3", "1", "0", "1", "2", "1", "0", "0", "2"]
    assert [t.get_text() for t in shares.texts][3:6] == ["25.0 %", "50.0 %", "25.0 %"]
    assert "7 of 10" in figure.get_suptitle()
    assert [t.get_text() for t in counts.get_xticklabels()] == CLASSES
    assert counts.get_yticklabels()[1].get_text() == "malignant\n(4 images)"


def test_ranking_curves_name_classes_and_counts(predictions: pd.DataFrame) -> None:
    roc, recall = draw_ranking_curves(predictions, SETTINGS, CLASSES).axes
    labels = [text.get_text() for text in roc.get_legend().get_texts()]
    assert labels[1].startswith("malignant, 4 images (AUC 0.")
    assert len(labels) == 4
    assert "chance 0.40" in recall.get_legend().get_texts()[1].get_text()


def test_learning_curves_mark_the_epoch_kept() -> None:
    def curves(losses: list[float]) -> dict[str, list[float]]:
        return dict.fromkeys(("loss", "val_loss", "accuracy", "val_accuracy"), losses)

    figure = draw_learning_curves(
        {"head": curves([3, 1, 2]), "fine_tuning": curves([5, 4])}, SETTINGS
    )
    loss = figure.axes[0]
    dots = [line.get_xydata()[0].tolist() for line in loss.lines if line.get_marker() == "o"]
    assert dots == [[2, 1], [5, 4]]


def test_mistakes_show_missed_cancers_first(predictions: pd.DataFrame) -> None:
    images = StoredArray(predictions[["image_id"]], np.zeros((len(predictions), 8, 8, 3), np.uint8))
    figure = draw_worst_mistakes(predictions, images, SETTINGS, CLASSES)
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    assert titles == [
        "6\npredicted benign at 80 %",
        "7\npredicted normal at 80 %",
        "3\npredicted malignant at 80 %",
    ]
    assert "3 of 3 mistakes among 10" in figure.get_suptitle()
    assert "2 missed cancers" in figure.get_suptitle()
