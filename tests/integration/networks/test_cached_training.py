"""A training is taken from the cache where nothing changed that decides it, else made anew.

Nothing is trained here: a network with random weights stands for a trained one.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest

from busi_pipeline.caching.arrays import StoredArray
from busi_pipeline.caching.cache import Cache, Codec
from busi_pipeline.caching.fingerprints import Fingerprint
from busi_pipeline.errors import BadInputError
from busi_pipeline.learning import device
from busi_pipeline.learning import features as features_module
from busi_pipeline.learning.device import Device
from busi_pipeline.learning.features import build_for_training
from busi_pipeline.learning.fitting import NotFiniteError, PhaseResult
from busi_pipeline.learning.folds import Fold
from busi_pipeline.learning.training import FittedNetwork
from busi_pipeline.models.backbones import BACKBONES
from busi_pipeline.models.weights import PretrainedWeights
from busi_pipeline.pipelines.preprocessing.nodes import plan_all_images, plan_originals
from busi_pipeline.pipelines.training import nodes
from busi_pipeline.pipelines.training.nodes import FoldTraining, gather_folds
from busi_pipeline.stats.classes import Classes
from busi_pipeline.stats.metrics import score_classification
from busi_pipeline.stats.scoring import probability_columns
from tests.factories import CLASSES
from tests.learning_factories import BRIGHTNESS, Study

CURVES = {"loss": [1.0, 0.5], "val_cross_entropy": [0.9, 0.8]}


@pytest.fixture
def study(study_with_features: Study) -> Study:
    return study_with_features


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[FittedNetwork]:
    """List the trainings that take place."""
    done: list[FittedNetwork] = []

    def train_network(
        features: StoredArray,
        pooled_features: StoredArray,
        split: pd.DataFrame,
        settings: Any,
        weights: PretrainedWeights,
        classes: Classes,
        device: Device,
    ) -> FittedNetwork:
        network = build_for_training(settings, weights, len(classes), device)
        phases = {"head": PhaseResult(CURVES, 1, 0.5), "fine_tuning": PhaseResult(CURVES, 2, 1.5)}
        done.append(FittedNetwork(network, phases, None, 2.5))
        return done[-1]

    monkeypatch.setattr(nodes, "train_network", train_network)
    return done


def plan_folds(study: Study) -> Study:
    """Let features hold all images, as those of a cross-validation do."""
    study.plan = plan_all_images(study.split, study.settings)
    return study


KINDS: dict[str, Callable[[Study], Any]] = {
    "train_model": lambda study: study.train(),
    "train_fold": lambda study: plan_folds(study).train_fold(),
}
every_kind = pytest.mark.parametrize("train", KINDS.values(), ids=list(KINDS))


def get_tags(trained: Any) -> dict[str, str]:
    return trained.fold_record["tags"] if isinstance(trained, FoldTraining) else trained[3]


@every_kind
def test_an_unchanged_training_is_taken_from_the_cache(
    study: Study, trainings: list[FittedNetwork], train: Callable[[Study], Any]
) -> None:
    first, again = train(study), train(study)
    assert len(trainings) == 1
    before, after = get_tags(first), get_tags(again)
    assert (before["training_cached"], after["training_cached"]) == ("no", "yes")
    assert before["training_sha256"] == after["training_sha256"]
    assert before["weights"] == "none"
    assert before["precision"] == "float32"
    if isinstance(first, FoldTraining):
        pd.testing.assert_frame_equal(
            first.uncalibrated_predictions, again.uncalibrated_predictions
        )
        assert first.fold_record["metrics"] == again.fold_record["metrics"]
    else:
        assert first.history == again.history
        assert first.trained_model.name == again.trained_model.name
        for one, other in zip(
            first.trained_model.get_weights(), again.trained_model.get_weights(), strict=True
        ):
            np.testing.assert_array_equal(one, other)
    assert first.trained_with == again.trained_with


def swap_labels(study: Study) -> None:
    """Let two training images have each other's label."""
    rows = [study.split.index[0], study.split.index[10]]
    study.split.loc[rows, "label"] = study.split.loc[rows[::-1], "label"].to_numpy()


