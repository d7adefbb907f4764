"""Leakage: the difference between folds that ignore duplicates and folds that do not."""

import pandas as pd
import pytest

from busi_pipeline.pipelines.leakage import create_experiment_pipeline, create_summary_pipeline
from busi_pipeline.pipelines.leakage.nodes import measure_leakage, summarise_leakage
from busi_pipeline.pipelines.leakage.plots import plot_leakage
from busi_pipeline.stats.classes import Classes
from tests.evaluation_factories import CLASS_SETS, EVALUATION, make_predictions
from tests.factories import make_settings


@pytest.mark.parametrize("classes", CLASS_SETS, ids=len)
def test_inflation_is_random_less_grouped(classes: Classes) -> None:
    grouped = make_predictions(classes, skill=1.0, repeats=2)
    random = make_predictions(classes, skill=2.5)
    leakage = measure_leakage(grouped, grouped, random, grouped.iloc[:120], EVALUATION, classes)
    accuracy = leakage[leakage["metric"] == "accuracy"].set_index("model")
    first = grouped[grouped["repeat"] == 1]
    expected = random["correct"].mean() - first["correct"].mean()
    tuned = accuracy.loc["fine-tuned"]
    assert tuned["inflation"] == pytest.approx(expected)
    assert tuned["random"] - tuned["grouped"] == pytest.approx(expected)
    assert tuned["inflation_ci_low"] < expected < tuned["inflation_ci_high"]
    assert accuracy.loc["linear probe", "inflation"] == 0
    assert f"AUC of {classes.positive_name}" in set(leakage["metric"])


def test_summary_corrects_over_all_experiments() -> None:
    classes = CLASS_SETS[1]
    grouped, random = make_predictions(classes, skill=1.0), make_predictions(classes, skill=1.6)
    one = measure_leakage(grouped, grouped, random, random, EVALUATION, classes)
    table = summarise_leakage(a=one, b=one)
    assert table.columns[0] == "experiment"
    assert table.columns[-1] == "p_corrected"
    pd.testing.assert_series_equal(
        table["p_value"], pd.concat([one, one], ignore_index=True)["p_value"]
    )
    assert (table["p_corrected"] >= table["p_value"]).all()
    assert table["p_corrected"].min() == pytest.approx(len(table) * table["p_value"].min())
    figure = plot_leakage(table, {"a": make_settings("InceptionV3, AdamW")})
    assert [axis.get_title() for axis in figure.axes] == list(dict.fromkeys(table["metric"]))
    auc = next(axis for axis in figure.axes if axis.get_title().startswith("AUC"))
    assert max(line.get_xdata().max() for line in auc.lines) <= 1
    assert "points" not in auc.get_xlabel() + figure.get_suptitle()
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == [
        "InceptionV3, AdamW\nfine-tuned",
        "InceptionV3, AdamW\nlinear probe",
        "b\nfine-tuned",
        "b\nlinear probe",
    ]


def test_pipelines_read_both_kinds_of_folds() -> None:
    pipeline = create_experiment_pipeline("vgg16")
    assert pipeline.inputs() == {
        "vgg16.cross_validation.predictions",
        "vgg16.cross_validation.linear_probe_predictions",
        "vgg16.random_folds.predictions",
        "vgg16.random_folds.linear_probe_predictions",
        "params:evaluation",
        "params:classes",
    }
    assert pipeline.outputs() == {"vgg16.leakage"}
    summary = create_summary_pipeline(["vgg16", "resnet50"])
    assert summary.inputs() == {"vgg16.leakage", "resnet50.leakage", "params:experiments"}
    assert summary.all_outputs() == {"leakage_table", "leakage_plot"}
