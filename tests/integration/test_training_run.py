"""One experiment on the hold-out split: from a folder of images to a logged model and beyond."""

import base64
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import mlflow
import nbformat
import numpy as np
import pytest
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from kedro.runner import SequentialRunner
from mlflow.entities import Run
from nbclient import NotebookClient
from PIL import Image

from busi_pipeline.errors import BadInputError
from busi_pipeline.models.delivered import load_delivered_model
from tests.factories import CLASSES, PROJECT
from tests.integration.projects import (
    RAW,
    create_project,
    find_all_runs,
    find_runs,
    hide_machine,
    read_json,
    read_table,
    run_pipeline,
)

PLOTS = (
    "augmentation",
    "calibration",
    "confusion_matrix",
    "decision_curve",
    "gradcam_gallery",
    "learning_curves",
    "roc_pr_curves",
)
PROBABILITIES = [f"p_{name}" for name in CLASSES]


class Trained(NamedTuple):
    """A project in which `train_inceptionv3` ran once, and its run in MLflow."""

    project: Path
    run: Run


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    project = tmp_path_factory.mktemp("trained") / "project"
    with hide_machine():
        create_project(project)
        (project / RAW / "normal/broken.png").write_bytes(b"")
        run_pipeline(project, "train_inceptionv3")
        (run,) = find_runs(project)
        yield Trained(project, run)


def test_every_plot_is_drawn(trained: Trained) -> None:
    for plot in PLOTS:
        path = trained.project / f"data/08_reporting/inceptionv3/{plot}.png"
        with Image.open(path) as image:
            assert min(image.size) > 300, plot
    misclassified = trained.project / "data/08_reporting/inceptionv3/misclassified"
    why = misclassified.with_suffix(".txt")
    assert misclassified.with_suffix(".png").is_file() != why.is_file(), "or why there is none"


def test_unusable_file_is_in_quarantine(trained: Trained) -> None:
    quarantine = read_table(trained.project / "data/02_intermediate/quarantine.csv")
    assert list(quarantine["reason"]) == ["zero bytes"]
    assert trained.run.data.metrics["images.all"] == 36


def test_images_not_trained_on_are_predicted(trained: Trained) -> None:
    split = read_table(trained.project / "data/03_primary/split_manifest.csv")
    predictions = read_table(trained.project / "data/07_model_output/inceptionv3/predictions.csv")
    evaluated = split[split["split"] != "train"]
    assert set(evaluated["split"]) == {"validation", "test"}
    assert list(predictions["image_id"]) == list(evaluated["image_id"])
    assert list(predictions["label"]) == list(evaluated["label"])
    np.testing.assert_allclose(predictions[PROBABILITIES].sum(axis=1), 1, atol=1e-4)


def test_delivered_model_answers_as_the_run_did(trained: Trained) -> None:
    predictions = read_table(trained.project / "data/07_model_output/inceptionv3/predictions.csv")
    model = load_delivered_model(trained.project / "data/06_models/inceptionv3")
    for row in predictions.to_dict("records"):
        finding = model.predict_file(trained.project / RAW / f"{row['image_id']}.png")
        answered = [finding.probabilities[name] for name in CLASSES]
        np.testing.assert_allclose(answered, [row[name] for name in PROBABILITIES], atol=1e-4)
        assert finding.threshold == pytest.approx(row["threshold"])
        near = abs(row["p_malignant"] - row["threshold"]) < 1e-4
        assert near or finding.flagged == row["flagged"], row["image_id"]


def test_run_has_the_metrics_of_the_files(trained: Trained) -> None:
    logged = trained.run.data.metrics
    test = read_json(trained.project / "data/08_reporting/inceptionv3/metrics.json")["test"]
    folder = trained.project / "data/06_models/inceptionv3"
    point = read_json(folder / "operating_point.json")["operating_point"]
    assert logged["test.accuracy"] == test["accuracy"]
    assert logged["test.flag.sensitivity"] == test["flag"]["sensitivity"]
    assert logged["operating_point.threshold"] == point["threshold"]
    assert not [key for key in logged if "_ci_" in key], "ends of intervals are in the tables"
    assert len(logged) < 60
    assert logged["duplicates.groups"] == 36
    assert logged["images.benign"] == 12
    assert logged["run_seconds"] > logged["training_seconds"] > 0
    history = mlflow.MlflowClient().get_metric_history(
        trained.run.info.run_id, "fine_tuning.val_loss"
    )
    assert [point.step for point in history] == [1, 2]


def test_run_says_what_it_is_of(trained: Trained) -> None:
    info, data = trained.run.info, trained.run.data
    assert (info.run_name, info.status) == ("train_inceptionv3 on BUSI", "FINISHED")
    assert data.tags["kedro_command"] == "kedro run --pipeline=train_inceptionv3"
    assert str(trained.project) not in str(data.tags), "where it lies is no fact of the run"
    assert data.params["backbone"] == "inception_v3"
    assert data.params["training.fine_tuning.optimizer.name"] == "rmsprop"
    assert data.params["split.method"] == "grouped"
    assert (data.params["classes"], data.params["positive_classes"]) == (
        "benign,malignant,normal",
        "malignant",
    )
    for tag in ("data_sha256", "split_sha256", "weights", "weights_sha256", "git_commit", "device"):
        assert data.tags[tag], tag
    assert data.tags["experiments"] == "inceptionv3"
    assert mlflow.active_run() is None, "what is left open is killed when the process ends"


