"""The comparison: this project, the replication and published results side by side."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from busi_pipeline.config.schemas import DatasetSettings, EnsembleSettings
from busi_pipeline.errors import BadInputError
from busi_pipeline.pipelines.model_comparison import create_pairwise_pipeline, create_pipeline
from busi_pipeline.pipelines.model_comparison.nodes import compare_experiments
from busi_pipeline.pipelines.model_comparison.plots import (
    plot_model_comparison,
    plot_pairwise_comparisons,
)
from busi_pipeline.plotting.style import NothingToShow
from busi_pipeline.stats.classes import Classes
from busi_pipeline.stats.comparison import COLUMNS, compare_predictions
from tests.evaluation_factories import CLASS_SETS, EVALUATION, THREE, make_metrics, make_predictions
from tests.factories import make_settings

COUNTS = {"benign": 437, "malignant": 210, "normal": 133}
SUMMARY = {"images": COUNTS | {"all": 780}}
BUSI = DatasetSettings(name="BUSI", images=COUNTS)
OWN = {"benign": 12, "malignant": 12, "normal": 12}
PUBLISHED = {
    "source": "published notebook",
    "dataset": "BUSI",
    "images": COUNTS,
    "split_method": "random",
    "accuracy": 0.65,
    "loss": 0.9,
    "positive_sensitivity": 0.77,
    "seconds": 5349.0,
}


@pytest.fixture(scope="module")
def metrics() -> dict[str, Any]:
    return make_metrics(make_predictions(THREE), THREE)


def entitle(metrics: dict[str, Any], title: str, **experiment: Any) -> dict[str, Any]:
    return metrics | {"experiment": {"title": title} | experiment}


def test_results_of_a_model_stand_together(metrics: dict[str, Any]) -> None:
    table = compare_experiments(
        THREE,
        BUSI,
        SUMMARY,
        vgg16=entitle(metrics, "VGG16", published=PUBLISHED),
        resnet50=entitle(metrics, "ResNet50", published=None),
        replication_vgg16=entitle(metrics, "VGG16, published recipe", baseline_of="vgg16"),
        inceptionv3=None,
    )
    assert list(zip(table["model"], table["source"], strict=True)) == [
        ("VGG16", "published"),
        ("VGG16", "published recipe, run here"),
        ("VGG16", "this project"),
        ("ResNet50", "this project"),
    ]
    published, ours = table.loc[0], table.loc[2]
    assert published[["accuracy", "positive_sensitivity", "loss_smoothed"]].tolist() == [
        *(0.65, 0.77, 0.9)
    ]
    test, positive = metrics["test"], metrics["test"]["positive"]
    assert ours["correct"] == test["correct"]
    assert ours["positive_found"] == positive["found"]
    assert ours["positive_auc_ci_low"] == positive["auc_ci_low"]
    figure = plot_model_comparison(table, THREE)
    accuracy = figure.axes[0]
    bars = {text.get_text() for text in accuracy.texts}
    assert bars == {"65.0", f"{100 * test['accuracy']:.1f}"}
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend[0] == "published (random split)", "it is no fairer than that"
    assert "this project (grouped split)" in legend
    ends = next(c for c in accuracy.collections if len(c.get_segments()) == 2).get_segments()
    expected = [100 * test["accuracy_ci_low"], 100 * test["accuracy_ci_high"]]
    np.testing.assert_allclose(ends[1][:, 0], expected)


@pytest.mark.parametrize("counts", [None, OWN, COUNTS | {"normal": 134}, COUNTS | {"cyst": 1}])
@pytest.mark.parametrize("described", [COUNTS, OWN, None])
def test_other_images_have_no_published_result(
    metrics: dict[str, Any],
    counts: dict[str, int] | None,
    described: dict[str, int | None] | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whatever `dataset` says of them: a published result says itself what it is of."""
    vgg16 = entitle(metrics, "VGG16", published=PUBLISHED)
    own = DatasetSettings(name="Own", images=described)
    summary = {"images": counts | {"all": sum(counts.values())}} if counts else None
    with caplog.at_level("INFO"):
        table = compare_experiments(THREE, own, summary, vgg16=vgg16)
    assert table["source"].tolist() == ["this project"]
    assert "left out: they are of BUSI" in caplog.text


