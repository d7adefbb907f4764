"""Cross-validation, and what is made of its folds: ensemble, leakage, bias audit, report."""

import base64
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import mlflow
import numpy as np
import pandas as pd
import pytest

from busi_pipeline.errors import BadInputError
from busi_pipeline.pipelines.training import nodes
from tests.factories import CLASSES
from tests.integration.projects import (
    create_project,
    find_all_runs,
    find_folds,
    find_runs,
    hide_machine,
    read_json,
    read_table,
    run_pipeline,
    select_default,
)

FOLDS = ["repeat_1_fold_1", "repeat_1_fold_2"]
# The second experiment is not fine-tuned: that is quicker, and a fold must do without, too.
SECOND = {"experiments": {"resnet50": {"training": {"fine_tuning": {"epochs": 0}}}}}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, eager: None) -> Iterator[Path]:
    """A project in which two experiments were cross-validated."""
    folder = tmp_path_factory.mktemp("folds") / "project"
    default = select_default("vgg16", "resnet50")
    with hide_machine():
        create_project(folder, dict.fromkeys(CLASSES, 14), default, SECOND)
        run_pipeline(folder, "cross_validation")
        yield folder


@pytest.fixture(scope="module")
def reported(project: Path) -> Path:
    """The same project after the audits, with its report."""
    run_pipeline(project, "leakage")
    run_pipeline(project, "bias_audit_vgg16")
    run_pipeline(project, "reporting")
    return project


def read_metrics(project: Path, experiment: str) -> dict[str, Any]:
    return read_json(project / f"data/08_reporting/{experiment}/cross_validation/metrics.json")


def read_predictions(project: Path, experiment: str) -> pd.DataFrame:
    folder = project / f"data/07_model_output/{experiment}/cross_validation"
    return read_table(folder / "predictions.csv")


def list_records(project: Path, experiment: str) -> list[Path]:
    """Return the records of the folds of the latest run."""
    folder = project / f"data/07_model_output/{experiment}/cross_validation"
    records = sorted(folder.glob("repeat_?_fold_?.json"))
    latest = find_runs(project)[0].info.start_time / 1000
    return [path for path in records if path.stat().st_mtime >= latest]


def list_cached(project: Path, experiment: str = "vgg16") -> list[str]:
    """Return, fold by fold of the latest run, whether its training came from the cache."""
    records = list_records(project, experiment)
    return [read_json(path)["tags"]["training_cached"] for path in records]


def test_every_image_is_tested_once(project: Path) -> None:
    manifest = read_table(project / "data/03_primary/cross_validation/fold_manifest.csv")
    for experiment in ("vgg16", "resnet50", "ensemble"):
        table = read_predictions(project, experiment)
        test = table[table["split"] == "test"]
        assert sorted(test["image_id"]) == sorted(manifest["image_id"])
        assert set(test["fold"]) == {1, 2}
        assert table.groupby(["repeat", "fold"])["threshold"].nunique().eq(1).all()


def test_reporting_has_plots_and_tables(project: Path) -> None:
    folder = project / "data/08_reporting/vgg16/cross_validation"
    assert {path.name for path in folder.iterdir()} == {
        "calibration.png",
        "confusion_matrix.png",
        "decision_curve.png",
        "fine_tuning_gain.csv",
        "linear_probe_metrics.json",
        "metrics.json",
        "operating_point.json",
        "per_class_metrics.csv",
        "roc_pr_curves.png",
    }


def test_gain_is_that_of_the_metrics(project: Path) -> None:
    folder = project / "data/08_reporting/vgg16/cross_validation"
    test = read_metrics(project, "vgg16")["test"]
    probe = read_json(folder / "linear_probe_metrics.json")["linear_probe"]
    gain = read_table(folder / "fine_tuning_gain.csv").set_index("metric").loc["accuracy"]
    assert (gain["first"], gain["second"]) == ("fine_tuned", "linear_probe")
    assert gain["first_value"] == pytest.approx(test["accuracy"])
    assert gain["second_value"] == pytest.approx(probe["accuracy"])
    assert test["images"] == probe["images"] == 42


