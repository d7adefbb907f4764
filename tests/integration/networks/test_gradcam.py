"""Grad-CAM: the map is where the class was seen, as its formula has it, averages included."""

from pathlib import Path

import keras
import numpy as np
import pytest

from busi_pipeline.models.gradcam import compute_gradcam
from busi_pipeline.models.network import Network
from busi_pipeline.models.wrappers import (
    average_over_windows,
    average_with_flipped,
    average_with_pretuned,
)
from tests.learning_factories import build_tiny_network, draw_pictures


def build_quadrant_network() -> keras.Model:
    """Looks at 8 x 8 images by quadrant: red speaks for class 0, green for class 1.

    Layers are named and nested as `models.network` does it.
    """
    images = keras.Input((8, 8, 3), dtype="uint8")
    pixels = keras.Input((8, 8, 3), dtype="uint8")
    normalised = keras.layers.Rescaling(1 / 255, name="normalise")(pixels)
    frozen = keras.Model(pixels, keras.layers.AveragePooling2D(4)(normalised), name="frozen")
    at_cut = keras.Input((2, 2, 3))
    pooled = keras.layers.GlobalAveragePooling2D(name="pool")(at_cut)
    tail = keras.Model(at_cut, pooled, name="tail_and_pool")
    vectors = keras.Input((3,))
    dense = keras.layers.Dense(3, activation="softmax", name="probabilities")
    head = keras.Model(vectors, dense(keras.layers.Dropout(0.5)(vectors)), name="head")
    dense.set_weights([np.diag([1.0, 1.0, 0.0]), np.zeros(3)])
    return keras.Model(images, head(tail(frozen(images))), name="tiny")


def paint(quadrant: tuple[int, int], channel: int) -> np.ndarray:
    image = np.zeros((8, 8, 3), dtype=np.uint8)
    row, column = quadrant
    image[4 * row : 4 * row + 4, 4 * column : 4 * column + 4, channel] = 255
    return image


@pytest.mark.parametrize("flipped", [False, True])
def test_the_map_is_where_the_class_was_seen(flipped: bool) -> None:
    network = build_quadrant_network()
    network = average_with_flipped(network) if flipped else network
    images = np.stack([paint((0, 1), 0) + paint((1, 0), 1)] * 2)
    maps = compute_gradcam(network, images, np.array([0, 1]))
    # A channel's weight is its gradient, a quarter; the map is that of the painted quadrant.
    np.testing.assert_allclose(maps[0], [[0, 0.25], [0, 0]], atol=1e-6)
    np.testing.assert_allclose(maps[1], [[0, 0], [0.25, 0]], atol=1e-6)


def test_of_several_windows_one_is_explained() -> None:
    network = average_with_flipped(build_quadrant_network())
    images = np.stack([paint((0, 1), 0)])
    one = compute_gradcam(network, images, np.array([0]))
    several = compute_gradcam(average_over_windows(network, 3), images, np.array([0]))
    np.testing.assert_array_equal(one, several)
    assert one.max() > 0.2


@pytest.fixture(scope="module")
def networks() -> tuple[Network, Network]:
    """One network after and before its fine-tuning."""
    tuned, pretuned = build_tiny_network(seed=0), build_tiny_network(seed=1)
    pretuned.frozen.set_weights(tuned.frozen.get_weights())
    return tuned, pretuned


def score(networks: tuple[Network, ...], features: np.ndarray, position: int) -> np.ndarray:
    """Return float64 (n,): the score of a class before the softmax, up to the same for all.

    Log-probabilities differ from scores by the same for each class, so differences are taken.
    """
    answers = []
    for network in networks:
        head = network.head
        logits = keras.Model(head.input, head.layers[-1].input)(network.tail(features))
        kernel, bias = (np.asarray(w, dtype=np.float64) for w in head.layers[-1].get_weights())
        answers.append(np.asarray(logits, dtype=np.float64) @ kernel + bias)
    return np.mean(answers, axis=0)[:, position]


@pytest.mark.parametrize("with_pretuned", [False, True])
def test_the_map_is_that_of_finite_differences(
    networks: tuple[Network, Network], with_pretuned: bool
) -> None:
    tuned, pretuned = networks
    chosen = networks if with_pretuned else (tuned,)
    model = average_with_pretuned(tuned, pretuned) if with_pretuned else tuned.full
    picture = draw_pictures(1)
    features = np.asarray(tuned.frozen(picture))
    step = 1e-2 * features.std()
    # The mean gradient of a channel: what the score gains where the whole channel rises.
    channels = features.shape[-1]
    raised = features + step * np.eye(channels)[:, None, None, :]
    lowered = features - step * np.eye(channels)[:, None, None, :]
    places = features.shape[1] * features.shape[2]
    for position in (0, 2):
        gain = score(chosen, raised.astype(np.float32), position)
        gain -= score(chosen, lowered.astype(np.float32), position)
        weights = gain / (2 * step * places)
        expected = np.maximum((features[0] * weights).sum(axis=-1), 0)
        found = compute_gradcam(model, picture, np.array([position]))[0]
        assert expected.max() > 0
        np.testing.assert_allclose(found, expected, atol=0.02 * expected.max())


@pytest.mark.parametrize("with_pretuned", [False, True])
def test_maps_of_a_saved_model_are_the_same(
    networks: tuple[Network, Network], with_pretuned: bool, tmp_path: Path
) -> None:
    tuned, _ = networks
    model = average_with_flipped(average_with_pretuned(*networks) if with_pretuned else tuned.full)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    images, classes = draw_pictures(3), np.array([0, 1, 2])
    maps = compute_gradcam(model, images, classes)
    assert maps.shape == (3, *tuned.frozen.output_shape[1:3])
    assert maps.dtype == np.float32
    np.testing.assert_allclose(compute_gradcam(loaded, images, classes), maps, atol=1e-6)
    alone = compute_gradcam(average_with_flipped(tuned.full), images, classes)
    assert np.allclose(maps, alone) != with_pretuned, "both tails count"


def test_a_map_of_the_flip_is_flipped_back(networks: tuple[Network, Network]) -> None:
    tuned, _ = networks
    images, classes = draw_pictures(2), np.array([1, 2])
    straight = compute_gradcam(tuned.full, images, classes)
    flipped = compute_gradcam(tuned.full, images[:, :, ::-1], classes)[:, :, ::-1]
    averaged = compute_gradcam(average_with_flipped(tuned.full), images, classes)
    np.testing.assert_allclose(averaged, (straight + flipped) / 2, atol=1e-6)
