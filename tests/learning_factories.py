"""Small networks, features and images to learn from, of any classes."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np
import pandas as pd
import pytest

from busi_pipeline.caching.arrays import WINDOW, StoredArray
from busi_pipeline.caching.cache import Cache
from busi_pipeline.config.schemas import (
    ExperimentSettings,
    HeadSettings,
    OptimizerSettings,
    PhaseSettings,
)
from busi_pipeline.datasets.pretrained_weights import WeightsSource
from busi_pipeline.imaging.affine import FLIPPED, ORIGINAL
from busi_pipeline.learning.folds import Fold
from busi_pipeline.learning.training_data import LabelledRows, TrainingData
from busi_pipeline.models.backbones import BACKBONES, TF, Backbone
from busi_pipeline.pipelines.feature_extraction.nodes import extract_features, pool_features
from busi_pipeline.pipelines.preprocessing.nodes import plan_augmentation
from busi_pipeline.pipelines.training.nodes import FoldTraining, Training, train_fold, train_model
from busi_pipeline.stats.classes import Classes
from tests.factories import CLASSES, make_settings, store_array

if TYPE_CHECKING:
    import keras

    from busi_pipeline.models.network import Network

HEAD = HeadSettings(
    pool_intermediate=True,
    dense_units=4,
    batch_normalization=True,
    batch_normalization_momentum=0.9,
    dropout=0.5,
)
TINY_SIZE = 32
TINY = Backbone("Tiny", TINY_SIZE, 8, TF, "block1_out", "tiny")


def build_tiny_network(
    classes: int = 3, head: HeadSettings = HEAD, seed: int = 0, **changes: Any
) -> "Network":
    """Build two blocks of `build_tiny_base` with random weights, the first of them frozen."""
    import keras

    from busi_pipeline.models.network import build_network

    keras.utils.set_random_seed(seed)
    cut = {"freeze_until": TINY.freeze_until, "truncate_at": "block2_out"}
    with mock.patch.object(keras.applications, TINY.builder, build_tiny_base, create=True):
        return build_network(
            name="tiny",
            backbone=TINY,
            image_size=TINY_SIZE,
            head=head,
            classes=classes,
            **({"weights": None} | cut | changes),
        )


def register_tiny_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `tiny` be a backbone: an entry of the table, a function of keras.applications."""
    import keras

    monkeypatch.setattr(keras.applications, TINY.builder, build_tiny_base, raising=False)
    monkeypatch.setitem(BACKBONES, "tiny", TINY)


def build_tiny_base(
    include_top: bool, weights: str | None, input_shape: tuple[int, int, int]
) -> "keras.Model":
    """Three residual blocks with batch normalisation, as a function of keras.applications."""
    from keras import Input, Model, layers

    assert not include_top
    images = x = Input(input_shape)
    for number in (1, 2, 3):
        block = f"block{number}"
        # No 1 x 1 convolution with strides: of so few channels, oneDNN corrupts memory (TF 2.21).
        reducing: Any = {"kernel_size": 3, "strides": 2, "padding": "same"}
        skipped = layers.Conv2D(4 * number, **reducing, name=f"{block}_0_conv")(x)
        x = layers.Conv2D(4 * number, **reducing, name=f"{block}_1_conv")(x)
        x = layers.BatchNormalization(name=f"{block}_1_bn")(x)
        x = layers.ReLU(name=f"{block}_1_relu")(x)
        x = layers.Conv2D(4 * number, 3, padding="same", name=f"{block}_2_conv")(x)
        x = layers.BatchNormalization(name=f"{block}_2_bn")(x)
        x = layers.ReLU(name=f"{block}_out")(layers.Add(name=f"{block}_add")([x, skipped]))
    base = Model(images, x, name="tiny_base")
    if weights is not None:
        base.load_weights(weights)
    return base


def draw_pictures(count: int, size: int = TINY_SIZE, seed: int = 0) -> np.ndarray:
    """Return uint8 (count, size, size, 3) of noise."""
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