def swap_parts(study: Study) -> None:
    """Let a training and a validation image of one class have each other's part."""
    rows = [study.split.index[0], study.split.index[3]]
    study.split.loc[rows, "split"] = ["validation", "train"]
    study.plan = plan_all_images(study.split, study.settings)


def change_image(study: Study) -> None:
    keys = list(study.images.keys)
    keys[0] = "another picture"
    study.images = replace(study.images, keys=keys)


def change_weights(study: Study) -> None:
    """Let pretrained weights be others, without a file of them."""
    chosen = PretrainedWeights(None, {"weights": "none", "weights_sha256": "other"})
    study.source.choose = lambda *_: chosen  # type: ignore[method-assign]


CHANGES: dict[str, Callable[[Study], Any]] = {
    "label": swap_labels,
    "part": swap_parts,
    "image": change_image,
    "images": lambda study: setattr(
        study, "images", replace(study.images, fingerprint=Fingerprint("images", {"size": 33}))
    ),
    "class order": lambda study: setattr(
        study, "classes", Classes(CLASSES.names[::-1], CLASSES.positive)
    ),
    "order of images": lambda study: setattr(study, "split", study.split[::-1]),
    "seed": lambda study: study.change(training={"seed": 1}),
    "class weights": lambda study: study.change(training={"class_weights": "none"}),
    "label smoothing": lambda study: study.change(training={"label_smoothing": 0.2}),
    "flip": lambda study: study.change(training={"tta_horizontal_flip": True}),
    "pretuned": lambda study: study.change(training={"average_with_pretuned": True}),
    "epochs": lambda study: study.change(training={"fine_tuning": {"epochs": 3}}),
    "rate": lambda study: study.change(
        training={"fine_tuning": {"optimizer": {"learning_rate": 0.1}}}
    ),
    "solver": lambda study: study.change(training={"head_solver": "gradient"}),
    "dropout": lambda study: study.change(training={"head": {"dropout": 0.1}}),
    "augmentation": lambda study: study.change(augmentation={"zoom": 0.2}),
    "tail": lambda study: study.change(truncate_at="block3_out"),
    "precision": lambda study: study.change(training={"precision": "mixed_bfloat16"}),
    "weights": change_weights,
}


class AskedError(Exception):
    """The cache was asked for a training; the argument is its fingerprint."""


class AskedCache(Cache):
    """Computes arrays as a cache does, and says what training it is asked for."""

    def find(self, fingerprint: Fingerprint, codec: Codec[Any]) -> None:
        raise AskedError(fingerprint)


@pytest.fixture
def asked(study: Study, monkeypatch: pytest.MonkeyPatch) -> Study:
    """A study that stops where it asks the cache, and builds no network for its features."""
    monkeypatch.setattr(features_module, "build_for_training", lambda *_: BRIGHTNESS)
    monkeypatch.setattr(features_module, "build_frozen_model", lambda *_: BRIGHTNESS.frozen)
    study.cache = AskedCache(study.cache._folder)
    return plan_folds(study)


def ask(study: Study, train: Callable[[Study], Any]) -> Fingerprint:
    with pytest.raises(AskedError) as caught:
        train(study)
    return caught.value.args[0]


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
def test_any_change_that_decides_it_trains_anew(
    asked: Study, change: Callable[[Study], Any]
) -> None:
    """On a fold; that a model is identified by the same values is a test below."""
    train = KINDS["train_fold"]
    first = ask(asked, train)
    change(asked)
    second = ask(plan_folds(asked), train)
    assert second.digest != first.digest
    differing = {key for key in first.values if first.values[key] != second.values[key]}
    assert differing - {"evaluated"}, "else a model would be taken from the cache"


