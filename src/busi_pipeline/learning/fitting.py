"""The two phases of transfer learning, on features that were computed once.

First the head alone, on pooled features of the frozen base; then head and tail together, on the
features where the network is cut. Source: the Keras guide "Transfer learning & fine-tuning"
(https://keras.io/guides/transfer_learning/).
"""

import logging
import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import numpy as np
from tqdm.keras import TqdmCallback

from busi_pipeline.errors import BadInputError
from busi_pipeline.learning.batches import FeatureBatches, Rows, as_keras_input
from busi_pipeline.learning.training_data import measure_cross_entropy

if TYPE_CHECKING:
    from busi_pipeline.config.schemas import OptimizerSettings, PhaseSettings
    from busi_pipeline.learning.training_data import LabelledRows, TrainingData

logger = logging.getLogger(__name__)

# What epochs are chosen by: neither smoothed nor weighted, which would favour weights that hedge.
_CRITERION = "cross_entropy"
_CURVES = (_CRITERION, "accuracy")
# The same where the site with the highest decides.
_WORST = "val_worst_site_cross_entropy"


class PhaseResult(NamedTuple):
    """`history`: {metric: one value an epoch}; `best_epoch` counts from 1; wall time in seconds."""

    history: dict[str, list[float]]
    best_epoch: int
    seconds: float


def make_optimizer(settings: "OptimizerSettings", steps: int) -> keras.optimizers.Optimizer:
    """Build the optimiser for a phase of `steps` updates."""
    rate: Any = settings.learning_rate
    if settings.schedule == "cosine":
        warmup = max(1, steps // 10)
        rate = keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=0.0,
            decay_steps=max(1, steps - warmup),
            alpha=0.01,
            warmup_target=settings.learning_rate,
            warmup_steps=warmup,
        )
    common: dict[str, Any] = {"learning_rate": rate, "weight_decay": settings.weight_decay or None}
    if settings.ema_momentum:
        common |= {"use_ema": True, "ema_momentum": settings.ema_momentum}
    builders: dict[str, Callable[[], keras.optimizers.Optimizer]] = {
        # AdamW refuses None; 0 is the absence of decay there.
        "adamw": lambda: keras.optimizers.AdamW(
            **(common | {"weight_decay": settings.weight_decay})
        ),
        "adam": lambda: keras.optimizers.Adam(**common),
        "rmsprop": lambda: keras.optimizers.RMSprop(momentum=settings.momentum, **common),
        "sgd": lambda: keras.optimizers.SGD(
            momentum=settings.momentum, nesterov=settings.momentum > 0, **common
        ),
    }
    if settings.name not in builders:
        raise ValueError(
            f"optimizer.name must be one of {sorted(builders)}; got {settings.name!r}."
        )
    return builders[settings.name]()


class NotFiniteError(BadInputError):
    """A training whose loss was no number any more.

    Attributes:
        model: with the last good weights: of its best epoch before, else as the phase began.
    """

    def __init__(self, message: str, model: keras.Model):
        super().__init__(message)
        self.model = model


class _NotFiniteError(Exception):
    """Where the loss was no number: `place` says it."""

    def __init__(self, place: str):
        super().__init__(place)
        self.place = place


class _FiniteLoss(keras.callbacks.Callback):
    """Stops at the batch, or the epoch of validation, whose loss is nan or infinite."""

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._epoch = epoch + 1

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        if not math.isfinite((logs or {}).get("loss", 0.0)):
            raise _NotFiniteError(f"epoch {self._epoch}, batch {batch + 1}: the loss")

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if not math.isfinite((logs or {}).get("val_loss", 0.0)):
            raise _NotFiniteError(f"epoch {epoch + 1}: the loss of validation images")


class _WorstSite(keras.callbacks.Callback):
    """Measures the validation cross-entropy of the site where it is highest, after each epoch.

    It stands after the swap of averaged weights, and before what goes by its value.
    """

    def __init__(self, check: FeatureBatches, part: "LabelledRows"):
        super().__init__()
        self._check, self._part = check, part
        self.losses: list[float] = []

    def measure(self, model: keras.Model) -> float:
        probabilities = model.predict(as_keras_input(self._check), verbose=0)
        return measure_cross_entropy(self._part.labels, probabilities, self._part.sites)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.losses.append(self.measure(self.model))
        assert logs is not None
        logs[_WORST] = self.losses[-1]


class _EpochLog(keras.callbacks.Callback):
    """One line an epoch in the log, with the time left."""

    def __init__(self, phase: str, epochs: int):
        super().__init__()
        self._phase, self._epochs = phase, epochs
        self._begun = self._epoch_begun = time.perf_counter()

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._epoch_begun = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        logs = logs or {}
        now = time.perf_counter()
        left = (now - self._begun) / (epoch + 1) * (self._epochs - epoch - 1)
        logger.info(
            "%s, epoch %d of %d: cross-entropy %.3f, accuracy %.3f; validation %.3f, %.3f "
            "(%.1f s, at most %.0f s left)",
            self._phase,
            epoch + 1,
            self._epochs,
            *(logs[f"{part}{name}"] for part in ("", "val_") for name in _CURVES),
            now - self._epoch_begun,
            left,
        )


def evaluate_phase(
    model: keras.Model, values: Rows, training_data: "TrainingData", phase: "PhaseSettings"
) -> dict[str, float]:
    """Return what an epoch of `fit_phase` would log of the weights as they are.

    Of training images, the augmentations of one epoch count.
    """
    batches, check = _make_batches(values, training_data, phase, seed=0)
    _compile(model, training_data, "sgd")  # which is not used
    after = {f"val_{name}": value for name, value in _evaluate(model, check).items()}
    return _evaluate(model, batches) | after