def test_threshold_of_folds_is_their_median(project: Path) -> None:
    folder = project / "data/08_reporting/vgg16/cross_validation"
    point = read_json(folder / "operating_point.json")["operating_point"]
    thresholds = read_predictions(project, "vgg16").groupby("fold")["threshold"].first()
    assert point["threshold"] == pytest.approx(thresholds.median())


def test_ensemble_is_compared_with_its_parts(project: Path) -> None:
    metrics = read_metrics(project, "ensemble")
    assert metrics["experiment"]["title"] == "ensemble"
    assert metrics["test"]["images"] == 42
    pairs = read_table(project / "data/08_reporting/cross_validation_comparisons.csv")
    names = [tuple(pair) for pair in pairs[["first", "second"]].drop_duplicates().to_numpy()]
    assert names == [("vgg16", "resnet50"), ("vgg16", "ensemble"), ("resnet50", "ensemble")]
    assert (project / "data/08_reporting/cross_validation_comparisons.png").is_file()


def test_second_run_takes_folds_from_the_cache(project: Path) -> None:
    before = read_predictions(project, "vgg16")
    run_pipeline(project, "cross_validate_vgg16")
    assert list_cached(project) == ["yes", "yes"]
    pd.testing.assert_frame_equal(read_predictions(project, "vgg16"), before)
    parent = find_runs(project)[0]
    assert parent.data.metrics["cross_validation.test.images"] == 42
    assert parent.data.tags["experiments"] == "vgg16"
    assert parent.data.tags["cross_validation.split_method"] == "grouped"


def test_folds_are_child_runs_once(project: Path) -> None:
    run_pipeline(project, "cross_validate_vgg16")
    assert find_folds(project) == [], "they are those of the run that trained them"
    children = [run for run in find_all_runs(project) if "fold" in run.data.tags]
    named = [run for run in children if run.info.run_name.startswith("vgg16, cross_validation")]
    folds = sorted(named, key=lambda run: run.info.run_name)
    assert [run.info.run_name for run in folds] == [f"vgg16, cross_validation, {f}" for f in FOLDS]
    assert [run.data.tags["fold"] for run in folds] == FOLDS
    assert {run.info.status for run in folds} == {"FINISHED"}
    assert mlflow.active_run() is None
    table = read_predictions(project, "vgg16")
    uncalibrated = [f"uncalibrated_{name}" for name in CLASSES]
    likeliest = np.array(CLASSES.names)[table[uncalibrated].to_numpy().argmax(axis=1)]
    correct = (likeliest == table["label"]) & (table["split"] == "test")
    for number, run in enumerate(folds, start=1):
        expected = correct[table["fold"] == number].sum()
        assert run.data.metrics["test.correct"] == expected


def test_only_the_missing_fold_is_run(project: Path) -> None:
    """TRAP: what is there is kept, so what is made of the fold must be missing, too."""
    before = read_predictions(project, "vgg16")
    folder = project / "data/07_model_output/vgg16/cross_validation"
    missing = [*folder.glob(f"{FOLDS[0]}*"), *folder.glob("*predictions.csv")]
    shutil.rmtree(project / "data/08_reporting/vgg16/cross_validation")
    for path in missing:
        path.unlink()
    features = project / "data/05_model_input/vgg16/cross_validation_features.json"
    changed = features.stat().st_mtime_ns
    run_pipeline(project, "cross_validate_vgg16", only_missing_outputs=True)
    assert [path.stem for path in list_records(project, "vgg16")] == [FOLDS[0]]
    assert features.stat().st_mtime_ns == changed
    assert find_runs(project)[0].data.metrics["cross_validation.test.images"] == 42
    pd.testing.assert_frame_equal(read_predictions(project, "vgg16"), before)


def test_more_repeats_add_only_the_new_folds(project: Path) -> None:
    twice = {"cross_validation": {"repeats": 2}}
    with pytest.raises(BadInputError, match="another number of folds or repeats than"):
        run_pipeline(project, "cross_validate_vgg16", twice, only_missing_outputs=True)
    run_pipeline(project, "cross_validate_vgg16", twice)
    assert list_cached(project) == ["yes", "yes", "no", "no"]
    assert read_metrics(project, "vgg16")["test"]["images"] == 2 * 42
    run_pipeline(project, "cross_validate_vgg16")
    assert read_metrics(project, "vgg16")["test"]["images"] == 42


