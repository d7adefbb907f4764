"""Wall time of a training against the ordinary way of the Keras guide, both sides in one run.

    python benchmarks/ordinary_way.py resnet50                 # epochs of the others are sampled
    python benchmarks/ordinary_way.py resnet50 --full guide    # every epoch, and what it reaches

The ordinary way (https://keras.io/guides/transfer_learning/): `image_dataset_from_directory`,
decoded images cached in memory, augmentation layers, a frozen base under a new head, then the tail
unfrozen; float32, Keras' default. Network, size, tail, head, optimisers, batch sizes, number of
epochs and class weights are those of this project's experiment. The second opponent is the
published recipe: images are decoded anew every epoch, the base is frozen throughout. `--against`
picks one of them.

This project's side is the whole way from the files: ingestion, splitting, resizing, features,
fitting, with an empty cache. With `--full`, both finished networks see the same validation images,
once each (not flipped), and the difference is printed with its interval.
"""

import argparse
import math
import os
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pandas as pd
from _common import (
    Data,
    compute_features,
    describe_machine,
    find_raw_images,
    prepare_data,
    read_experiment,
    report_accuracy,
    spread,
    train,
)

from busi_pipeline.config.schemas import ExperimentSettings, PhaseSettings, TrainingSettings
from busi_pipeline.datasets.pretrained_weights import WeightsSource
from busi_pipeline.learning.fitting import make_optimizer
from busi_pipeline.learning.training_data import compute_class_weights
from busi_pipeline.models.backbones import Preprocessing
from busi_pipeline.stats.classes import Classes

RECIPES = ["guide", "published"]


class Course(NamedTuple):
    """A training: seconds until the end of each epoch, and the validation loss there."""

    seconds: list[float]
    losses: list[float]

    def time_to(self, loss: float) -> float:
        """Return the seconds to this validation loss or a better one; infinite where never."""
        return next(
            (s for s, value in zip(self.seconds, self.losses, strict=True) if value <= loss),
            math.inf,
        )


class _Clock(keras.callbacks.Callback):
    """Appends to a course at the end of each epoch."""

    def __init__(self, begun: float, course: Course):
        super().__init__()
        self._begun, self._course = begun, course

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._course.seconds.append(time.perf_counter() - self._begun)
        self._course.losses.append((logs or {})["val_loss"])


class Outcome(NamedTuple):
    """`course`, the whole wall time in `seconds`, and float (n, classes) `probabilities` of the
    validation images."""

    course: Course
    seconds: float
    probabilities: np.ndarray


def train_this_way(
    folder: Path, experiment: ExperimentSettings, workspace: Path
) -> tuple[Outcome, Data]:
    """Return how this project's training went, and the data it used.

    Features that a training before it left in `workspace` are not computed again.
    """
    not_averaged = experiment.updated(
        {"training": {"tta_horizontal_flip": False, "average_with_pretuned": False}}
    )
    weights = WeightsSource(os.environ.get("BUSI_WEIGHTS_DIR"))
    begun = time.perf_counter()
    data = prepare_data(folder, workspace, experiment)
    features, pooled = compute_features(data, not_averaged, weights, workspace)
    ready = time.perf_counter() - begun
    fitted, model = train(features, pooled, data, not_averaged, weights)
    total = time.perf_counter() - begun
    rows = data.images.find_rows(select(data, "validation")["image_id"])
    probabilities = model.predict(data.images.values[rows], batch_size=16, verbose=0)
    course = Course([], [])
    passed = total - sum(phase.seconds for phase in fitted.phases.values())
    for phase in fitted.phases.values():
        losses = phase.history["val_loss"]
        for epoch, loss in enumerate(losses, 1):
            course.seconds.append(passed + phase.seconds * epoch / len(losses))
            course.losses.append(loss)
        passed += phase.seconds
    print(f"  this project: {ready:.0f} s to features, {total:.0f} s in all", flush=True)
    return Outcome(course, total, probabilities), data


def select(data: Data, split: str) -> pd.DataFrame:
    """Return the images of a split in the order of `image_dataset_from_directory`."""
    images = data.split[data.split["split"] == split]
    order = images.assign(position=data.classes.positions(images["label"]))
    return order.sort_values(["position", "path"])


def link_images(data: Data, workspace: Path, split: str) -> Path:
    """Put links to the images of a split into a folder per class."""
    images = select(data, split)
    for label, path in zip(images["label"], images["path"], strict=True):
        link = workspace / split / label / Path(path).name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to((data.folder / path).resolve())
    return workspace / split