# Backbones


@cache
def build_base(name: str) -> "tuple[keras.Model, str]":
    """Return a backbone at its minimum size, with random weights and statistics, and the name of
    the file that Keras would have downloaded for it."""
    import keras

    keras.utils.set_random_seed(1)
    backbone = BACKBONES[name]
    with _no_download() as asked:
        base = getattr(keras.applications, backbone.builder)(
            include_top=False,
            weights="imagenet",
            input_shape=(backbone.minimum_size, backbone.minimum_size, 3),
        )
    disturb_statistics(base, np.random.default_rng(1))
    return base, asked[0]


@contextmanager
def _no_download() -> Iterator[list[str]]:
    """Let Keras ask for its weights, and keep its random ones."""
    import keras
    from keras.src.utils import file_utils

    asked: list[str] = []

    def note(name: str, *_: Any, **__: Any) -> str:
        asked.append(name)
        return name

    with (
        mock.patch.object(file_utils, "get_file", note),
        mock.patch.object(keras.Model, "load_weights"),
    ):
        yield asked


@cache
def build_contract_network(name: str) -> "Network":
    """Return the network of a backbone as its entry has it, at its minimum size."""
    import keras

    from busi_pipeline.models.network import build_network

    keras.utils.set_random_seed(0)
    backbone = BACKBONES[name]
    return build_network(
        name, backbone, backbone.minimum_size, backbone.freeze_until, None, HEAD, 3, None
    )


def draw_pictures_for(backbone: Backbone, count: int = 2) -> np.ndarray:
    """Return pictures of the minimum size."""
    return draw_pictures(count, backbone.minimum_size)


def disturb_statistics(model: "keras.Model", rng: np.random.Generator) -> None:
    """Give every BatchNormalization statistics other than those it is initialised with."""
    import keras

    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights(
                [rng.uniform(0.5, 1.5, w.shape).astype(np.float32) for w in layer.get_weights()]
            )


# Features


def store_features(
    image_ids: list[str], values: np.ndarray, augmentations: tuple[int, ...] = (ORIGINAL, FLIPPED)
) -> StoredArray:
    """Return features of images, augmentation by augmentation, each half above the one before."""
    count = len(augmentations)
    return store_array(
        image_ids * count,
        np.concatenate([values + 0.5 * step for step in range(count)]).astype(np.float16),
        augmentation=np.repeat(augmentations, len(image_ids)),
    )


def make_phase(**changes: Any) -> PhaseSettings:
    """Return settings of a phase: five epochs of Adam at a constant rate."""
    optimizer = {
        "name": "adam",
        "learning_rate": 0.05,
        "weight_decay": 0.0,
        "momentum": 0.0,
        "ema_momentum": 0.0,
        "schedule": "constant",
        "plateau_patience": 1,
        "plateau_factor": 0.5,
    }
    phase = {"epochs": 5, "batch_size": 16, "patience": 5, "augmented_per_epoch": 1}
    own = {key: changes.pop(key) for key in list(changes) if key in phase}
    return PhaseSettings(**(phase | own), optimizer=OptimizerSettings(**(optimizer | changes)))


def make_training_data(
    classes: int = 3,
    per_class: int = 10,
    *,
    class_weights: list[float] | None = None,
    label_smoothing: float = 0.0,
) -> tuple[np.ndarray, TrainingData]:
    """Return features float32 (rows, 4) whose class is told by their place, and what to learn.

    Two images in three are for training; each has one row.
    """
    labels = np.tile(np.arange(classes), per_class)
    rng = np.random.default_rng(0)
    values = rng.normal(size=(len(labels), 4)) + 2 * np.eye(classes, 4)[labels]
    rows = np.arange(len(labels))
    training = rows % 3 < 2 if classes != 3 else rows // classes % 3 < 2
    return values.astype(np.float32), TrainingData(
        LabelledRows(rows[training][:, None], labels[training]),
        LabelledRows(rows[~training][:, None], labels[~training]),
        np.array(class_weights or [1.0] * classes),
        label_smoothing,
    )


