"""Training: class weights, the order of views, features that fit the settings, what is kept."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from busi_pipeline.caching.arrays import ArrayStream, StoredArray
from busi_pipeline.stats.calibration import Calibration
from busi_pipeline.learning.batches import FeatureBatches, as_keras_input
from busi_pipeline.datasets.array_store import ArrayStoreDataset
from busi_pipeline.datasets.kept_training import KeptTraining
from busi_pipeline.datasets.pretrained_weights import WeightsSource
from busi_pipeline.errors import BadInputError
from busi_pipeline.config.experiments import merge_settings, resolve_experiment
from busi_pipeline.stats.scoring import Decision, apply_operating_point
from busi_pipeline.pipelines.preprocessing.nodes import plan_augmentation
from busi_pipeline.pipelines.evaluation.nodes import predict_images
from busi_pipeline.pipelines.training import features as training_features
from busi_pipeline.pipelines.training import nodes as training_nodes
from busi_pipeline.learning.features import (
    extract_features,
    label_rows,
    pool_features,
)
from busi_pipeline.learning.training import (
    Training,
    compute_class_weights,
    read_originals,
    train_model,
)
from busi_pipeline.learning.linear_probe import PooledRows, fit_linear_probe
from tests.conftest import CLASSES
from tests.test_experiments import shared  # noqa: F401  # a fixture


def test_class_weights_come_from_counts() -> None:
    labels = np.array([0] * 6 + [1] * 3 + [2])
    np.testing.assert_allclose(
        compute_class_weights(labels, CLASSES, "balanced"), [10 / 18, 10 / 9, 10 / 3]
    )
    np.testing.assert_array_equal(compute_class_weights(labels, CLASSES, "none"), [1, 1, 1])


def test_class_weights_reach_the_loss(rng: np.random.Generator) -> None:
    """Keras ignores a class_weight dictionary with string keys; weights by position cannot go."""
    weights = compute_class_weights(np.array([0, 0, 0, 1, 1, 2]), CLASSES, "balanced")
    labels = np.array([0, 1, 2, 2])
    feed = FeatureBatches(
        rng.normal(size=(4, 5)),
        np.arange(4)[:, None],
        np.eye(3, dtype=np.float32)[labels],
        weights[labels].astype(np.float32),
        batch_size=4,
        seed=0,
    )
    _, one_hot, given = feed[0]
    np.testing.assert_allclose(given, weights[one_hot.argmax(axis=1)])
    assert len(set(given.tolist())) == 3


def test_each_epoch_shows_every_image_once_and_all_views_in_turn() -> None:
    images, views = 7, 3
    rows = np.arange(images * views).reshape(images, views)
    values = np.arange(images * views, dtype=np.float16)[:, None]
    one_hot, ones = np.eye(images, dtype=np.float32), np.ones(images, dtype=np.float32)
    feed = FeatureBatches(values, rows, one_hot, ones, batch_size=3, seed=5)
    assert len(feed) == 3
    seen: list[set[int]] = []
    orders = []
    for epoch in range(views):
        feed.begin_epoch(epoch)
        batches = [feed[i] for i in range(len(feed))]
        shown = np.concatenate([b[0] for b in batches]).ravel().astype(int)
        labels = np.concatenate([b[1] for b in batches]).argmax(axis=1)
        np.testing.assert_array_equal(shown // views, labels)
        assert sorted(labels) == list(range(images))
        seen.append(set(shown))
        orders.append(labels.tolist())
    assert set.union(*seen) == set(range(images * views))
    assert sum(map(len, seen)) == images * views
    assert orders[0] != orders[1]


def test_a_fit_shows_each_epoch_its_own_views() -> None:
    """Whatever Keras reads ahead or on trial, an epoch's batches are those of that epoch."""
    import keras

    images, views, epochs = 6, 3, 3
    shown: list[list[int]] = []

    class Recorder:
        def __len__(self) -> int:
            return images * views

        def __getitem__(self, row: int) -> np.ndarray:
            shown[-1].append(int(row))
            return np.zeros(2, dtype=np.float16)

    shown.append([])
    feed = FeatureBatches(
        Recorder(),
        np.arange(images * views).reshape(images, views),
        np.eye(images, dtype=np.float32),
        np.ones(images, dtype=np.float32),
        batch_size=4,
        seed=5,
    )

    def begin(epoch: int, _: object) -> None:
        shown.append([])
        feed.begin_epoch(epoch)

    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(images)])
    model.compile(optimizer="sgd", loss="mse")
    batches = as_keras_input(feed)
    callback = keras.callbacks.LambdaCallback(on_epoch_begin=begin)
    model.fit(batches, epochs=epochs, shuffle=False, callbacks=[callback], verbose=0)
    per_epoch = shown[-epochs:]
    assert all(sorted(row // views for row in rows) == list(range(images)) for rows in per_epoch)
    assert sorted(row for rows in per_epoch for row in rows) == list(range(images * views))


def test_an_epoch_can_show_several_views_of_an_image_and_validation_comes_in_order() -> None:
    images, views = 4, 3
    rows = np.arange(images * views).reshape(images, views)
    values = np.arange(images * views, dtype=np.float16)[:, None]
    one_hot, ones = np.eye(images, dtype=np.float32), np.ones(images, dtype=np.float32)

    def show(feed: FeatureBatches) -> list[int]:
        return np.concatenate([feed[i][0] for i in range(len(feed))]).ravel().astype(int).tolist()

    all_views = FeatureBatches(values, rows, one_hot, ones, 5, seed=5, augmented_per_epoch=8)
    assert len(all_views) == 3
    assert sorted(show(all_views)) == list(range(12))
    two_views = FeatureBatches(values, rows, one_hot, ones, 5, seed=5, augmented_per_epoch=2)
    first = show(two_views)
    two_views.begin_epoch(1)
    second = show(two_views)
    assert len(set(first)) == len(set(second)) == 8
    assert set(first) | set(second) == set(range(12)), "the third views come first in epoch two"
    in_order = FeatureBatches(values, rows[:, :1], one_hot, ones, 3, seed=5, shuffle=False)
    assert show(in_order) == [0, 3, 6, 9]


class Small:
    """Thirty pictures a class that brightness tells apart, and settings to learn from them."""

    def __init__(self, folder: Path, settings: dict[str, Any]):
        rng = np.random.default_rng(3)
        self.settings = settings
        labels = np.repeat(CLASSES, 30)
        self.split = pd.DataFrame(
            {
                "image_id": [f"{label}/{i}" for i, label in enumerate(labels)],
                "label": labels,
                "split": np.tile(["train"] * 18 + ["validation"] * 6 + ["test"] * 6, 3),
            }
        )
        self.split["group"] = self.split["image_id"]
        brightness = {"benign": 40, "malignant": 120, "normal": 200}
        pixels = np.stack([rng.normal(brightness[label], 25, (32, 32, 3)) for label in labels])
        self.images = StoredArray(
            self.split[["image_id"]],
            np.clip(pixels, 0, 255).astype(np.uint8),
            keys=self.split["image_id"].tolist(),
        )
        self.plan = plan_augmentation(self.split, settings)
        self.folder = folder

    def store(self, name: str, stream: ArrayStream) -> StoredArray:
        dataset = ArrayStoreDataset(str(self.folder / name), str(self.folder / "pool"))
        dataset.save(stream)
        return dataset.load()

    def extract(self) -> StoredArray:
        stream = extract_features(
            self.images, self.plan, self.settings, WeightsSource(None), CLASSES
        )
        return self.store("features", stream)

    def train(
        self, kept: KeptTraining | None = None, features: StoredArray | None = None
    ) -> Training:
        features = features or self.extract()
        source = WeightsSource(None)
        pooled = self.store("pooled", pool_features(features, self.settings, source, CLASSES))
        return train_model(features, pooled, self.split, self.settings, source, CLASSES, kept)

    def predict(self, training: Training) -> pd.DataFrame:
        raw = predict_images(training.model, self.images, self.split, self.settings, CLASSES)
        return apply_operating_point(raw, Decision(Calibration(1.0, (0.0, 0.0, 0.0)), 0.5, 0.9), CLASSES)


@pytest.fixture
def small(tmp_path: Path, shared: tuple[dict[str, Any], dict[str, Any]]) -> Small:  # noqa: F811
    row = {
        "title": "small",
        "backbone": "vgg16",
        "image_size": 32,
        "freeze_until": "block1_pool",
        "truncate_at": "block2_pool",
        "augmentation": {"views": 2, "brightness": 0},
        "training": {
            "weights": "none",
            "precision": "float32",
            "tta_horizontal_flip": False,
            "average_with_pretuned": False,
            "fine_tuning": {"epochs": 2},
        },
    }
    return Small(tmp_path, resolve_experiment(row, *shared).model_dump(exclude_none=True))


def test_features_hold_training_views_and_validation_but_no_test_image(small: Small) -> None:
    features = small.extract()
    index = features.index
    assert features.values.dtype == np.float16
    assert len(features.values) == len(index) == 54 * (2 + 1) + 18
    of_split = small.split.set_index("image_id")["split"]
    splits = index["image_id"].map(of_split)
    assert set(splits[index["view"] > 0]) == {"train"}
    assert set(splits[index["view"] == 0]) == {"train", "validation"}


def test_training_learns_and_the_delivered_model_agrees_with_what_was_trained(
    small: Small,
) -> None:
    training = small.train()
    predictions = small.predict(training)
    assert set(predictions["split"]) == {"validation", "test"}
    validation = predictions[predictions["split"] == "validation"]
    assert validation["correct"].mean() > 0.6, "brightness alone tells the classes apart"
    curves = training.history["fine_tuning"]
    assert curves["val_cross_entropy"] != curves["val_loss"], "epochs are chosen without smoothing"
    assert set(training.history) == {"head", "fine_tuning"}
    assert len(curves["val_accuracy"]) == 2
    report = training.report["training"]
    best = report["best_epoch"]["fine_tuning"]
    kept = (
        curves["val_accuracy"][best - 1]
        if best
        else training.history["head"]["val_accuracy"][report["best_epoch"]["head"] - 1]
    )
    assert validation["correct"].mean() == pytest.approx(kept, abs=1e-6)
    assert report["seconds"]["total"] >= report["seconds"]["fitting"] > 0
    assert training.tags["weights"] == "none"
    assert training.tags["precision"] == "float32"


def test_the_head_begins_as_the_probe(small: Small) -> None:
    """The probe alone, taken from the same features, says what the network says before tuning."""
    small.settings["training"]["fine_tuning"]["optimizer"]["learning_rate"] = 1e-12
    training = small.train()
    features = small.extract()
    source = WeightsSource(None)
    pooled = small.store("pooled", pool_features(features, small.settings, source, CLASSES))
    parts = {}
    for name in ("train", "validation"):
        views = label_rows(pooled, small.split, name, CLASSES)
        parts[name] = read_originals(pooled, views)
        assert parts[name].vectors.shape[1] == 1, "the plain view, the moved ones left out"
    weights = compute_class_weights(parts["train"].labels, CLASSES, "balanced")
    probe = fit_linear_probe(parts["train"], parts["validation"], weights.tolist())
    table = small.predict(training)
    told = table.loc[table["split"] == "validation", [f"raw_{name}" for name in CLASSES]]
    np.testing.assert_allclose(told, probe.predict(parts["validation"].vectors), atol=2e-3)


def test_a_head_can_be_fitted_by_gradient(small: Small) -> None:
    recipe = small.settings["training"]
    recipe["head_solver"] = "gradient"
    recipe["head"] |= {"dense_units": 4, "batch_normalization": True}
    recipe["head_phase"] = merge_settings(
        recipe["head_phase"], {"epochs": 3, "optimizer": {"learning_rate": 0.02}}
    )
    recipe["fine_tuning"]["epochs"] = 0
    training = small.train()
    assert set(training.history) == {"head"}
    assert len(training.history["head"]["val_loss"]) == 3


@pytest.mark.parametrize("classes", [2, 3])
def test_a_probe_is_scikit_learns_regression_on_standardised_features(
    classes: int, rng: np.random.Generator
) -> None:
    labels = np.arange(60) % classes
    vectors = (rng.normal(size=(60, 1, 5)) + labels[:, None, None]) * [1, 10, 0.1, 3, 1] + 7
    part = PooledRows(vectors.astype(np.float32), labels)
    probe = fit_linear_probe(part, part, [1.0] * classes)
    regression = make_pipeline(
        StandardScaler(), LogisticRegression(C=probe.strength, max_iter=1000)
    ).fit(vectors[:, 0], labels)
    np.testing.assert_allclose(
        probe.predict(part.vectors), regression.predict_proba(vectors[:, 0]), atol=1e-4
    )
    assert probe.strength == 0.1, "the weakest penalty fits best what it was fitted on"


def test_same_seed_same_model(small: Small) -> None:
    weights = [small.train().model.get_weights() for _ in range(2)]
    for one, other in zip(*weights, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_features_of_other_settings_are_refused(small: Small) -> None:
    features = small.extract()
    small.settings["image_size"] = 64
    with pytest.raises(BadInputError, match="made with image_size 32, the settings say 64"):
        small.train(features=features)


def test_a_changed_split_is_noticed(small: Small) -> None:
    features = small.extract()
    small.split["split"] = small.split["split"].replace({"test": "train", "train": "test"})
    with pytest.raises(BadInputError, match="train images have no features"):
        small.train(features=features)


def test_weights_that_cannot_be_had_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import keras

    with pytest.raises(BadInputError, match="BUSI_WEIGHTS_DIR is not set"):
        WeightsSource(None).choose("vgg16", "directory")
    with pytest.raises(BadInputError, match=r"vgg16_notop\.weights\.h5 is missing") as caught:
        WeightsSource(str(tmp_path)).choose("vgg16", "directory")
    assert all(word in str(caught.value) for word in ("'imagenet'", "'directory'", "'none'"))

    def refuse(**_: object) -> None:
        raise OSError("URL fetch failure on https://example.org: None -- unreachable")

    monkeypatch.setattr(keras.applications, "VGG16", refuse)
    with pytest.raises(BadInputError, match="could not download") as caught:
        WeightsSource(None).choose("vgg16", "imagenet")
    assert "'none'" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_file_is_used_and_its_hash_told(tmp_path: Path) -> None:
    import hashlib

    import keras

    base = keras.applications.VGG16(include_top=False, weights=None, input_shape=(32, 32, 3))
    path = tmp_path / "vgg16_notop.weights.h5"
    base.save_weights(path)
    chosen = WeightsSource(str(tmp_path)).choose("vgg16", "directory")
    assert chosen.tags["weights_file"] == path.name
    assert chosen.tags["weights_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    loaded = keras.applications.VGG16(
        include_top=False, weights=chosen.argument, input_shape=(32, 32, 3)
    )
    for one, other in zip(loaded.get_weights(), base.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("average_with_pretuned", [False, True])
def test_fine_tuning_that_does_not_help_is_undone(small: Small, average_with_pretuned: bool) -> None:
    small.settings["training"]["average_with_pretuned"] = average_with_pretuned
    small.settings["training"]["fine_tuning"]["optimizer"]["learning_rate"] = 50.0
    training = small.train()
    assert training.report["training"]["best_epoch"]["fine_tuning"] == 0
    head = training.history["head"]
    kept = head["val_accuracy"][int(np.argmin(head["val_cross_entropy"]))]
    table = small.predict(training)
    validation = table[table["split"] == "validation"]
    assert validation["correct"].mean() == pytest.approx(kept, abs=1e-6)


def test_the_delivered_model_averages_over_its_start(small: Small) -> None:
    alone = small.predict(small.train())
    optimizer = small.settings["training"]["fine_tuning"]["optimizer"]
    small.settings["training"] |= {"average_with_pretuned": True, "label_smoothing": 0.0}
    training = small.train()
    assert training.report["training"]["best_epoch"]["fine_tuning"] > 0
    columns = [f"raw_{name}" for name in CLASSES]
    model = training.model
    rows = small.images.find_rows(alone["image_id"])
    features = model.get_layer("frozen").predict(small.images.values[rows], verbose=0)
    tuned, start = (
        model.get_layer(name).predict(features, verbose=0) for name in ("trainable", "start")
    )
    assert np.abs(tuned - start).max() > 1e-4
    np.testing.assert_allclose(small.predict(training)[columns], (tuned + start) / 2, atol=1e-6)
    optimizer["learning_rate"] = 1e-12
    untouched = small.predict(small.train())
    np.testing.assert_allclose(untouched[columns], start, atol=1e-5)


def save_training(training: Training, folder: Path) -> KeptTraining:
    """Write what the catalog's entries write."""
    files = {name: folder / f"{name}.json" for name in ("history", "report", "tags")}
    training.model.save(folder / "model.keras")
    for name, path in files.items():
        path.write_text(json.dumps(getattr(training, name)))
    return KeptTraining(folder / "model.keras", **files)


class TrainedAgainError(Exception):
    """Somebody trains where nothing should be trained, or the other way round."""


def test_a_training_in_which_nothing_changed_is_kept_and_any_other_is_not(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = small.train()
    kept = save_training(first, tmp_path)

    def refuse(*_: object) -> None:
        raise TrainedAgainError

    monkeypatch.setattr(training_nodes, "fit_network", refuse)
    again = small.train(kept)
    assert (first.tags["training_kept"], again.tags["training_kept"]) == ("no", "yes")
    assert again.report == json.loads(json.dumps(first.report))
    for one, other in zip(first.model.get_weights(), again.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)

    small.settings["training"]["label_smoothing"] = 0.2
    with pytest.raises(TrainedAgainError):
        small.train(kept)
    small.settings["training"]["label_smoothing"] = 0.1
    original = small.split.copy()
    of_train = small.split["split"] == "train"
    small.split.loc[of_train, "label"] = small.split.loc[of_train, "label"].replace(
        {"benign": "malignant", "malignant": "benign"}
    )
    with pytest.raises(TrainedAgainError):
        small.train(kept)

    # A run stopped between writing the model and writing its tags leaves files of two trainings.
    small.split = original
    first.model.name = KeptTraining.name_model("vgg16", "0123456789abcdef" * 4)
    first.model.save(tmp_path / "model.keras")
    with pytest.raises(TrainedAgainError):
        small.train(kept)


def test_features_are_shared_by_all_who_can_use_them(small: Small) -> None:
    first = small.extract()
    rows = len(first.values)
    assert first.attributes["computed"] == rows

    small.settings["training"]["head_phase"]["epochs"] = 3
    small.settings["title"] = "another experiment on the same backbone"
    again = small.extract()
    assert again.attributes["computed"] == 0
    assert again.attributes["seconds"] == pytest.approx(first.attributes["seconds"])
    assert again.attributes["seconds_now"] == 0
    np.testing.assert_array_equal(again.values[range(rows)], first.values[range(rows)])

    small.split.loc[small.split.index[0], "split"] = "test"
    small.split.loc[small.split.index[25], "split"] = "train"  # a test image until now
    small.plan = plan_augmentation(small.split, small.settings)
    assert small.extract().attributes["computed"] == small.settings["augmentation"]["views"] + 1


@pytest.mark.parametrize(
    ("changed", "computed"),
    [
        ({"image_size": 33}, "all"),
        ({"freeze_until": "block2_pool", "truncate_at": "block3_pool"}, "all"),
        ({"augmentation": {"seed": 7}}, "training"),
    ],
)
def test_what_the_features_depend_on_makes_them_anew(
    small: Small, changed: dict[str, Any], computed: str
) -> None:
    small.extract()
    small.settings = merge_settings(small.settings, changed)
    if "image_size" in changed:
        small.images = replace(
            small.images, values=np.pad(small.images.values, [(0, 0), (0, 1), (0, 1), (0, 0)])
        )
    small.plan = plan_augmentation(small.split, small.settings)
    features = small.extract()
    views = (features.index["view"] > 0).sum()
    assert features.attributes["computed"] == (len(features.index) if computed == "all" else views)


def test_views_moved_on_the_device_give_nearly_the_same_features(small: Small) -> None:
    one_by_one = small.extract()
    small.settings["training"]["augment_on"] = "device"
    at_once = small.extract()
    rows = range(len(one_by_one.values))
    assert at_once.attributes["computed"] == len(rows), "moved otherwise, so not shared"
    one, other = (f.values[rows].astype(float).mean(axis=(1, 2, 3)) for f in (one_by_one, at_once))
    assert np.corrcoef(one, other)[0, 1] > 0.99
    plain = (one_by_one.index["view"] == 0).to_numpy()
    np.testing.assert_allclose(other[plain], one[plain], rtol=1e-3)


def test_nothing_is_built_where_nothing_is_computed(
    small: Small, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kept = save_training(small.train(), tmp_path)
    for module in (training_features, training_nodes):
        monkeypatch.setattr(module, "build_network", None)
        monkeypatch.setattr(module, "build_for_training", None)
    assert small.train(kept).tags["training_kept"] == "yes"


def test_changed_code_makes_features_anew(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    small.extract()
    monkeypatch.setattr(training_features, "describe_code", lambda *_, **__: {"code_sha256": "x"})
    features = small.extract()
    assert features.attributes["computed"] == len(features.values)