def make_pipeline(
    folder: Path,
    experiment: ExperimentSettings,
    classes: Classes,
    batch_size: int,
    augment: bool,
    cache: bool,
) -> Any:
    """Return the input of the guide: files -> resized -> cached -> augmented -> prefetched."""
    import tensorflow as tf

    size = experiment.image_size
    images = keras.utils.image_dataset_from_directory(
        folder,
        label_mode="categorical",
        class_names=list(classes),
        image_size=(size, size),
        batch_size=None,
        shuffle=False,
        verbose=False,
    )
    if cache:
        images = images.cache()
    if augment:
        images = images.shuffle(len(images), seed=experiment.training.seed)
    images = images.batch(batch_size)
    if augment:
        limits = experiment.augmentation
        turn = limits.rotation_degrees / 360
        layers = keras.Sequential(
            [
                keras.layers.RandomFlip("horizontal"),
                keras.layers.RandomRotation(turn, fill_mode="constant"),
                keras.layers.RandomZoom(limits.zoom, fill_mode="constant"),
                keras.layers.RandomTranslation(limits.shift, limits.shift, fill_mode="constant"),
                keras.layers.RandomBrightness(limits.brightness),
            ]
        )
        images = images.map(
            lambda x, y: (layers(x, training=True), y), num_parallel_calls=tf.data.AUTOTUNE
        )
    return images.prefetch(tf.data.AUTOTUNE)


def build_ordinary(experiment: ExperimentSettings, classes: int) -> tuple[keras.Model, keras.Model]:
    """Return the guide's model, and its base."""
    preset = experiment.preset
    size = experiment.image_size
    weights = WeightsSource(os.environ.get("BUSI_WEIGHTS_DIR"))
    chosen = weights.choose(experiment.backbone, experiment.training.weights)
    base = getattr(keras.applications, preset.builder)(
        include_top=False, weights=chosen.argument, input_shape=(size, size, 3)
    )
    inputs = keras.Input((size, size, 3))
    x = base(_normalise(inputs, preset.preprocessing), training=False)
    x = keras.layers.GlobalAveragePooling2D()(x)
    head = experiment.training.head
    if head.dense_units:
        x = keras.layers.Dense(head.dense_units, activation="relu")(x)
    if head.batch_normalization:
        x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Dropout(head.dropout)(x)
    outputs = keras.layers.Dense(classes, activation="softmax")(x)
    return keras.Model(inputs, outputs), base


def _normalise(images: Any, preprocessing: Preprocessing) -> Any:
    if preprocessing.order == "bgr":
        images = keras.ops.flip(images, axis=-1)
    return keras.layers.Rescaling(list(preprocessing.scale), list(preprocessing.offset))(images)


def train_ordinary_way(
    data: Data, experiment: ExperimentSettings, sampled: int | None, cache: bool
) -> tuple[Outcome, dict[str, list[float]]]:
    """Train as the guide does: how it went, and the seconds of each epoch of each phase.

    `sampled`: epochs of each phase to run instead of all of them; one more, the first, carries the
    building of the graph and does not count.
    """
    recipe = experiment.training
    keras.utils.set_random_seed(recipe.seed)
    course = Course([], [])
    epochs: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        begun = time.perf_counter()
        folders = {s: link_images(data, Path(temporary), s) for s in ("train", "validation")}
        classes = data.classes
        model, base = build_ordinary(experiment, len(classes))
        labels = classes.positions(data.split.loc[data.split["split"] == "train", "label"])
        weights = dict(enumerate(compute_class_weights(labels, len(classes), recipe.class_weights)))
        for name, phase in (("head", recipe.head_phase), ("fine-tuning", recipe.fine_tuning)):
            if not phase.epochs:
                continue
            _unfreeze(base, experiment.freeze_until if name == "fine-tuning" else None)
            count = min(phase.epochs, sampled + 1) if sampled else phase.epochs
            before = len(course.seconds)
            start = time.perf_counter() - begun
            batches = make_pipeline(
                folders["train"], experiment, classes, phase.batch_size, True, cache
            )
            check = make_pipeline(folders["validation"], experiment, classes, 32, False, cache)
            clock = _Clock(begun, course)
            _fit(model, phase, batches, check, weights, count, recipe, clock, sampled)
            ends = [start, *course.seconds[before:]]
            epochs[name] = [b - a for a, b in pairwise(ends)]
            print(f"  ordinary way, {name}: {spread(epochs[name][1:] or ends, ' s an epoch')}")
        seconds = time.perf_counter() - begun
        probabilities = model.predict(check, verbose=0)
    return Outcome(course, seconds, probabilities), epochs


