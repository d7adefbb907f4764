"""Around a network: averages are means, calibration and flag are those of the table."""

from pathlib import Path

import keras
import numpy as np
import pytest

from busi_pipeline.models.network import Network, count_operations
from busi_pipeline.models.wrappers import (
    add_flag,
    average_models,
    average_networks,
    average_over_windows,
    average_with_flipped,
    average_with_pretuned,
    calibrate,
)
from busi_pipeline.stats.calibration import Calibration, apply_calibration
from busi_pipeline.stats.classes import Classes
from tests.evaluation_factories import CLASS_SETS
from tests.learning_factories import build_tiny_network, draw_pictures


def make_answering_model(classes: int) -> keras.Model:
    """Return a model whose answer lies in the image: uint8 (n, 1, classes, 3) -> probabilities."""
    images = keras.Input((1, classes, 3), dtype="uint8")
    values = keras.ops.cast(images, "float32")
    codes = keras.ops.sum(values * np.array([65536.0, 256.0, 1.0], dtype="float32"), axis=(1, 3))
    return keras.Model(images, keras.layers.Softmax()(codes / 2.0**20), name="answering")


def draw_answers(classes: int, count: int, seed: int = 0) -> np.ndarray:
    """Return uint8 (count, 1, classes, 3) for `make_answering_model`."""
    return np.random.default_rng(seed).integers(0, 256, (count, 1, classes, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return draw_pictures(5)


@pytest.fixture(scope="module")
def tuned() -> Network:
    return shift_to_class(build_tiny_network(), 0)


@pytest.fixture(scope="module")
def pretuned(tuned: Network) -> Network:
    network = shift_to_class(build_tiny_network(), 2)
    network.frozen.set_weights(tuned.frozen.get_weights())
    return network


def shift_to_class(network: Network, position: int) -> Network:
    """Let a network lean to one class: random weights alone may agree on another."""
    *_, kernel, bias = network.trainable.trainable_variables
    kernel.assign(kernel / 100)
    bias.assign(np.eye(3)[position])
    return network


def reload(model: keras.Model, folder: Path) -> keras.Model:
    model.save(folder / "model.keras")
    loaded = keras.saving.load_model(folder / "model.keras", compile=False, safe_mode=True)
    assert not any("busi" in type(layer).__module__ for layer in loaded.layers)
    return loaded


def test_an_image_and_its_flip_are_averaged(
    tuned: Network, pictures: np.ndarray, tmp_path: Path
) -> None:
    loaded = reload(average_with_flipped(tuned.full), tmp_path)
    flipped = pictures[:, :, ::-1]
    expected = (np.asarray(tuned.full(pictures)) + np.asarray(tuned.full(flipped))) / 2
    for images in (pictures, flipped):
        np.testing.assert_allclose(loaded(images), expected, atol=1e-5)


def test_a_network_is_averaged_with_its_pretuned_weights(
    tuned: Network, pretuned: Network, pictures: np.ndarray, tmp_path: Path
) -> None:
    answers = [np.asarray(network.full(pictures)) for network in (tuned, pretuned)]
    assert np.abs(answers[0] - answers[1]).max() > 0.01
    model = average_with_pretuned(tuned, pretuned)
    loaded = reload(model, tmp_path)
    np.testing.assert_allclose(loaded(pictures), np.mean(answers, axis=0), atol=1e-5)
    assert count_operations(tuned.full) < count_operations(model), "both tails"
    assert count_operations(model) < 2 * count_operations(tuned.full), "one frozen part"


def test_both_averages_go_together(tuned: Network, pretuned: Network, pictures: np.ndarray) -> None:
    model = average_with_flipped(average_with_pretuned(tuned, pretuned))
    answers = [
        np.asarray(network.full(images))
        for network in (tuned, pretuned)
        for images in (pictures, pictures[:, :, ::-1])
    ]
    np.testing.assert_allclose(model(pictures), np.mean(answers, axis=0), atol=1e-5)


@pytest.mark.parametrize("classes", CLASS_SETS, ids=len)
@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_calibration_inside_is_that_of_the_table(
    classes: Classes, temperature: float, tmp_path: Path
) -> None:
    model, images = make_answering_model(len(classes)), draw_answers(len(classes), 50)
    offsets = tuple(np.linspace(-1.5, 0, len(classes)).tolist())
    loaded = reload(calibrate(model, temperature, offsets), tmp_path)
    uncalibrated = np.asarray(model(images)).astype(float)
    expected = apply_calibration(uncalibrated, Calibration(temperature, offsets))
    np.testing.assert_allclose(loaded(images), expected, atol=1e-5)


def test_a_probability_of_nothing_stays_finite() -> None:
    images = keras.Input((1, 2, 3), dtype="uint8")
    certain = keras.ops.cast(images[:, 0, :, 0], "float32")
    model = calibrate(keras.Model(images, certain), 1.0, [0.0, 0.0])
    answer = np.asarray(model(np.array([[[[1] * 3, [0] * 3]]], dtype=np.uint8)))
    np.testing.assert_allclose(answer, [[1, 1e-7]], rtol=1e-3)


@pytest.mark.parametrize("classes", CLASS_SETS, ids=len)
def test_the_flag_stands_beside_the_probabilities(classes: Classes, tmp_path: Path) -> None:
    model, images = make_answering_model(len(classes)), draw_answers(len(classes), 200)
    positive = [classes.index(name) for name in classes.positive]
    answer = reload(add_flag(model, positive, 0.3), tmp_path)(images)
    probabilities = np.asarray(model(images))
    np.testing.assert_allclose(answer["probabilities"], probabilities, atol=1e-6)
    score = probabilities[:, positive].sum(axis=1)
    np.testing.assert_allclose(answer["positive_score"], score, atol=1e-6)
    flagged = np.asarray(answer["flagged"])
    assert flagged.dtype == bool
    np.testing.assert_array_equal(flagged, score >= 0.3)
    assert 0 < flagged.sum() < len(images)
    negative_is_likeliest = ~np.isin(probabilities.argmax(axis=1), positive)
    assert (flagged & negative_is_likeliest).any(), "the likeliest class does not lift the flag"


@pytest.mark.parametrize("classes", CLASS_SETS, ids=len)
@pytest.mark.parametrize("temperature", [0.05, 1.0, 1.7])
def test_a_score_that_is_the_threshold_is_flagged(classes: Classes, temperature: float) -> None:
    """The threshold is the score of an image, in double precision; the model has single."""
    model, images = make_answering_model(len(classes)), draw_answers(len(classes), 2000)
    offsets = tuple(np.linspace(-1.5, 0, len(classes)).tolist())
    calibrated = calibrate(model, temperature, offsets)
    table = apply_calibration(
        np.asarray(model(images)).astype(float), Calibration(temperature, offsets)
    )
    scores = classes.positive_score(table)
    positive = [classes.index(name) for name in classes.positive]
    given = np.asarray(add_flag(calibrated, positive, 0.5)(images)["positive_score"])
    chosen = np.argsort(scores)[:: max(1, len(scores) // 3)]
    worst = np.argsort((given - scores) / np.maximum(scores, 1e-6))[:3]
    for row in {*chosen.tolist(), *worst.tolist()}:
        flagged = add_flag(calibrated, positive, float(scores[row]))(images[row : row + 1])
        assert bool(np.asarray(flagged["flagged"])[0]), scores[row]


def test_a_score_below_the_threshold_is_not_flagged() -> None:
    model, images = make_answering_model(2), draw_answers(2, 1)
    score = float(np.asarray(model(images))[0, 1])
    for threshold, expected in ((score * 1.001, False), (score * 0.999, True)):
        answer = add_flag(model, [1], threshold)(images)
        assert bool(np.asarray(answer["flagged"])[0]) is expected


def test_windows_are_averaged(tuned: Network, pictures: np.ndarray, tmp_path: Path) -> None:
    windows = np.stack([pictures, pictures[::-1], pictures[:, ::-1]], axis=1)
    model = reload(average_over_windows(tuned.full, 3), tmp_path)
    assert model.input_shape == (None, 3, *pictures.shape[1:])
    each = [tuned.full.predict_on_batch(windows[:, n]) for n in range(3)]
    np.testing.assert_allclose(
        model.predict_on_batch(windows), np.mean(each, axis=0), rtol=1e-5, atol=1e-7
    )
    assert np.abs(each[0] - each[2]).max() > 1e-4, "the windows differ"


def test_members_count_the_same(pictures: np.ndarray, tmp_path: Path) -> None:
    members = [shift_to_class(build_tiny_network(), position).full for position in (0, 2, 2)]
    each = [member.predict_on_batch(pictures) for member in members]
    model = reload(average_models(members), tmp_path)
    assert model.input_shape == members[0].input_shape
    np.testing.assert_allclose(
        model.predict_on_batch(pictures), np.mean(each, axis=0), rtol=1e-5, atol=1e-7
    )
    assert np.abs(each[0] - each[1]).max() > 1e-2, "the members differ"


@pytest.mark.parametrize("same_tail", [True, False])
def test_networks_of_a_bag_share_their_base(
    pictures: np.ndarray, tmp_path: Path, same_tail: bool
) -> None:
    networks = [shift_to_class(build_tiny_network(), position) for position in (0, 2, 1)]
    for network in networks[1:]:
        network.frozen.set_weights(networks[0].frozen.get_weights())
        if same_tail:
            network.tail.set_weights(networks[0].tail.get_weights())
    if not same_tail:
        kernel = networks[1].tail.trainable_variables[0]
        kernel.assign(kernel * 3)
    each = [network.full.predict_on_batch(pictures) for network in networks]
    model = reload(average_networks(networks, [1.0, 0.5, 0.5], same_tail), tmp_path)
    np.testing.assert_allclose(
        model.predict_on_batch(pictures), np.average(each, axis=0, weights=[2, 1, 1]), atol=1e-6
    )
    own = networks[0].head if same_tail else networks[0].trainable
    expected = networks[0].full.count_params() + 2 * own.count_params()
    assert model.count_params() == expected, "what is equal is there once"
