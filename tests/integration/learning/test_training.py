"""A whole training, small: what is learned, kept, averaged, delivered; fold and hold-out alike."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import log_loss

from busi_pipeline.learning.folds import Fold
from busi_pipeline.learning.linear_probe import PooledRows, fit_linear_probe
from busi_pipeline.learning.training import (
    FittedNetwork,
    fit_probe,
    predict_split,
    read_rows,
)
from busi_pipeline.learning.training_data import (
    find_evaluation_rows,
    prepare_training_data,
)
from busi_pipeline.pipelines.evaluation.nodes import predict_images
from busi_pipeline.pipelines.preprocessing.nodes import plan_all_images, plan_augmentation
from busi_pipeline.pipelines.training import nodes
from busi_pipeline.pipelines.training.nodes import Training
from busi_pipeline.stats.classes import Classes
from busi_pipeline.stats.scoring import probability_columns
from tests.evaluation_factories import CLASS_SETS
from tests.factories import CLASSES
from tests.learning_factories import Study

RATE = "learning_rate"
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)


@pytest.fixture
def fitted(monkeypatch: pytest.MonkeyPatch) -> list[FittedNetwork]:
    """List the networks that are fitted."""
    done: list[FittedNetwork] = []
    train = nodes.train_network

    def note(*given: Any) -> FittedNetwork:
        done.append(train(*given))
        return done[-1]

    monkeypatch.setattr(nodes, "train_network", note)
    return done


def predict(study: Study, training: Training, part: str | None = None) -> pd.DataFrame:
    """Return what the trained model says of the images."""
    table = predict_images(
        training.trained_model, study.images, study.split, study.settings, study.classes
    )
    return table if part is None else table[table["split"] == part]


def get_probabilities(table: pd.DataFrame, classes: Classes = CLASSES) -> np.ndarray:
    return table[probability_columns(classes, uncalibrated=True)].to_numpy()


def measure_accuracy(study: Study, training: Training) -> float:
    table = predict(study, training, "validation")
    probabilities = get_probabilities(table, study.classes)
    return float((probabilities.argmax(axis=1) == study.classes.positions(table["label"])).mean())


def get_kept(training: Training, curve: str = "val_accuracy") -> float:
    """Return the value of the epoch that was kept, of the last phase that kept one."""
    best = training.training_report["training"]["best_epoch"]
    phase = [name for name, epoch in best.items() if epoch][-1]
    return training.history[phase][curve][best[phase] - 1]


@pytest.mark.parametrize("classes", CLASS_SETS, ids=len)
def test_the_delivered_model_is_the_one_that_learned(tmp_path: Path, classes: Classes) -> None:
    study = Study(tmp_path, classes)
    training = study.train()
    assert measure_accuracy(study, training) > 0.6, "brightness alone tells the classes apart"
    assert measure_accuracy(study, training) == pytest.approx(get_kept(training), abs=1e-6)
    table = predict(study, training, "validation")
    probabilities = get_probabilities(table, classes)
    assert probabilities.shape[1] == len(classes)
    labels = classes.positions(table["label"])
    loss = -np.log(probabilities[np.arange(len(labels)), labels]).mean()
    assert loss == pytest.approx(get_kept(training, "val_cross_entropy"), rel=0.02)
    assert set(training.history) == {"head", "fine_tuning"}
    curves = training.history["fine_tuning"]
    assert curves["val_cross_entropy"] != curves["val_loss"], "epochs are chosen without smoothing"
    report = training.training_report["training"]
    assert report["seconds"]["total"] >= report["seconds"]["fitting"] > 0
    assert training.training_tags["weights"] == "none"
    assert training.training_tags["precision"] == "float32"


@pytest.mark.parametrize(
    ("tta_horizontal_flip", "average_with_pretuned"), [(False, False), (True, True)]
)
def test_a_fold_is_trained_as_the_hold_out_is(
    study: Study,
    fitted: list[FittedNetwork],
    tta_horizontal_flip: bool,
    average_with_pretuned: bool,
) -> None:
    """The hold-out split is a cross-validation with one fold."""
    study.change(
        training={
            "tta_horizontal_flip": tta_horizontal_flip,
            "average_with_pretuned": average_with_pretuned,
            "label_smoothing": 0.0,
        }
    )
    study.plan = plan_augmentation(study.split, study.settings)
    training = study.train()
    study.plan = plan_all_images(study.split, study.settings)
    features = study.extract()
    fold = study.train_fold(features)
    of_model, of_fold = fitted
    for one, other in zip(
        of_model.network.full.get_weights(), of_fold.network.full.get_weights(), strict=True
    ):
        np.testing.assert_allclose(one, other, atol=1e-6)
    assert (of_fold.pretuned is not None) == average_with_pretuned
    table = fold.uncalibrated_predictions
    split = predict_split(of_fold, features, table, study.settings)
    np.testing.assert_array_equal(get_probabilities(table), split)
    by_model = predict(study, training)
    assert by_model["image_id"].tolist() == table["image_id"].tolist()
    # Features are kept in half precision, which the model does not know.
    np.testing.assert_allclose(get_probabilities(by_model), get_probabilities(table), atol=5e-3)
    alone = study.change(training={"tta_horizontal_flip": False})
    plain = predict_split(of_fold, features, table, alone)
    assert np.allclose(plain, split, atol=1e-6) != tta_horizontal_flip


def test_the_model_averages_over_windows(tmp_path: Path, fitted: list[FittedNetwork]) -> None:
    study = Study(tmp_path, windows=3, training={"tta_horizontal_flip": True})
    training = study.train()
    study.plan = plan_all_images(study.split, study.settings)
    features = study.extract()
    assert training.trained_model.input_shape == (None, 3, 32, 32, 3)
    table = predict(study, training)
    found = predict_split(fitted[0], features, table, study.settings)
    np.testing.assert_allclose(get_probabilities(table), found, atol=5e-3)
    rows = find_evaluation_rows(features, table["image_id"], flip=True)
    assert rows.shape == (len(table), 6)
    assert measure_accuracy(study, training) > 0.6
    tuned = fitted[0].network.trainable
    each = np.stack([tuned.predict_on_batch(features.values[own]) for own in rows.T])
    if fitted[0].pretuned is None:
        np.testing.assert_allclose(found, each.mean(axis=0), atol=1e-5)
    assert np.abs(each[0] - each[4]).max() > 0.01, "the windows are not the same"


def test_the_head_learns_from_augmented_images_where_it_shall(study: Study) -> None:
    study.change(training={"fine_tuning": {"epochs": 0}})
    pooled = study.pool(study.extract())
    data = prepare_training_data(pooled, study.split, study.settings, CLASSES)
    probes = {}
    for what in ("originals", "all"):
        study.change(training={"head_learns_from": what})
        probes[what] = fit_probe(pooled, data, study.settings)
    validation = PooledRows(read_rows(pooled, data.validation.rows), data.validation.labels)
    for what, rows in (("originals", data.training.rows[:, -1:]), ("all", data.training.rows)):
        taught = PooledRows(read_rows(pooled, rows), data.training.labels)
        expected = fit_linear_probe(taught, validation, data.class_weights.tolist(), STRENGTHS)
        np.testing.assert_allclose(probes[what].kernel, expected.kernel, atol=1e-6)
    assert np.abs(probes["all"].kernel - probes["originals"].kernel).max() > 1e-5


def test_a_fold_of_a_network_that_is_not_tuned(study: Study, fitted: list[FittedNetwork]) -> None:
    study.change(training={"fine_tuning": {"epochs": 0}})
    training = study.train()
    study.plan = plan_all_images(study.split, study.settings)
    table = study.train_fold(fold=Fold(1, 2)).uncalibrated_predictions
    by_model = predict(study, training)
    np.testing.assert_allclose(get_probabilities(by_model), get_probabilities(table), atol=5e-3)
    assert set(training.history) == {"head"}
    assert training.training_report["training"]["fine_tuned_parameters"] > 0


def test_the_same_seed_gives_the_same_model(study: Study, tmp_path: Path) -> None:
    other = Study(tmp_path / "another")
    for one, again in zip(
        study.train().trained_model.get_weights(),
        other.train().trained_model.get_weights(),
        strict=True,
    ):
        np.testing.assert_allclose(one, again, atol=1e-5)


@pytest.mark.parametrize("classes", CLASS_SETS, ids=len)
def test_the_head_is_initialised_from_the_linear_probe(tmp_path: Path, classes: Classes) -> None:
    """The probe alone says what the network says before it is tuned."""
    study = Study(tmp_path, classes)
    study.change(training={"fine_tuning": {"optimizer": {RATE: 1e-12}}})
    study.split = study.split.drop(index=study.split.index[:12])  # so that classes weigh unequally
    study.plan = plan_augmentation(study.split, study.settings)
    features = study.extract()
    training = study.train(features)
    pooled = study.pool(features)
    data = prepare_training_data(pooled, study.split, study.settings, classes)
    assert len(set(data.class_weights)) > 1
    training_rows, validation_rows = (
        PooledRows(
            read_rows(pooled, find_evaluation_rows(pooled, of_part["image_id"], flip=False)),
            classes.positions(of_part["label"]),
        )
        for of_part in (study.split[study.split["split"] == x] for x in ("train", "validation"))
    )
    probe = fit_linear_probe(training_rows, validation_rows, data.class_weights.tolist(), STRENGTHS)
    found = get_probabilities(predict(study, training, "validation"), classes)
    np.testing.assert_allclose(found, probe.predict(validation_rows.vectors), atol=5e-3)
    same = fit_probe(pooled, data, study.settings)
    np.testing.assert_allclose(same.kernel, probe.kernel, atol=1e-6)
    curves = training.history["head"]
    assert [len(curve) for curve in curves.values()] == [1] * 6
    loss = log_loss(validation_rows.labels, probe.predict(validation_rows.vectors))
    assert curves["val_cross_entropy"][0] == pytest.approx(loss, abs=1e-3)


def test_a_head_can_be_fitted_by_gradient(study: Study) -> None:
    study.change(
        training={
            "head_solver": "gradient",
            "head": {"dense_units": 4, "batch_normalization": True},
            "head_phase": {"epochs": 3, "patience": 3, "optimizer": {RATE: 0.02}},
            "fine_tuning": {"epochs": 0},
        }
    )
    training = study.train()
    assert set(training.history) == {"head"}
    assert len(training.history["head"]["val_loss"]) == 3
    assert measure_accuracy(study, training) == pytest.approx(get_kept(training), abs=1e-6)


def test_tuning_alone_begins_with_a_random_head(study: Study) -> None:
    study.change(
        training={
            "head_solver": "gradient",
            "head_phase": {"epochs": 0},
            "fine_tuning": {"epochs": 3, "optimizer": {RATE: 50.0}},
        }
    )
    training = study.train()
    assert set(training.history) == {"fine_tuning"}
    best = training.training_report["training"]["best_epoch"]
    assert best["fine_tuning"] > 0, "nothing worth going back to"


def test_where_nothing_is_tuned_the_probe_is_the_model(
    study: Study, fitted: list[FittedNetwork]
) -> None:
    study.change(training={"fine_tuning": {"epochs": 0}, "average_with_pretuned": True})
    study.train()
    assert set(fitted[0].phases) == {"head"}
    assert fitted[0].pretuned is None


@pytest.mark.parametrize("average_with_pretuned", [False, True])
def test_tuning_that_does_not_help_is_rolled_back(
    study: Study, fitted: list[FittedNetwork], average_with_pretuned: bool
) -> None:
    study.change(
        training={
            "average_with_pretuned": average_with_pretuned,
            "fine_tuning": {"optimizer": {RATE: 50.0}},
        }
    )
    training = study.train()
    assert training.training_report["training"]["best_epoch"]["fine_tuning"] == 0
    assert fitted[0].pretuned is None
    assert measure_accuracy(study, training) == pytest.approx(get_kept(training), abs=1e-6)
    study.change(training={"fine_tuning": {"optimizer": {RATE: 1e-12}}})
    before = study.train()
    np.testing.assert_allclose(
        get_probabilities(predict(study, training)),
        get_probabilities(predict(study, before)),
        atol=1e-5,
    )


def test_a_useful_average_with_the_pretuned_is_delivered(
    study: Study, fitted: list[FittedNetwork], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    study.change(training={"average_with_pretuned": True, "label_smoothing": 0.0})
    training = study.train()
    assert training.training_report["training"]["best_epoch"]["fine_tuning"] > 0
    assert fitted[0].pretuned is not None
    table = predict(study, training)
    frozen, tuned, pretuned = (
        training.trained_model.get_layer(name) for name in ("frozen", "trainable", "pretuned")
    )
    features = frozen(study.images.values[study.images.find_rows(table["image_id"])])
    answers = [np.asarray(part(features)) for part in (tuned, pretuned)]
    assert np.abs(answers[0] - answers[1]).max() > 1e-4
    np.testing.assert_allclose(get_probabilities(table), np.mean(answers, axis=0), atol=1e-6)
    validation = (table["split"] == "validation").to_numpy()
    labels = CLASSES.positions(table["label"])[validation]
    before, mean = (log_loss(labels, p[validation]) for p in (answers[1], np.mean(answers, axis=0)))
    assert mean < before, "else it would not be delivered"
    assert f"validation cross-entropy {mean:.3f}, from {before:.3f}" in caplog.text
    study.change(training={"fine_tuning": {"optimizer": {RATE: 1e-12}}})
    untouched = get_probabilities(predict(study, study.train()))
    np.testing.assert_allclose(untouched, answers[1], atol=1e-5)


def test_the_model_averages_over_the_flip(study: Study, fitted: list[FittedNetwork]) -> None:
    study.change(training={"tta_horizontal_flip": True})
    study.plan = plan_augmentation(study.split, study.settings)
    training = study.train()
    table = predict(study, training)
    images = study.images.values[study.images.find_rows(table["image_id"])]
    full = fitted[0].network.full
    answers = [np.asarray(full(x)) for x in (images, images[:, :, ::-1])]
    np.testing.assert_allclose(get_probabilities(table), np.mean(answers, axis=0), atol=1e-5)
    assert training.trained_model.name.startswith("tiny_")
