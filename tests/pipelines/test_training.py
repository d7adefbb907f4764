"""Training: class weights, the order of views, and features that fit the settings."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from busi_pipeline.arrays import StoredArray
from busi_pipeline.core.feed import ViewFeed
from busi_pipeline.datasets.array_store import ArrayStoreDataset
from busi_pipeline.datasets.pretrained_weights import WeightsSource
from busi_pipeline.errors import BadInputError
from busi_pipeline.experiments import resolve_experiment
from busi_pipeline.pipelines.augmentation.nodes import plan_augmentation
from busi_pipeline.pipelines.evaluation.nodes import predict_images
from busi_pipeline.pipelines.training.nodes import (
    compute_class_weights,
    extract_features,
    train_model,
)
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
    feed = ViewFeed(
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
    feed = ViewFeed(values, rows, one_hot, ones, batch_size=3, seed=5)
    assert len(feed) == 3
    seen: list[set[int]] = []
    orders = []
    for _ in range(views):
        batches = [feed[i] for i in range(len(feed))]
        shown = np.concatenate([b[0] for b in batches]).ravel().astype(int)
        labels = np.concatenate([b[1] for b in batches]).argmax(axis=1)
        np.testing.assert_array_equal(shown // views, labels)
        assert sorted(labels) == list(range(images))
        seen.append(set(shown))
        orders.append(labels.tolist())
        feed.on_epoch_end()
    assert set.union(*seen) == set(range(images * views))
    assert sum(map(len, seen)) == images * views
    assert orders[0] != orders[1]


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
        brightness = {"benign": 40, "malignant": 120, "normal": 200}
        pixels = np.stack([rng.normal(brightness[label], 25, (32, 32, 3)) for label in labels])
        self.images = StoredArray(
            self.split[["image_id"]], np.clip(pixels, 0, 255).astype(np.uint8), {}
        )
        self.plan = plan_augmentation(self.split, settings)
        self.store = ArrayStoreDataset(str(folder / "features"))

    def extract(self) -> StoredArray:
        stream = extract_features(
            self.images, self.plan, self.split, self.settings, WeightsSource(None), CLASSES
        )
        self.store.save(stream)
        return self.store.load()


@pytest.fixture
def small(tmp_path: Path, shared: tuple[dict[str, Any], dict[str, Any]]) -> Small:  # noqa: F811
    row = {
        "title": "small",
        "backbone": "resnet50",
        "image_size": 32,
        "tail_after": "conv2_block1_out",
        "base_end": "conv2_block2_out",
        "augmentation": {"views": 2, "brightness": 0},
        "training": {
            "weights": "none",
            "precision": "float32",
            "average_mirror": False,
            "head": {"batch_normalization": True, "batch_normalization_momentum": 0.7},
            "head_phase": {"epochs": 8, "optimizer": {"learning_rate": 0.02}},
            "fine_tuning": {"epochs": 2},
        },
    }
    return Small(tmp_path, resolve_experiment(row, *shared).model_dump(exclude_none=True))


def test_features_hold_training_views_and_validation_but_no_test_image(small: Small) -> None:
    features = small.extract()
    index = features.index
    assert features.values.dtype == np.float16
    assert len(features.values) == len(index) == 54 * 2 + 18
    of_split = small.split.set_index("image_id")["split"]
    splits = index["image_id"].map(of_split)
    assert set(splits[index["view"] > 0]) == {"train"}
    assert set(splits[index["view"] == 0]) == {"validation"}


def test_training_learns_and_the_delivered_model_agrees_with_what_was_trained(
    small: Small,
) -> None:
    training = train_model(
        small.extract(), small.split, small.settings, WeightsSource(None), CLASSES
    )
    predictions = predict_images(training.model, small.images, small.split, small.settings, CLASSES)
    assert set(predictions["split"]) == {"validation", "test"}
    validation = predictions[predictions["split"] == "validation"]
    assert validation["correct"].mean() > 0.6, "brightness alone tells the classes apart"
    curves = training.history["fine_tuning"]
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


def test_same_seed_same_model(small: Small) -> None:
    features = small.extract()
    weights = [
        train_model(
            features, small.split, small.settings, WeightsSource(None), CLASSES
        ).model.get_weights()
        for _ in range(2)
    ]
    for one, other in zip(*weights, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_features_of_other_settings_are_refused(small: Small) -> None:
    features = small.extract()
    small.settings["image_size"] = 64
    with pytest.raises(BadInputError, match="made with image_size 32, the settings say 64"):
        train_model(features, small.split, small.settings, WeightsSource(None), CLASSES)


def test_a_changed_split_is_noticed(small: Small) -> None:
    features = small.extract()
    small.split["split"] = small.split["split"].replace({"test": "train", "train": "test"})
    with pytest.raises(BadInputError, match="train images have no features"):
        train_model(features, small.split, small.settings, WeightsSource(None), CLASSES)


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


def test_fine_tuning_that_does_not_help_is_undone(small: Small) -> None:
    small.settings["training"]["fine_tuning"]["optimizer"]["learning_rate"] = 50.0
    training = train_model(
        small.extract(), small.split, small.settings, WeightsSource(None), CLASSES
    )
    assert training.report["training"]["best_epoch"]["fine_tuning"] == 0
    head = training.history["head"]
    kept = head["val_accuracy"][int(np.argmin(head["val_loss"]))]
    table = predict_images(training.model, small.images, small.split, small.settings, CLASSES)
    validation = table[table["split"] == "validation"]
    assert validation["correct"].mean() == pytest.approx(kept, abs=1e-6)
