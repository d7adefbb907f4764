"""Evaluation: scores per split, and plots that show the numbers they should."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from busi_pipeline.caching.arrays import StoredArray
from busi_pipeline.errors import BadInputError
from busi_pipeline.stats.scoring import score_predictions_with_intervals
from busi_pipeline.stats.metrics import score_classification
from busi_pipeline.pipelines.evaluation.decision_plots import plot_calibration, plot_decision_curve
from busi_pipeline.pipelines.evaluation.nodes import (
    judge_predictions,
    predict_images,
    score_predictions,
)
from busi_pipeline.pipelines.evaluation.plots import (
    plot_confusion_matrix,
    plot_learning_curves,
    plot_roc_pr_curves,
    plot_misclassified,
)
from tests.conftest import CLASSES
from tests.test_metrics import LABELS, PREDICTED

JUDGING = {
    "target_sensitivity": 0.95,
    "threshold_rule": "conformal",
    "prevalence": 0.05,
    "n_resamples": 40,
    "seed": 1,
}
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
            "group": list("aacdef"),
        }
    )
    pixels = np.arange(6, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    images = StoredArray(split[["image_id"]], pixels)
    model = Recorder()
    table = predict_images(model, images, split, SETTINGS, CLASSES)
    assert list(table["image_id"]) == ["b", "c", "d", "f"]
    assert np.concatenate(model.shown)[:, 0, 0, 0].tolist() == [1, 2, 3, 5]
    assert list(table["group"]) == ["a", "c", "d", "f"]
    raw = table[[f"raw_{name}" for name in CLASSES]].to_numpy()
    assert [CLASSES[i] for i in raw.argmax(axis=1)] == ["malignant", "normal", "benign", "normal"]


@pytest.fixture
def judged(rng: np.random.Generator) -> pd.DataFrame:
    """Sixty validation and sixty test images, as evaluation judges them; pairs share a group."""
    labels = np.tile(np.repeat([0, 1, 2], [10, 6, 4]), 6)
    raw = np.exp(2 * np.eye(3)[labels] + rng.normal(size=(120, 3)) * 2)
    table = pd.DataFrame(raw / raw.sum(1, keepdims=True), columns=[f"raw_{c}" for c in CLASSES])
    table.insert(0, "image_id", [str(i) for i in range(120)])
    table.insert(1, "group", [str(i // 2) for i in range(120)])
    table.insert(2, "split", np.repeat(["validation", "test"], 60))
    table.insert(3, "label", np.array(CLASSES)[labels])
    return table


def test_only_validation_images_decide(judged: pd.DataFrame) -> None:
    evaluation = JUDGING | {"threshold_rule": "empirical"}
    predictions, record = judge_predictions(judged, evaluation, CLASSES)
    decision = record["decision"]
    swapped = judged.copy()
    of_test = swapped["split"] == "test"
    swapped.loc[of_test, "label"] = "normal"
    assert judge_predictions(swapped, evaluation, CLASSES).decision == record
    validation = predictions[predictions["split"] == "validation"]
    cancers = validation[validation["label"] == "malignant"]
    assert cancers["flagged"].mean() >= 0.95
    higher = cancers.loc[cancers["p_malignant"] > decision["threshold"], "p_malignant"]
    assert (cancers["p_malignant"] >= higher.min()).mean() < 0.95, "a higher one would do"
    assert decision["temperature"] > 1.1, "these probabilities boast"
    assert (predictions["flagged"] == (predictions["p_malignant"] >= decision["threshold"])).all()
    likeliest = predictions[[f"p_{c}" for c in CLASSES]].to_numpy().argmax(axis=1)
    assert predictions["predicted"].tolist() == [CLASSES[i] for i in likeliest]
    assert (predictions["correct"] == (predictions["predicted"] == predictions["label"])).all()


def test_a_sensitivity_that_cannot_be_promised_is_said(
    judged: pd.DataFrame, caplog: pytest.LogCaptureFixture
) -> None:
    validation = judged["split"] == "validation"
    evaluation = JUDGING | {"target_sensitivity": 0.9}
    _, many = judge_predictions(judged, evaluation, CLASSES)
    assert many["decision"]["expected_sensitivity"] >= 0.9
    assert "too few cancers" not in caplog.text
    few = judged.drop(index=judged[validation & (judged["label"] == "malignant")].index[5:])
    _, record = judge_predictions(few, evaluation, CLASSES)
    assert record["decision"]["expected_sensitivity"] == pytest.approx(5 / 6)
    assert "too few cancers (5) to promise a sensitivity of 0.9" in caplog.text
    assert record["decision"]["threshold_rule"] == "conformal"


def test_the_rule_of_the_threshold_is_one_that_is_known(judged: pd.DataFrame) -> None:
    with pytest.raises(BadInputError, match=r"threshold_rule must be one of .*got 'best'"):
        judge_predictions(judged, JUDGING | {"threshold_rule": "best"}, CLASSES)


def test_splits_are_scored_apart_and_every_share_has_its_interval(judged: pd.DataFrame) -> None:
    predictions, _ = judge_predictions(judged, JUDGING, CLASSES)
    scores = score_predictions(
        predictions,
        SETTINGS,
        {"training": {"seconds": {"total": 12.5}}},
        {"weights": "none"},
        {"split_sha256": "abc"},
        JUDGING,
        CLASSES,
    )
    test = predictions[predictions["split"] == "test"]
    expected = score_classification(
        test["label"].map(CLASSES.index).to_numpy(),
        test[[f"p_{c}" for c in CLASSES]].to_numpy(),
        CLASSES,
    )
    found = scores.metrics["test"]
    assert {k: v for k, v in found["malignant"].items() if "_ci_" not in k} == expected["malignant"]
    assert found["accuracy"] == expected["accuracy"]
    assert (
        found["decision"]["missed_cancers"]
        == ((test["label"] == "malignant") & ~test["flagged"]).sum()
    )
    calibration = scores.metrics["validation"]["calibration"]
    assert calibration["calibrated"]["brier"] < calibration["raw"]["brier"]
    assert scores.metrics["validation"]["loss"] != found["loss"]
    assert_intervals(found)
    assert scores.metrics["training_seconds"] == 12.5
    assert scores.metrics["depends_on"] == {"split_sha256": "abc", "weights": "none"}
    assert scores.metrics["experiment"] == {"title": "T", "published": {"accuracy": 0.5}}
    table = scores.per_class_metrics.set_index("class")
    assert table.loc["malignant", "missed"] == expected["malignant"]["missed"]
    assert list(table.index) == CLASSES


def assert_intervals(scores: dict[str, Any]) -> None:
    """Every share lies in its interval, in every nesting; counts have none."""
    for name, value in scores.items():
        if isinstance(value, dict):
            assert_intervals(value)
        elif isinstance(value, float) and "_ci_" not in name:
            assert scores[f"{name}_ci_low"] <= value <= scores[f"{name}_ci_high"], name
        elif isinstance(value, int):
            assert f"{name}_ci_low" not in scores


def test_confusion_matrix_shows_counts_and_row_shares(predictions: pd.DataFrame) -> None:
    figure = plot_confusion_matrix(predictions, SETTINGS, CLASSES)
    counts, shares = figure.axes
    assert [t.get_text() for t in counts.texts] == ["3", "1", "0", "1", "2", "1", "0", "0", "2"]
    assert [t.get_text() for t in shares.texts][3:6] == ["25.0 %", "50.0 %", "25.0 %"]
    assert "7 of 10" in figure.get_suptitle()
    assert [t.get_text() for t in counts.get_xticklabels()] == CLASSES
    assert counts.get_yticklabels()[1].get_text() == "malignant\n(4 images)"


@pytest.fixture
def scored(judged: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, Any], dict[str, Any]]:
    """Judged predictions, the decision, and metrics of both splits."""
    predictions, decision = judge_predictions(judged, JUDGING, CLASSES)
    metrics = {
        split: score_predictions_with_intervals(table, CLASSES, JUDGING)
        for split, table in predictions.groupby("split")
    }
    return predictions, decision, metrics


def read_legend(axis: Any) -> list[str]:
    return [text.get_text() for text in axis.get_legend().get_texts()]


def test_ranking_curves_name_classes_counts_and_intervals(
    scored: tuple[pd.DataFrame, dict[str, Any], dict[str, Any]],
) -> None:
    predictions, _, metrics = scored
    roc, recall = plot_roc_pr_curves(predictions, metrics, SETTINGS, CLASSES).axes
    malignant = metrics["test"]["malignant"]
    assert read_legend(roc)[1] == (
        f"malignant, 18 images: AUC {malignant['auc']:.3f} "
        f"({malignant['auc_ci_low']:.3f} to {malignant['auc_ci_high']:.3f})"
    )
    assert len(read_legend(roc)) == 4
    assert "chance 0.30" in read_legend(recall)[1]


def test_calibration_plot_shows_both_and_their_errors(
    scored: tuple[pd.DataFrame, dict[str, Any], dict[str, Any]],
) -> None:
    predictions, _, metrics = scored
    sure, cancer = plot_calibration(predictions, metrics, SETTINGS, CLASSES).axes
    errors = metrics["test"]["calibration"]
    assert [
        f"{errors[kind]['error']:.3f}" in read_legend(sure)[i]
        for i, kind in enumerate(("raw", "calibrated"))
    ] == [True, True]
    drawn = cancer.collections[1].get_offsets()
    test = predictions[predictions["split"] == "test"]
    tenth = test[(test["p_malignant"] * 10).astype(int) == 0]
    np.testing.assert_allclose(
        drawn[0], [tenth["p_malignant"].mean(), (tenth["label"] == "malignant").mean()]
    )


def test_decision_plot_counts_what_the_threshold_costs(
    scored: tuple[pd.DataFrame, dict[str, Any], dict[str, Any]],
) -> None:
    predictions, decision, metrics = scored
    figure = plot_decision_curve(predictions, decision, metrics, SETTINGS, JUDGING, CLASSES)
    operating, referral, benefit = figure.axes
    scores = metrics["test"]["decision"]
    assert f"{scores['missed_cancers']} of 18 cancers missed" in figure.get_suptitle()
    assert f"{scores['false_alarms']} false alarms among 42 others" in figure.get_suptitle()
    marked = [line for line in operating.lines if line.get_linestyle() == "--"]
    assert marked[0].get_xdata()[0] == decision["decision"]["threshold"]
    error = referral.lines[0].get_ydata()
    test = predictions[predictions["split"] == "test"]
    assert error[0] == pytest.approx(100 * (1 - test["correct"].mean()))
    assert read_legend(benefit) == ["model", "refer all", "refer none"]


def test_learning_curves_mark_the_epoch_kept() -> None:
    def curves(losses: list[float]) -> dict[str, list[float]]:
        return dict.fromkeys(
            (f"{part}{key}" for part in ("", "val_") for key in ("cross_entropy", "accuracy")),
            losses,
        )

    history = {"head": curves([3, 1, 2]), "fine_tuning": curves([5, 4])}
    for kept, expected, name in (
        (2, [[2, 1], [5, 4]], "fine-tuning"),
        (0, [[2, 1]], "fine-tuning (undone)"),
    ):
        report = {"training": {"best_epoch": {"head": 2, "fine_tuning": kept}}}
        loss = plot_learning_curves(history, report, SETTINGS).axes[0]
        dots = [line.get_xydata()[0].tolist() for line in loss.lines if line.get_marker() == "o"]
        assert dots == expected
        assert name in [text.get_text() for text in loss.texts]


def test_mistakes_show_missed_cancers_first(predictions: pd.DataFrame) -> None:
    images = StoredArray(predictions[["image_id"]], np.zeros((len(predictions), 8, 8, 3), np.uint8))
    figure = plot_misclassified(predictions, images, SETTINGS, CLASSES)
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    assert titles == [
        "6\npredicted benign at 80 %",
        "7\npredicted normal at 80 %",
        "3\npredicted malignant at 80 %",
    ]
    assert "3 of 3 mistakes among 10" in figure.get_suptitle()
    assert "2 missed cancers" in figure.get_suptitle()