def test_a_published_row_names_data_and_split(metrics: dict[str, Any]) -> None:
    vgg16 = entitle(metrics, "VGG16", published=PUBLISHED)
    published, ours = compare_experiments(THREE, BUSI, SUMMARY, vgg16=vgg16).to_dict("records")
    assert (published["data"], published["split_method"]) == ("BUSI, 780 images", "random")
    assert (ours["data"], ours["split_method"]) == ("BUSI, 780 images", "grouped")
    assert "a random split, those of this project of a grouped one" in published["note"]
    random = metrics | {"depends_on": metrics["depends_on"] | {"split_method": "random"}}
    alike = compare_experiments(
        THREE, BUSI, SUMMARY, vgg16=entitle(random, "VGG16", published=PUBLISHED)
    )
    assert alike["note"].iloc[0] == "", "the same split needs no note"


def test_a_published_result_of_an_earlier_version_is_left_out(metrics: dict[str, Any]) -> None:
    earlier = {name: value for name, value in PUBLISHED.items() if name != "images"}
    table = compare_experiments(
        THREE, BUSI, SUMMARY, vgg16=entitle(metrics, "VGG16", published=earlier)
    )
    assert table["source"].tolist() == ["this project"]


@pytest.mark.parametrize("classes", CLASS_SETS, ids=len)
def test_any_classes_can_be_compared(classes: Classes) -> None:
    one = make_metrics(make_predictions(classes), classes)
    table = compare_experiments(classes, BUSI, None, one=one)
    assert table.loc[0, "positive_sensitivity"] == one["test"]["positive"]["sensitivity"]
    axes = plot_model_comparison(table, classes).axes
    assert axes[1].get_xlabel() == f"{classes.positive_name} classified as such (%)"


def test_nothing_to_compare_says_what_to_run() -> None:
    with pytest.raises(BadInputError, match="kedro run --pipeline=train_vgg16"):
        compare_experiments(THREE, BUSI, SUMMARY, vgg16=None, resnet50=None)


@pytest.mark.parametrize("lacking", ["accuracy_ci_low", "positive"])
def test_metrics_of_an_earlier_version_are_refused(metrics: dict[str, Any], lacking: str) -> None:
    test = {name: value for name, value in metrics["test"].items() if name != lacking}
    with pytest.raises(BadInputError, match="kedro run --pipeline=train_a"):
        compare_experiments(THREE, BUSI, SUMMARY, a=metrics | {"test": test})


def test_different_splits_are_pointed_out(
    metrics: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    other = metrics | {"depends_on": metrics["depends_on"] | {"split_sha256": "b" * 64}}
    with caplog.at_level("WARNING"):
        compare_experiments(THREE, BUSI, SUMMARY, a=metrics, b=other)
    assert "different splits" in caplog.text


def test_pairs_are_named_by_their_titles() -> None:
    pairs = compare_predictions(
        THREE,
        EVALUATION,
        inceptionv3_adamw=make_predictions(THREE, skill=3.0),
        ensemble=make_predictions(THREE, skill=0.7, seed=1),
        gone=make_predictions(THREE, skill=3.0, seed=2),
    )
    experiments = {"inceptionv3_adamw": make_settings("InceptionV3, AdamW")}
    figure = plot_pairwise_comparisons(pairs, experiments, EnsembleSettings(title="Ensemble"))
    assert [axis.get_title() for axis in figure.axes] == list(dict.fromkeys(pairs["metric"]))
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == [
        "InceptionV3, AdamW\nvs Ensemble",
        "InceptionV3, AdamW\nvs gone",
        "Ensemble\nvs gone",
    ]
    for axis, metric in zip(figure.axes, pairs["metric"].unique(), strict=True):
        dots = [line.get_xdata() for line in axis.lines if line.get_marker() == "o"]
        shown = [place[0] for place in dots if len(place)]
        unit = 1 if metric == "AUC of malignant" else 100
        expected = unit * pairs.loc[pairs["metric"] == metric, "difference"]
        np.testing.assert_allclose(shown, expected)
        assert ("percentage points" in axis.get_xlabel()) == (unit == 100)
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["first is better", "first is worse", "inconclusive"]


def test_no_pair_is_said_and_no_error() -> None:
    ensemble = EnsembleSettings(title="Ensemble")
    nothing = plot_pairwise_comparisons(pd.DataFrame(columns=COLUMNS), {}, ensemble)
    assert isinstance(nothing, NothingToShow)
    assert nothing.startswith("Fewer than two experiments")


def test_pipelines_read_every_experiment() -> None:
    pipeline = create_pipeline(["vgg16", "resnet50"])
    assert {"vgg16.metrics", "resnet50.predictions", "data_summary"} <= pipeline.inputs()
    assert pipeline.outputs() == {"comparison_plot", "pairwise_comparisons_plot"}
    pairs = create_pairwise_pipeline({"a": "a.cross_validation.predictions"}, "pairs", "stage")
    assert "a.cross_validation.predictions" in pairs.inputs()
    assert pairs.all_outputs() == {"pairs", "pairs_plot"}