@every_kind
@pytest.mark.parametrize("part", ["name", "precision"])
def test_another_device_trains_anew(
    asked: Study, train: Callable[[Study], Any], part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare = device.prepare_device
    first = ask(asked, train)
    monkeypatch.setattr(
        device, "prepare_device", lambda _: prepare("float32")._replace(**{part: "x"})
    )
    second = ask(asked, train)
    assert first.values["device"] != second.values["device"]
    assert first.digest != second.digest


@every_kind
def test_what_does_not_decide_it_changes_nothing(
    asked: Study, train: Callable[[Study], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ask(asked, train)
    asked.change(title="another title", in_default=False, baseline_of="vgg16")
    asked.split = asked.split.assign(group="one", path="elsewhere")
    monkeypatch.setitem(BACKBONES, "new", replace(BACKBONES["tiny"], builder="VGG19"))
    assert ask(asked, train) == first


def test_hold_out_and_fold_are_trainings_of_their_own(asked: Study) -> None:
    model, fold = (ask(asked, train) for train in KINDS.values())
    shared = {key: fold.values[key] for key in model.values}
    assert shared == model.values
    assert fold.values.keys() - model.values.keys() == {"evaluated"}
    assert model.step != fold.step


def test_other_test_images_are_another_fold(asked: Study) -> None:
    """A model does not depend on them, but the cached predictions of a fold are of them."""
    before = [ask(asked, train) for train in KINDS.values()]
    assert asked.split["split"].iloc[4] == "test"
    asked.split = asked.split.drop(index=asked.split.index[4])
    after = [ask(asked, train) for train in KINDS.values()]
    assert after[0].values["rows"] == before[0].values["rows"]
    assert after[1].values["evaluated"] != before[1].values["evaluated"]


def test_a_damaged_training_is_made_anew(
    study: Study, trainings: list[FittedNetwork], caplog: pytest.LogCaptureFixture
) -> None:
    study.train()
    (model,) = study.cache._folder.rglob("model.keras")
    model.write_bytes(model.read_bytes()[:-100])
    assert study.train().training_tags["training_cached"] == "no"
    assert len(trainings) == 2
    assert "damaged" in caplog.text


@pytest.mark.parametrize("train", KINDS.values(), ids=KINDS)
def test_a_training_that_is_no_number_any_more_is_not_kept(
    study: Study,
    trainings: list[FittedNetwork],
    train: Callable[[Study], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stop(*args: Any, **kwargs: Any) -> FittedNetwork:
        inputs = keras.Input((2,))
        raise NotFiniteError("head, epoch 2, batch 1: nan.", keras.Model(inputs, inputs))

    with monkeypatch.context() as patch:
        patch.setattr("busi_pipeline.pipelines.training.nodes.train_network", stop)
        with pytest.raises(
            BadInputError, match=r"epoch 2, batch 1: nan.*last good weights"
        ) as said:
            train(study)
    kept = Path(str(said.value).rpartition(" are in ")[2].rstrip("."))
    assert keras.saving.load_model(kept).input_shape == (None, 2)
    assert get_tags(train(study))["training_cached"] == "no"


def test_predictions_of_a_fold_name_image_and_fold(
    study: Study, trainings: list[FittedNetwork]
) -> None:
    plan_folds(study).split["group"] = "g" + study.split["image_id"]
    trained = study.train_fold(fold=Fold(2, 3))
    table = trained.uncalibrated_predictions
    columns = probability_columns(CLASSES, uncalibrated=True)
    assert list(table.columns) == [
        *("image_id", "group", "label", "split", "repeat", "fold"),
        *columns,
    ]
    evaluated = study.split[study.split["split"] != "train"]
    for name in ("image_id", "group", "label", "split"):
        assert table[name].tolist() == evaluated[name].tolist()
    assert set(table["repeat"]) == {2}
    assert set(table["fold"]) == {3}
    np.testing.assert_allclose(table[columns].sum(axis=1), 1, rtol=1e-9)
    assert trained.fold_record["tags"]["fold"] == "repeat_2_fold_3"
    metrics = trained.fold_record["metrics"]
    assert metrics["seconds"] == {"fitting": 2.5}
    assert metrics["best_epoch"] == {"head": 1, "fine_tuning": 2}
    test = table[table["split"] == "test"]
    assert metrics["test"] == score_classification(
        CLASSES.positions(test["label"]), test[columns].to_numpy(), CLASSES
    )


def test_a_cached_fold_takes_groups_and_fold_of_now(
    study: Study, trainings: list[FittedNetwork]
) -> None:
    first = plan_folds(study).train_fold(fold=Fold(1, 1)).uncalibrated_predictions
    study.split["group"] = "other"
    again = study.train_fold(fold=Fold(1, 2)).uncalibrated_predictions
    assert len(trainings) == 1
    assert set(again["group"]) == {"other"}
    assert set(again["fold"]) == {2}
    pd.testing.assert_frame_equal(
        first.drop(columns=["group", "fold"]), again.drop(columns=["group", "fold"])
    )


def test_the_report_says_what_the_training_took(
    study: Study, trainings: list[FittedNetwork]
) -> None:
    features = study.extract()
    trained = study.train(features)
    report = trained.training_report["training"]
    pooled = study.pool(features)
    seconds = report["seconds"]
    assert seconds["fitting"] == 2.5
    assert (seconds["head"], seconds["fine_tuning"]) == (0.5, 1.5)
    both = features.metadata["seconds"] + pooled.metadata["seconds"]
    assert seconds["features"] == pytest.approx(both)
    assert seconds["total"] == pytest.approx(both + 2.5)
    assert report["epochs"] == {"head": 2, "fine_tuning": 2}
    assert report["best_epoch"] == {"head": 1, "fine_tuning": 2}
    assert report["class_weight"] == pytest.approx(dict.fromkeys(CLASSES, 1.0))
    network = trainings[0].network
    assert report["parameters"] == network.full.count_params()
    tuned = sum(int(np.prod(w.shape)) for w in network.trainable.trainable_weights)
    assert 0 < report["fine_tuned_parameters"] == tuned < report["parameters"]
    again = study.train().training_report["training"]
    assert again["seconds"]["total"] == pytest.approx(seconds["total"]), "as if from nothing"
    assert again["seconds"]["features_now"] == 0


def test_features_count_once_where_nothing_is_tuned(
    study: Study, trainings: list[FittedNetwork]
) -> None:
    study.change(training={"fine_tuning": {"epochs": 0}})
    features = study.extract()
    seconds = study.train(features).training_report["training"]["seconds"]
    assert seconds["features"] == features.metadata["seconds"]


def test_classes_are_kept_with_the_training(study: Study, trainings: list[FittedNetwork]) -> None:
    trained = study.train()
    assert trained.trained_with["classes"] == list(CLASSES)
    assert trained.trained_with["settings"]["backbone"] == "tiny"
    assert "title" not in trained.trained_with["settings"]
    assert trained.trained_with == plan_folds(study).train_fold().trained_with


def test_folds_are_put_together_in_order(study: Study, trainings: list[FittedNetwork]) -> None:
    plan_folds(study)
    parts: dict[str, Any] = {}
    for fold in (Fold(1, 1), Fold(1, 2)):
        trained = study.train_fold(fold=fold)
        parts[f"{fold.name}__predictions"] = trained.uncalibrated_predictions
        parts[f"{fold.name}__record"] = trained.fold_record
    table, report, tags = gather_folds(**parts)
    assert table["fold"].tolist() == [1] * 12 + [2] * 12
    assert table.index.tolist() == list(range(24))
    assert report == {"training": {"seconds": {"fitting": 5.0, "total": 5.0}, "folds": 2}}
    assert "fold" not in tags
    assert "training_cached" not in tags, "one of them was cached"
    assert tags["weights"] == "none"
    assert tags["precision"] == "float32"


def test_a_plan_of_originals_is_enough_to_evaluate(study: Study) -> None:
    plan = plan_originals(study.split, study.change(training={"tta_horizontal_flip": True}))
    assert plan["augmentation"].value_counts().to_dict() == {0: 30, -1: 30}