def test_interrupted_run_goes_on_where_it_was(project: Path) -> None:
    """Other settings are other trainings; the first of them is there when the run is repeated."""
    smoother = {"training": {"label_smoothing": 0.2}}
    train, trained = nodes.train_network, []

    def interrupted(*given: Any) -> Any:
        if trained:
            raise RuntimeError("the lid was closed")
        trained.append(given)
        return train(*given)

    with mock.patch.object(nodes, "train_network", interrupted):  # noqa: SIM117
        with pytest.raises(RuntimeError, match="the lid was closed"):
            run_pipeline(project, "cross_validate_resnet50", smoother)
    assert find_runs(project)[0].info.status == "FAILED"
    assert mlflow.active_run() is None
    run_pipeline(project, "cross_validate_resnet50", smoother)
    assert list_cached(project, "resnet50") == ["yes", "no"]
    assert [run.data.tags["fold"] for run in find_folds(project)] == FOLDS, "it has them all now"
    run_pipeline(project, "cross_validate_resnet50")
    assert list_cached(project, "resnet50") == ["yes", "yes"], "those of before are still there"


@pytest.mark.parametrize(
    ("pipeline", "first"),
    [
        ("cross_validate_vgg16", "vgg16.cross_validation.calibrate_predictions"),
        ("cross_validate_vgg16", "vgg16.cross_validation.gather_folds"),
        ("cross_validate_vgg16", f"vgg16.cross_validation.{FOLDS[1]}.train_fold"),
        ("cross_validation", "ensemble.cross_validation.average_experiments"),
        ("leakage_vgg16", "vgg16.measure_leakage"),
        ("bias_audit_vgg16", "vgg16.audit_bias"),
    ],
)
def test_fold_of_other_settings_is_not_taken_up(reported: Path, pipeline: str, first: str) -> None:
    more = {"experiments": {"vgg16": {"training": {"fine_tuning": {"epochs": 50}}}}}
    message = rf"^vgg16\.cross_validation\.{FOLDS[0]} was trained with training\.fine_tuning\.ep"
    with pytest.raises(BadInputError, match=message):
        run_pipeline(reported, pipeline, more, from_nodes=[first])


def test_leakage_is_measured_on_both_experiments(reported: Path) -> None:
    table = read_table(reported / "data/08_reporting/leakage.csv")
    assert set(table["experiment"]) == {"vgg16", "resnet50"}
    assert set(table["model"]) == {"fine-tuned", "linear probe"}
    np.testing.assert_allclose(table["inflation"], table["random"] - table["grouped"])
    assert (reported / "data/08_reporting/leakage.png").is_file()


def test_bias_audit_asks_each_question(reported: Path) -> None:
    folder = reported / "data/08_reporting"
    images = read_table(folder / "vgg16/bias_audit.csv").set_index("question")["images"]
    assert images["fine-tuned, all images"] == 42
    assert images["linear probe, lesion occluded"] == 42
    assert images["bounding box of the lesion alone"] == 28, "those with a lesion"
    assert (folder / "vgg16/bias_audit.png").is_file()
    found = folder / "burned_in_annotations.txt"  # no picture: nobody wrote into these images
    assert "callipers on 0 of 42, text on 0 of 42" in found.read_text()


def test_report_shows_what_was_run(reported: Path) -> None:
    page = (reported / "data/08_reporting/report.html").read_text()
    for title in ("VGG16", "ResNet50", "ensemble"):
        assert title in page
    folder = reported / "data/08_reporting"
    plots = [*folder.glob("*.png"), *folder.glob("*/*.png"), *folder.glob("*/cross_validation/*")]
    encoded = [base64.b64encode(p.read_bytes()).decode() for p in plots if p.suffix == ".png"]
    assert sum(plot in page for plot in encoded) == page.count("data:image/png;base64,") > 5
    assert not re.search(r"(src|href)=.https?:", page), "nothing is loaded from elsewhere"
    (run,) = (r for r in find_runs(reported) if r.info.run_name.startswith("reporting "))
    found = mlflow.MlflowClient().list_artifacts(run.info.run_id, "report")
    assert [artifact.path for artifact in found] == ["report/report.html"]