# Images to learn from


_brightness = SimpleNamespace(
    name="brightness", predict_on_batch=lambda x: np.mean(x, axis=(1, 2))[:, None, None, :3]
)
# Stands for a network where its features are not looked at.
BRIGHTNESS: Any = SimpleNamespace(frozen=_brightness, tail=_brightness)


class Study:
    """Images whose class their brightness tells, and the nodes that learn it from them.

    Only where `register_tiny_backbone` was called.

    Args:
        folder: of the cache.
        classes: in the order of the probabilities; the classes of the images are these.
        windows: in which each image is seen; the later ones are darker.
        per_class: images of a class; three in five are for training, one for validation.
        changes: settings that differ, nested as in YAML.
    """

    def __init__(
        self,
        folder: Path,
        classes: Classes = CLASSES,
        per_class: int = 30,
        windows: int = 1,
        **changes: Any,
    ):
        self.classes, self.cache, self.source = classes, Cache(folder), WeightsSource(None)
        if windows > 1:
            lesion = {"view": "lesion", "grey": True, "margin": [float(n) for n in range(windows)]}
            changes = {"input": lesion, **changes}
        self.settings = make_study_settings(**changes)
        labels = np.repeat(classes.names, per_class)
        ids = [f"{label}/{number}" for number, label in enumerate(labels)]
        parts = np.array(["train", "train", "train", "validation", "test"])
        self.split = pd.DataFrame(
            {
                "image_id": ids,
                "path": ids,
                "label": labels,
                "group": ids,
                "split": parts[np.arange(len(labels)) % per_class % 5],
            }
        )
        brightness = dict(zip(classes.names, np.linspace(40, 200, len(classes)), strict=True))
        rng = np.random.default_rng(3)
        pixels = np.stack([rng.normal(brightness[x], 25, (TINY_SIZE,) * 2 + (3,)) for x in labels])
        shown = np.clip(np.concatenate([pixels / (1 + 0.2 * n) for n in range(windows)]), 0, 255)
        column = {WINDOW: np.repeat(np.arange(windows), len(ids))} if windows > 1 else {}
        self.images = store_array(ids * windows, shown.astype(np.uint8), **column)
        self.plan = plan_augmentation(self.split, self.settings)

    def change(self, **changes: Any) -> ExperimentSettings:
        """Lay changes over the settings, and return them."""
        self.settings = self.settings.updated(changes)
        return self.settings

    def extract(self) -> StoredArray:
        return extract_features(
            self.images, self.plan, self.settings, self.source, self.classes, self.cache
        )

    def pool(self, features: StoredArray) -> StoredArray:
        return pool_features(features, self.settings, self.source, self.classes, self.cache)

    def train(self, features: StoredArray | None = None) -> Training:
        features = features or self.extract()
        return train_model(
            features,
            self.pool(features),
            self.split,
            self.settings,
            self.source,
            self.classes,
            self.cache,
        )

    def train_fold(
        self, features: StoredArray | None = None, fold: Fold | None = None
    ) -> FoldTraining:
        features = features or self.extract()
        return train_fold(
            features,
            self.pool(features),
            self.split,
            self.settings,
            self.source,
            self.classes,
            self.cache,
            fold or Fold(1, 1),
        )


def make_study_settings(**changes: Any) -> ExperimentSettings:
    """Return settings of two blocks of the tiny backbone, the first of them frozen."""
    settings = make_settings(
        "study",
        backbone="tiny",
        truncate_at="block2_out",
        augmentation={"per_image": 2, "brightness": 0.0},
        training={
            "tta_horizontal_flip": False,
            "average_with_pretuned": False,
            "fine_tuning": {"epochs": 2},
        },
    )
    return settings.updated(changes)