def _unfreeze(base: keras.Model, after: str | None) -> None:
    """Train the layers after the one of this name, or none of them."""
    base.trainable = True
    trained = False
    for layer in base.layers:
        layer.trainable = trained and not isinstance(layer, keras.layers.BatchNormalization)
        trained = trained or layer.name == after


def _fit(
    model: keras.Model,
    phase: PhaseSettings,
    batches: Any,
    check: Any,
    weights: dict[int, float],
    epochs: int,
    recipe: TrainingSettings,
    clock: _Clock,
    sampled: int | None,
) -> None:
    model.compile(
        optimizer=make_optimizer(phase.optimizer, len(batches) * phase.epochs),
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=recipe.label_smoothing),
        metrics=["accuracy"],
    )
    callbacks: list[keras.callbacks.Callback] = []
    if phase.optimizer.ema_momentum:
        callbacks.append(keras.callbacks.SwapEMAWeights(swap_on_epoch=True))
    callbacks.append(clock)
    if not sampled:
        callbacks.append(
            keras.callbacks.EarlyStopping(
                monitor="val_loss", patience=phase.patience, restore_best_weights=True
            )
        )
    model.fit(
        batches,
        validation_data=check,
        epochs=epochs,
        class_weight=weights,
        callbacks=callbacks,
        verbose=0,
    )


def report_sampled(
    epochs: dict[str, list[float]], experiment: ExperimentSettings, ours: float
) -> None:
    """Print the ratio from the sampled epochs: all planned epochs at the measured pace."""
    recipe = experiment.training
    planned = {"head": recipe.head_phase.epochs, "fine-tuning": recipe.fine_tuning.epochs}
    lowest, middle, highest = (
        sum(s[0] + float(pick(s[1:])) * (planned[name] - 1) for name, s in epochs.items())
        for pick in (min, np.median, max)
    )
    print(f"  ordinary way: {middle:.0f} s for {planned} epochs ({lowest:.0f} to {highest:.0f})")
    print(f"  RATIO {middle / ours:.1f} ({lowest / ours:.1f} to {highest / ours:.1f})")


def report_full(ordinary: Course, epochs: dict[str, list[float]], ours: Course) -> None:
    """Print the ratio at the best validation loss that both reach.

    Its spread is that of the ordinary side's epochs: as if each phase had gone at the pace of its
    quickest or slowest epoch; its first, which carries the building of the graph, is left as it is.
    """
    loss = max(min(ordinary.losses), min(ours.losses))
    slow, fast = ordinary.time_to(loss), ours.time_to(loss)
    print(
        f"  best validation loss: ordinary {min(ordinary.losses):.3f} after "
        f"{ordinary.seconds[-1]:.0f} s in all, this project {min(ours.losses):.3f} after "
        f"{ours.seconds[-1]:.0f} s in all"
    )
    print(f"  to validation loss {loss:.3f}: ordinary {slow:.0f} s, this project {fast:.0f} s")
    count = int(np.searchsorted(ordinary.seconds, slow)) + 1
    paced = [(e, seconds) for seconds in epochs.values() for e in range(len(seconds))][:count]
    low, high = (
        slow + sum(pick(seconds[1:]) - seconds[epoch] for epoch, seconds in paced if epoch)
        for pick in (min, max)
    )
    print(f"  RATIO {slow / fast:.1f} ({low / fast:.1f} to {high / fast:.1f})")


def main() -> None:
    """Time both sides; `--help` lists the arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("experiment")
    parser.add_argument("--against", nargs="+", choices=RECIPES, default=RECIPES)
    parser.add_argument("--full", nargs="+", choices=RECIPES, default=[], help="run every epoch")
    parser.add_argument("--sampled", type=int, default=2, help="epochs sampled of each phase")
    arguments = parser.parse_args()
    experiment = read_experiment(arguments.experiment)
    print(f"{describe_machine()}\n{experiment.title}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = find_raw_images(Path(temporary))
        ours, data = train_this_way(folder, experiment, Path(temporary) / "ours")
        labels = data.classes.positions(select(data, "validation")["label"])
        for recipe in arguments.against:
            published = recipe == "published"
            opponent = (
                read_experiment(f"replication_{arguments.experiment}") if published else experiment
            )
            full = recipe in arguments.full
            print(f"against the recipe of the {'published work' if published else 'guide'}")
            ordinary, epochs = train_ordinary_way(
                data, opponent, None if full else arguments.sampled, cache=not published
            )
            if full:
                report_full(ordinary.course, epochs, ours.course)
                report_accuracy("ordinary", ordinary.probabilities, ours.probabilities, labels)
            else:
                report_sampled(epochs, opponent, ours.seconds)


if __name__ == "__main__":
    main()