def _make_batches(
    values: Rows, training_data: "TrainingData", phase: "PhaseSettings", seed: int
) -> tuple[FeatureBatches, FeatureBatches]:
    """Return the batches of the training and of the validation images."""
    one_hot = np.eye(len(training_data.class_weights), dtype=np.float32)
    batches = FeatureBatches(
        values,
        training_data.training.rows,
        one_hot[training_data.training.labels],
        training_data.image_weights.astype(np.float32),
        phase.batch_size,
        seed,
        phase.augmented_per_epoch,
    )
    check = FeatureBatches(
        values,
        training_data.validation.rows[:, :1],
        one_hot[training_data.validation.labels],
        np.ones(len(training_data.validation.labels), dtype=np.float32),
        phase.batch_size,
        seed,
        shuffle=False,
    )
    return batches, check


def _compile(
    model: keras.Model, training_data: "TrainingData", optimizer: keras.optimizers.Optimizer | str
) -> None:
    model.compile(
        optimizer=optimizer,
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=training_data.label_smoothing),
        metrics=["accuracy", keras.metrics.CategoricalCrossentropy(name=_CRITERION)],
    )


def _evaluate(model: keras.Model, batches: FeatureBatches) -> dict[str, float]:
    scores = model.evaluate(as_keras_input(batches), verbose=0, return_dict=True)
    return {name: float(scores[name]) for name in ("loss", *_CURVES)}


def fit_phase(
    name: str,
    model: keras.Model,
    values: Rows,
    training_data: "TrainingData",
    phase: "PhaseSettings",
    seed: int,
    roll_back: bool = False,
) -> PhaseResult:
    """Train a model on features; keep the weights with the lowest cross-entropy on
    validation images.

    Args:
        name: of the phase, for the log.
        model: features -> probabilities; changed in place.
        values: (rows, ...), any float dtype; the features.
        training_data: which rows belong to which images, and what the loss is.
        phase: epochs, batch size, patience, optimiser.
        seed: of the order of images and augmentations.
        roll_back: whether the initial weights come back, and `best_epoch` is 0,
            where no epoch gets below their cross-entropy on validation images.

    Where the validation images know their sites, the cross-entropy is that of the site where it is
    highest, and a curve of it stands beside the others.

    The curves are `loss`, as it is minimised, `cross_entropy`, by which epochs are chosen, and
    `accuracy`, each of training images (the first smoothed and weighted) and as `val_`.

    Raises NotFiniteError, one line, at the batch whose loss is nan or infinite.
    """
    start = model.get_weights()
    batches, check = _make_batches(values, training_data, phase, seed)
    _compile(model, training_data, make_optimizer(phase.optimizer, len(batches) * phase.epochs))
    worst = _WorstSite(check, training_data.validation)
    by_site = training_data.validation.sites is not None
    to_beat = math.inf
    if roll_back:
        to_beat = worst.measure(model) if by_site else _evaluate(model, check)[_CRITERION]
    callbacks: list[keras.callbacks.Callback] = [
        keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, _: batches.begin_epoch(epoch))
    ]
    if phase.optimizer.ema_momentum:
        # Before the others, so that the averaged weights are evaluated, and the best of them kept.
        callbacks.append(keras.callbacks.SwapEMAWeights(swap_on_epoch=True))
    watched = _WORST if by_site else f"val_{_CRITERION}"
    callbacks += [_FiniteLoss(), *([worst] if by_site else [])]
    stopping = keras.callbacks.EarlyStopping(
        monitor=watched, mode="min", patience=phase.patience, restore_best_weights=True
    )
    callbacks += [
        stopping,
        _EpochLog(name, phase.epochs),
        TqdmCallback(phase.epochs, verbose=0, desc=name, leave=False, disable=None),
    ]
    if phase.optimizer.schedule == "plateau":
        callbacks.append(
            keras.callbacks.ReduceLROnPlateau(
                monitor=watched,
                mode="min",
                factor=phase.optimizer.plateau_factor,
                patience=phase.optimizer.plateau_patience,
            )
        )
    begun = time.perf_counter()
    try:
        history = model.fit(
            as_keras_input(batches),
            validation_data=as_keras_input(check),
            epochs=phase.epochs,
            shuffle=False,  # FeatureBatches does; Keras would shuffle its batches by another seed
            callbacks=callbacks,
            verbose=0,
        ).history
    except _NotFiniteError as error:
        best_weights = stopping.best_weights
        model.set_weights(start if best_weights is None else best_weights)
        raise NotFiniteError(
            f"{name}, {error.place} is no number any more: lower the learning rate of this phase, "
            "or look at the images and class weights.",
            model,
        ) from None
    seconds = time.perf_counter() - begun
    curves = {key: [float(v) for v in values] for key, values in history.items()}
    curves |= {_WORST: worst.losses} if by_site else {}
    if min(curves[watched]) >= to_beat:
        logger.warning(
            "%s: no epoch has a lower validation cross-entropy than the initial weights; rolled "
            "back",
            name,
        )
        model.set_weights(start)
        return PhaseResult(curves, 0, seconds)
    best = int(np.argmin(curves[watched])) + 1
    logger.info("%s: best epoch %d, %.1f s", name, best, seconds)
    return PhaseResult(curves, best, seconds)
