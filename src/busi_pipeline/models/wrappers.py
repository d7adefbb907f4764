"""What is built around a trained network: averages, calibration, the flag."""

from collections.abc import Sequence

import keras
import numpy as np

from busi_pipeline.stats.operating_point import allow_single_precision

from .network import Network

_TINY = 1e-7  # as in stats.calibration.apply_calibration


def average_with_pretuned(tuned: Network, pretuned: Network) -> keras.Model:
    """Return a model that averages the probabilities of `tuned` and `pretuned`.

    Fine-tuning on a few hundred images gains something and forgets something; the mean of both
    ranks better than either (docs/experiment-log.md). Source: Wortsman et al. 2022, "Robust
    fine-tuning of zero-shot models", output-space ensembling.

    Args:
        tuned, pretuned: the same network after and before its fine-tuning. Their frozen parts are
            equal: that of `tuned` computes the features for both. Layers are shared.

    Returns uint8 (n, size, size, 3) -> float32 (n, classes).
    """
    pretuned.trainable.name = "pretuned"
    images = keras.Input(tuned.full.input_shape[1:], dtype="uint8", name="image")
    features = tuned.frozen(images)
    probabilities = keras.layers.Average(name="mean_with_pretuned", dtype="float32")(
        [tuned.trainable(features), pretuned.trainable(features)]
    )
    return keras.Model(images, probabilities, name=f"{tuned.full.name}_with_pretuned")


def average_networks(
    networks: Sequence[Network], shares: Sequence[float], same_tail: bool
) -> keras.Model:
    """Return a model that averages the probabilities of networks which share their frozen part.

    Args:
        networks: of one backbone and cut. That of the first computes the features for all.
        shares: how much each counts.
        same_tail: whether their tails are equal, too: then that of the first computes once.

    Returns uint8 (n, size, size, 3) -> float32 (n, classes). Source: Breiman 1996, "Bagging
    predictors"; here each network has learned from all folds but one.
    """
    first = networks[0]
    for number, network in enumerate(networks):
        for part in (network.head, network.trainable):
            part.name = f"{part.name}_{number}"
    images = keras.Input(first.full.input_shape[1:], dtype="uint8", name="image")
    features = first.frozen(images)
    if same_tail:
        pooled = first.tail(features)
        answers = [network.head(pooled) for network in networks]
    else:
        answers = [network.trainable(features) for network in networks]
    total = sum(shares)
    weighted = [answer * (share / total) for answer, share in zip(answers, shares, strict=True)]
    probabilities = (
        weighted[0] if len(weighted) == 1 else keras.layers.Add(dtype="float32")(weighted)
    )
    return keras.Model(images, probabilities, name=f"{first.full.name}_bag")


def average_with_flipped(model: keras.Model) -> keras.Model:
    """Return a model that averages the probabilities of an image and its horizontal flip.

    Left and right carry no diagnosis in an ultrasound image. Same input and output as `model`,
    whose layers it shares; twice the work. Test-time augmentation.
    """
    images = keras.Input(model.input_shape[1:], dtype="uint8", name="image")
    flipped = keras.ops.flip(images, axis=2)
    probabilities = keras.layers.Average(name="mean_with_flipped", dtype="float32")(
        [model(images), model(flipped)]
    )
    return keras.Model(images, probabilities, name=f"{model.name}_with_flipped")


def average_over_windows(model: keras.Model, windows: int) -> keras.Model:
    """Return a model that averages the probabilities of several windows of an image.

    Args:
        model: uint8 (n, size, size, 3) -> float32 (n, classes); its layers are shared.
        windows: how many.

    Returns uint8 (n, windows, size, size, 3) -> float32 (n, classes).
    """
    shape = model.input_shape[1:]
    images = keras.Input((windows, *shape), dtype="uint8", name="image")
    each = model(keras.ops.reshape(images, (-1, *shape)))
    probabilities = keras.ops.mean(keras.ops.reshape(each, (-1, windows, each.shape[-1])), axis=1)
    return keras.Model(images, probabilities, name=f"{model.name}_over_windows")


def average_models(models: Sequence[keras.Model]) -> keras.Model:
    """Return a model that averages the probabilities of several, each counting the same.

    Args:
        models: uint8 images of one shape -> float32 (n, classes); their layers are shared.

    Source: Lakshminarayanan et al. 2017, "Simple and scalable predictive uncertainty estimation
    using deep ensembles".
    """
    shape = models[0].input_shape[1:]
    members = []
    for number, model in enumerate(models):
        # Keras distinguishes models within a model by their names, and members may share one.
        own = keras.Input(shape, dtype="uint8", name="image")
        members.append(keras.Model(own, model(own), name=f"member_{number}"))
    images = keras.Input(shape, dtype="uint8", name="image")
    answers = [member(images) for member in members]
    probabilities = (
        answers[0]
        if len(answers) == 1
        else keras.layers.Average(name="mean_of_members", dtype="float32")(answers)
    )
    return keras.Model(images, probabilities, name="joined")


def calibrate(model: keras.Model, temperature: float, offsets: Sequence[float]) -> keras.Model:
    """Return the model with its probabilities calibrated inside.

    Args:
        model: uint8 (n, size, size, 3) -> float32 (n, classes) probabilities; its layers are
            shared, not copied.
        temperature, offsets: see stats.calibration.Calibration.
    """
    images = keras.Input(model.input_shape[1:], dtype="uint8", name="image")
    logits = keras.ops.log(keras.ops.clip(model(images), _TINY, 1.0)) / temperature
    logits = logits + np.array(offsets, dtype="float32")
    probabilities = keras.layers.Softmax(dtype="float32", name="calibrated")(logits)
    return keras.Model(images, probabilities, name=f"{model.name}_calibrated")


def add_flag(model: keras.Model, positive: Sequence[int], threshold: float) -> keras.Model:
    """Return a model that answers with the flag beside the probabilities.

    Args:
        model: uint8 (n, size, size, 3) -> float32 (n, classes) calibrated probabilities.
        positive: positions of the positive classes.
        threshold: sum of their probabilities from which an image is flagged for review.

    Returns uint8 (n, size, size, 3) -> {`probabilities`: float32 (n, classes), `positive_score`:
    float32 (n,), `flagged`: bool (n,)}.
    """
    images = keras.Input(model.input_shape[1:], dtype="uint8", name="image")
    probabilities = model(images)
    is_positive = np.zeros(model.output_shape[-1], dtype="float32")
    is_positive[list(positive)] = 1
    score = keras.ops.sum(probabilities * is_positive, axis=-1)
    flagged = keras.ops.greater_equal(score, np.float32(allow_single_precision(threshold)))
    return keras.Model(
        images,
        {"probabilities": probabilities, "positive_score": score, "flagged": flagged},
        name=f"{model.name}_flagged",
    )