def test_run_has_the_artifacts(trained: Trained) -> None:
    client = mlflow.MlflowClient()
    found = {a.path for a in client.list_artifacts(trained.run.info.run_id, "results")}
    names = [f"{plot}.png" for plot in PLOTS]
    names += ["predictions.csv", "per_class_metrics.csv", "model_card.md"]
    names += ["metrics.json", "operating_point.json", "seconds.json"]
    assert {f"results/{name}" for name in names} <= found, "one path for every experiment"


def test_run_page_shows_data_command_and_scores(trained: Trained) -> None:
    run = mlflow.MlflowClient().get_run(trained.run.info.run_id)
    (used,) = run.inputs.dataset_inputs
    digest = run.data.tags["data_sha256"]
    assert (used.dataset.name, used.dataset.digest) == ("BUSI", digest[:36])
    assert json.loads(used.dataset.profile)["images"]["all"] == 36
    note = run.data.tags["mlflow.note.content"]
    assert note.startswith("`kedro run --pipeline=train_inceptionv3`")
    test = read_json(trained.project / "data/08_reporting/inceptionv3/metrics.json")["test"]
    row = f"| inceptionv3 | {test['images']} | {test['accuracy']:.3f} | "
    assert row + f"{test['positive']['auc']:.3f} |" in note


def test_page_of_the_model_has_scores_threshold_and_card(trained: Trained) -> None:
    (logged,) = mlflow.search_logged_models(
        experiment_ids=[trained.run.info.experiment_id],
        filter_string=f"source_run_id = '{trained.run.info.run_id}'",
        output_format="list",
    )
    scores = {metric.key: metric.value for metric in logged.metrics}
    metrics = trained.run.data.metrics
    assert scores["test.accuracy"] == metrics["test.accuracy"]
    assert scores["operating_point.threshold"] == metrics["operating_point.threshold"]
    assert float(logged.tags["threshold"]) == pytest.approx(metrics["operating_point.threshold"])
    card = (trained.project / "data/06_models/inceptionv3/model_card.md").read_text()
    assert logged.tags["mlflow.note.content"] == card


def test_logged_model_says_classes_and_threshold(trained: Trained) -> None:
    (logged,) = mlflow.search_logged_models(
        experiment_ids=[trained.run.info.experiment_id],
        filter_string=f"source_run_id = '{trained.run.info.run_id}'",
        output_format="list",
    )
    assert logged.name == "inceptionv3"
    described = mlflow.models.get_model_info(logged.model_uri).metadata
    assert described["classes"] == list(CLASSES)
    assert described["positive_classes"] == ["malignant"]
    assert described["threshold"] == trained.run.data.metrics["operating_point.threshold"]


