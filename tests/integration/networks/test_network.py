"""Networks: probabilities from raw images, the two parts, what the head sees."""

from pathlib import Path

import keras
import numpy as np
import pytest

from busi_pipeline.errors import BadInputError
from busi_pipeline.models.backbones import BACKBONES
from busi_pipeline.models.network import (
    Network,
    build_base,
    count_activations,
    count_operations,
)
from tests.learning_factories import HEAD, build_tiny_base, build_tiny_network, draw_pictures


@pytest.fixture(scope="module")
def network() -> Network:
    return build_tiny_network()


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return draw_pictures(5)


def test_probabilities_come_from_raw_images(network: Network, pictures: np.ndarray) -> None:
    probabilities = np.asarray(network.full(pictures))
    assert probabilities.shape == (5, 3)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    assert network.full.input_shape == (None, 32, 32, 3)
    assert network.full.input.dtype == "uint8"


def test_the_head_sees_mean_and_spread_at_the_cut(network: Network, pictures: np.ndarray) -> None:
    features = np.asarray(network.frozen(pictures))
    pooled = np.asarray(network.tail(features))
    channels = features.shape[-1]
    np.testing.assert_allclose(pooled[:, :channels], features.mean(axis=(1, 2)), rtol=1e-4)
    spread = features.std(axis=(1, 2))
    np.testing.assert_allclose(pooled[:, channels : 2 * channels], spread, rtol=1e-3, atol=1e-3)
    last = network.tail.get_layer("tail")
    mean = np.asarray(last(features)).mean(axis=(1, 2))
    np.testing.assert_allclose(pooled[:, 2 * channels :], mean, rtol=1e-4, atol=1e-5)


def test_the_head_may_see_the_last_features_alone(pictures: np.ndarray) -> None:
    network = build_tiny_network(head=HEAD.updated({"pool_intermediate": False}))
    features = np.asarray(network.frozen(pictures))
    last = np.asarray(network.tail.get_layer("tail")(features)).mean(axis=(1, 2))
    np.testing.assert_allclose(network.tail(features), last, rtol=1e-4, atol=1e-5)


def test_a_channel_without_spread_has_a_finite_gradient(network: Network) -> None:
    import tensorflow as tf

    flat = tf.ones((1, *network.tail.input_shape[1:]))
    with tf.GradientTape() as tape:
        tape.watch(flat)
        pooled = keras.ops.sum(network.tail(flat))
    assert np.isfinite(tape.gradient(pooled, flat)).all()


def test_the_head_is_made_as_its_settings_say() -> None:
    plain = HEAD.updated({"dense_units": 0, "batch_normalization": False, "dropout": 0.25})
    kinds = [type(layer).__name__ for layer in build_tiny_network(head=plain).head.layers]
    assert kinds == ["InputLayer", "Dropout", "Dense"]
    full = build_tiny_network(classes=4).head
    assert [type(layer).__name__ for layer in full.layers] == [
        "InputLayer",
        "Dense",
        "BatchNormalization",
        "Dropout",
        "Dense",
    ]
    _, dense, normalization, dropout, probabilities = full.layers
    assert dense.units == 4
    assert normalization.momentum == 0.9
    assert dropout.rate == 0.5
    assert probabilities.units == 4


@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_probabilities_are_float32_in_any_precision(precision: str, pictures: np.ndarray) -> None:
    keras.config.set_dtype_policy(precision)
    try:
        network = build_tiny_network()
    finally:
        keras.config.set_dtype_policy("float32")
    assert network.full.output.dtype == network.tail.output.dtype == "float32"
    assert network.frozen.output.dtype == precision.removeprefix("mixed_")
    assert all(weight.dtype == "float32" for weight in network.full.weights)
    probabilities = np.asarray(network.full(pictures))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)


def test_a_saved_model_loads_without_this_package(
    network: Network, pictures: np.ndarray, tmp_path: Path
) -> None:
    network.full.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False, safe_mode=True)
    assert not any("busi" in type(layer).__module__ for layer in loaded.layers)
    np.testing.assert_allclose(loaded(pictures), network.full(pictures), atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"freeze_until": "conv9"}, "freeze_until must be a layer of the base; got 'conv9'"),
        ({"truncate_at": "conv9"}, "truncate_at must be a layer of the base; got 'conv9'"),
        ({"freeze_until": "block1_1_conv"}, "a connection skips it"),
        ({"freeze_until": "block3_out"}, "freeze_until must be a layer"),
    ],
)
def test_impossible_cuts_are_refused_in_one_line(changes: dict[str, str], message: str) -> None:
    with pytest.raises(BadInputError, match=message) as caught:
        build_tiny_network(**changes)
    assert "\n" not in str(caught.value)


def test_weights_of_a_file_are_in_the_network(tmp_path: Path, pictures: np.ndarray) -> None:
    keras.utils.set_random_seed(5)
    base = build_tiny_base(False, None, (32, 32, 3))
    path = tmp_path / "tiny_notop.weights.h5"
    base.save_weights(path)
    network = build_tiny_network(truncate_at=None, weights=str(path))
    parts = network.frozen.get_layer("trunk"), network.tail.get_layer("tail")
    for number, part in ((1, parts[0]), (2, parts[1]), (3, parts[1])):
        name = f"block{number}_0_conv"
        for ours, theirs in zip(
            part.get_layer(name).get_weights(), base.get_layer(name).get_weights(), strict=True
        ):
            np.testing.assert_array_equal(ours, theirs)


def test_weights_of_another_network_are_named_in_one_line(tmp_path: Path) -> None:
    other = keras.applications.MobileNetV2(weights=None, include_top=False, input_shape=(96, 96, 3))
    path = tmp_path / "resnet50_notop.weights.h5"
    other.save_weights(path)
    with pytest.raises(BadInputError, match="does not hold the weights of ResNet50") as caught:
        build_base(BACKBONES["resnet50"], str(path), 96)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_operations_are_counted_as_published() -> None:
    """VGG16 without its top: 15.3 G multiplications and additions (Simonyan & Zisserman 2015)."""
    base = keras.applications.VGG16(include_top=False, weights=None, input_shape=(224, 224, 3))
    nested = keras.Sequential([keras.Input((224, 224, 3)), base])
    assert count_operations(nested) == pytest.approx(2 * 15.3e9, rel=0.01)


def test_activations_are_counted_in_bytes() -> None:
    def build(dtype: str) -> keras.Model:
        layers = [keras.layers.Conv2D(8, 3, dtype=dtype), keras.layers.GlobalMaxPooling2D()]
        return keras.Sequential([keras.Input((10, 10, 3)), *layers])

    assert count_activations(build("float32")) == 4 * (8 * 8 * 8 + 8)
    assert count_activations(build("bfloat16")) == 2 * 8 * 8 * 8 + 4 * 8
