"""The comparison: ours, the replication and the published row side by side."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from busi_pipeline.stats.calibration import Calibration
from busi_pipeline.errors import BadInputError
from busi_pipeline.stats.scoring import Decision, apply_operating_point, probability_columns
from busi_pipeline.pipelines.model_comparison.nodes import compare_experiments, plot_model_comparison
from busi_pipeline.stats.comparison import COLUMNS, compare_predictions, plot_pairwise_comparisons
from tests.conftest import CLASSES

PUBLISHED = {
    "source": "published notebook",
    "accuracy": 0.65,
    "loss": 0.9,
    "malignant_sensitivity": 0.77,
    "seconds": 5349.0,
}


def surround(scores: dict[str, Any]) -> dict[str, Any]:
    """Give every share an interval of 0.05 either way."""
    ends = {"_ci_low": -0.05, "_ci_high": 0.05}
    return scores | {
        name + end: value + by
        for name, value in scores.items()
        if isinstance(value, float)
        for end, by in ends.items()
    }


def record(title: str, accuracy: float, split: str = "a" * 64, **experiment: Any) -> dict[str, Any]:
    malignant = {
        "sensitivity": 0.9,
        "specificity": 0.8,
        "auc": 0.95,
        "found": 28,
        "images": 31,
    }
    test = {
        "accuracy": accuracy,
        "correct": round(accuracy * 117),
        "images": 117,
        "macro_f1": 0.8,
        "loss": 0.5,
        "loss_smoothed": 0.7,
    }
    return {
        "test": surround(test) | {"malignant": surround(malignant)},
        "training_seconds": 300.0,
        "experiment": {"title": title} | experiment,
        "depends_on": {
            "split_sha256": split,
            "split_method": "grouped",
            "weights": "directory",
        },
    }


def test_rows_of_a_model_stand_together() -> None:
    table = compare_experiments(
        vgg16=record("VGG16", 0.8, published=PUBLISHED),
        resnet50=record("ResNet50", 0.85),
        replication_vgg16=record("VGG16, published recipe", 0.7, baseline_of="vgg16"),
        inceptionv3=None,
    )
    assert list(zip(table["model"], table["source"], strict=True)) == [
        ("VGG16", "published"),
        ("VGG16", "published recipe, run here"),
        ("VGG16", "this project"),
        ("ResNet50", "this project"),
    ]
    assert list(table["accuracy"]) == [0.65, 0.7, 0.8, 0.85]
    assert table.loc[0, "loss_smoothed"] == 0.9
    assert table.loc[2, "correct"] == 94
    accuracy = plot_model_comparison(table).axes[0]
    assert accuracy.get_xlabel() == "accuracy (%)"
    bars = {text.get_text() for text in accuracy.texts}
    assert bars == {"65.0", "70.0", "80.0", "85.0"}
    legend = [text.get_text() for text in plot_model_comparison(table).legends[0].get_texts()]
    assert legend[0] == "published (random split)", "it is no fairer than that"
    assert "this project (grouped split)" in legend
    assert table.loc[3, "malignant_auc_ci_low"] == pytest.approx(0.9)
    ours = [c for c in accuracy.collections if len(c.get_segments()) == 2]
    np.testing.assert_allclose(ours[0].get_segments()[1][:, 0], [80, 90])


def test_nothing_to_compare_says_what_to_run() -> None:
    with pytest.raises(BadInputError, match="kedro run --pipeline=train_vgg16"):
        compare_experiments(vgg16=None, resnet50=None)


def test_a_record_of_an_earlier_version_says_what_to_run() -> None:
    old = record("A", 0.8)
    del old["test"]["accuracy_ci_low"]
    with pytest.raises(BadInputError, match="kedro run --pipeline=train_a"):
        compare_experiments(a=old)


def test_different_splits_are_pointed_out(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING"):
        compare_experiments(a=record("A", 0.8), b=record("B", 0.8, split="b" * 64))
    assert "different splits" in caplog.text


JUDGING = {"n_resamples": 200, "seed": 0}


def judge_noisily(skill: float, seed: int, count: int = 300) -> pd.DataFrame:
    """Test predictions of a classifier of this skill on the same images whatever the seed."""
    rng = np.random.default_rng(seed)
    label = np.arange(count) % 3
    exponents = np.exp(skill * np.eye(3)[label] + rng.normal(size=(count, 3)))
    table = pd.DataFrame(
        {
            "image_id": [f"i{n}" for n in range(count)],
            "group": [f"g{n // 2}" for n in range(count)],
            "label": np.array(CLASSES)[label],
            "split": "test",
        }
    )
    table[probability_columns(CLASSES, raw=True)] = exponents / exponents.sum(axis=1, keepdims=True)
    return apply_operating_point(table, Decision(Calibration(1.0, (0.0, 0.0, 0.0)), 0.3, 0.9), CLASSES)


def test_pairs_say_better_worse_or_cannot_tell() -> None:
    good, bad = judge_noisily(2.5, 0), judge_noisily(0.7, 1)
    pairs = compare_predictions(JUDGING, good=good, bad=bad, alike=judge_noisily(2.5, 2))
    verdicts = pairs.set_index(["metric", "first", "second"])["verdict"]
    for metric in ("accuracy", "malignant AUC", "specificity at 90 % sensitivity"):
        assert verdicts[metric, "good", "bad"] == "better"
        assert verdicts[metric, "bad", "alike"] == "worse"
        assert verdicts[metric, "good", "alike"] == "cannot tell"
    row = pairs.iloc[0]
    assert row["difference"] == pytest.approx(good["correct"].mean() - bad["correct"].mean())
    assert row["difference_ci_low"] < row["difference"] < row["difference_ci_high"]
    assert (pairs["p_corrected"] >= pairs["p_value"]).all()
    told = pairs["metric"].isin(["accuracy", "malignant AUC"])
    assert pairs["p_independent"].notna().tolist() == told.tolist()
    titles = [axis.get_title() for axis in plot_pairwise_comparisons(pairs).axes]
    assert titles == list(dict.fromkeys(pairs["metric"]))


def test_only_the_same_images_are_paired(caplog: pytest.LogCaptureFixture) -> None:
    first, other = judge_noisily(1.0, 0), judge_noisily(1.0, 1).iloc[:-1]
    pairs = compare_predictions(JUDGING, first=first, other=other, never_run=None)
    assert pairs.empty
    assert list(pairs.columns) == COLUMNS
    assert "other judged other test images than first" in caplog.text
    assert not plot_pairwise_comparisons(pairs).axes


def test_the_order_of_images_does_not_matter() -> None:
    first, other = judge_noisily(1.0, 0), judge_noisily(1.0, 1)
    straight = compare_predictions(JUDGING, first=first, other=other)
    turned = compare_predictions(JUDGING, first=first, other=other.iloc[::-1])
    pd.testing.assert_frame_equal(straight, turned)