def test_notebook_shows_the_run(trained: Trained) -> None:
    folder = trained.project / "notebooks"
    shutil.copytree(PROJECT / "notebooks", folder)
    notebook = nbformat.read(folder / "explore_runs.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "kept without outputs"
    NotebookClient(notebook, resources={"metadata": {"path": folder}}).execute()
    shown = str([cell.get("outputs") for cell in notebook.cells])
    test = read_json(trained.project / "data/08_reporting/inceptionv3/metrics.json")["test"]
    assert f"({test['correct']} of {test['images']})" in shown
    assert f"{test['flag']['missed']} of {test['flag']['positives']} malignant" in shown
    assert "train_inceptionv3" in shown
    assert not [cell.get("outputs") for cell in notebook.cells[1:3] if cell.get("outputs")]
    reporting = trained.project / "data/08_reporting/inceptionv3"
    for plot in ("confusion_matrix", "learning_curves", "misclassified"):
        picture, reason = (reporting / f"{plot}{ending}" for ending in (".png", ".txt"))
        if reason.exists():
            assert reason.read_text() in shown
        else:
            assert base64.b64encode(picture.read_bytes()).decode() in shown.replace("\\n", "")


def test_async_run_logs_as_much(trained: Trained) -> None:
    run_pipeline(trained.project, "train_inceptionv3", runner=SequentialRunner(is_async=True))
    latest = find_runs(trained.project)[0]
    assert latest.info.status == "FINISHED"
    assert latest.data.metrics.keys() == trained.run.data.metrics.keys()
    assert latest.data.params == trained.run.data.params
    assert latest.data.tags["training_cached"] == "yes"
    assert latest.data.tags.keys() >= trained.run.data.tags.keys() - {"kedro_command"}
    client = mlflow.MlflowClient()
    assert len(client.list_artifacts(latest.info.run_id, "results")) > len(PLOTS)
    models = mlflow.search_logged_models(
        experiment_ids=[latest.info.experiment_id], output_format="list"
    )
    assert latest.info.run_id in {model.source_run_id for model in models}


REORDERED = ["malignant", "benign", "normal"]


@pytest.mark.parametrize(
    ("first", "parameters", "message"),
    [
        (
            "predict_images",
            {"training": {"fine_tuning": {"epochs": 50}}},
            r"^inceptionv3 was trained with training\.fine_tuning\.epochs 2, but this run has 50: "
            r"train again \(`kedro run --pipeline=train_inceptionv3`\), or run with the same value",
        ),
        ("score_predictions", {"training": {"label_smoothing": 0.0}}, "label_smoothing 0.1, but"),
        ("deliver_model", {"augmentation": {"zoom": 0.2}}, "augmentation.zoom 0.1, but this"),
        (
            "predict_images",
            {"classes": REORDERED},
            "with classes benign, malignant, normal, but this run has malignant, benign, normal",
        ),
        ("write_model_card", {"classes": REORDERED}, "with classes benign, malignant, normal"),
        (
            "score_predictions",
            {"evaluation": {"target_sensitivity": 0.5}},
            r"evaluated with evaluation\.target_sensitivity 0\.95, but this run has 0\.5: go on "
            r"from inceptionv3\.calibrate_predictions",
        ),
        (
            "plots.plot_decision_curve",
            {"positive_classes": ["benign"]},
            "positive_classes malignant",
        ),
    ],
)
def test_model_of_other_settings_is_not_taken_up(
    trained: Trained, first: str, parameters: dict[str, Any], message: str
) -> None:
    before = len(find_runs(trained.project))
    with pytest.raises(BadInputError, match=message) as caught:
        run_pipeline(
            trained.project, "train_inceptionv3", parameters, from_nodes=[f"inceptionv3.{first}"]
        )
    assert "\n" not in str(caught.value)
    assert len(find_runs(trained.project)) == before, "refused before any work"


def test_only_missing_outputs_are_of_the_same_settings(trained: Trained) -> None:
    """TRAP: Kedro takes an output for there that other settings made."""
    more = {"training": {"fine_tuning": {"epochs": 50}}}
    with pytest.raises(BadInputError, match=r"fine_tuning\.epochs 2, but this run has 50"):
        run_pipeline(trained.project, "train_inceptionv3", more, only_missing_outputs=True)


def test_model_of_the_same_settings_is_taken_up(trained: Trained) -> None:
    changes = {
        "evaluation": {"prevalence": 0.1},
        "experiments": {"inceptionv3": {"title": "another title"}},
    }
    run_pipeline(
        trained.project,
        "train_inceptionv3",
        changes,
        from_nodes=["inceptionv3.score_predictions"],
        to_nodes=["inceptionv3.score_predictions"],
    )
    latest = find_runs(trained.project)[0]
    assert latest.data.metrics["test.accuracy"] == trained.run.data.metrics["test.accuracy"]
    assert latest.data.params["evaluation.prevalence"] == "0.1"


def test_command_line_wins_over_the_entry(trained: Trained) -> None:
    """The entry has a learning rate of its own, 3e-4."""
    rate = {"training": {"fine_tuning": {"optimizer": {"learning_rate": 0.125}}}}
    run_pipeline(
        trained.project, "train_inceptionv3", rate, node_names=["inceptionv3.plan_augmentation"]
    )
    logged = find_runs(trained.project)[0].data.params
    assert logged["training.fine_tuning.optimizer.learning_rate"] == "0.125"


def test_open_sessions_do_not_change_each_other(trained: Trained) -> None:
    demo_images = trained.project / "data/demo/01_raw"
    shutil.copytree(trained.project / RAW, demo_images)
    bootstrap_project(trained.project)
    local = KedroSession.create(project_path=trained.project)
    demo = KedroSession.create(project_path=trained.project, env="demo")
    local.load_context()
    demo.load_context()
    local.run(pipeline_names=["train_inceptionv3"], to_nodes=["inceptionv3.train_model"])
    folder = trained.project / "data/06_models/inceptionv3"
    assert read_json(folder / "trained_with.json")["settings"]["image_size"] == 75
    assert find_runs(trained.project)[0].data.tags["training_cached"] == "yes"
    demo.run(pipeline_names=["preprocessing"], to_nodes=["preprocessing.prepare_images_96"])
    assert (trained.project / "data/demo/04_feature/images_96.json").is_file()
    assert not (trained.project / "data/04_feature/images_96.json").exists()


def test_missing_weights_stop_the_run_before_it_begins(trained: Trained) -> None:
    before = [run.info.run_id for run in find_all_runs(trained.project)]
    with pytest.raises(BadInputError, match="BUSI_WEIGHTS_DIR is not set"):
        run_pipeline(trained.project, "train_inceptionv3", {"training": {"weights": "directory"}})
    assert [run.info.run_id for run in find_all_runs(trained.project)] == before


def test_no_run_is_left_open(trained: Trained) -> None:
    assert "RUNNING" not in {run.info.status for run in find_all_runs(trained.project)}
    assert "MLFLOW_TRACKING_URI" not in os.environ
