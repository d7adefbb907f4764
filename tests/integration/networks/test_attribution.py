"""What speaks for and against a class adds up to what the network says, and lies where it is."""

import keras
import numpy as np
import pytest

from busi_pipeline.models.attribution import add_attribution, has_linear_heads
from busi_pipeline.models.delivered import DeliveredModel
from busi_pipeline.models.exporting import export_classifier
from busi_pipeline.models.network import Network
from busi_pipeline.models.onnx_networks import ATTRIBUTION, OnnxNetworks
from busi_pipeline.models.wrappers import (
    add_flag,
    average_models,
    average_networks,
    average_over_windows,
    average_with_flipped,
    average_with_pretuned,
    calibrate,
)
from tests.learning_factories import HEAD, TINY_SIZE, build_tiny_network

LINEAR = HEAD.model_copy(update={"dense_units": 0, "batch_normalization": False})
IMAGES = np.random.default_rng(3).integers(0, 256, (4, TINY_SIZE, TINY_SIZE, 3), dtype=np.uint8)


def build(seed: int = 0, pool_intermediate: bool = True) -> Network:
    head = LINEAR.model_copy(update={"pool_intermediate": pool_intermediate})
    network = build_tiny_network(head=head, seed=seed)
    kernel, bias = network.head.get_weights()
    network.head.set_weights([5 * kernel, bias + np.array([0.3, -0.2, 0.1])])
    return network


def deliver(model: keras.Model) -> keras.Model:
    return add_flag(calibrate(model, 1.3, [0.1, -0.2, 0.0]), [1], 0.3)


def explain(model: keras.Model, images: np.ndarray = IMAGES) -> np.ndarray:
    return np.asarray(add_attribution(deliver(model), [1]).predict_on_batch(images)[ATTRIBUTION])


@pytest.mark.parametrize("pool_intermediate", [True, False])
def test_places_add_up_to_the_log_odds(pool_intermediate: bool) -> None:
    network = build(pool_intermediate=pool_intermediate)
    maps = explain(network.full)
    assert maps.std(axis=(1, 2)).min() > 1e-3, "places differ"
    kernel, bias = network.head.get_weights()
    pooled = network.tail.predict_on_batch(network.frozen.predict_on_batch(IMAGES))
    logits = pooled @ kernel
    shares = network.full.predict_on_batch(IMAGES)
    # The gradient of log(p1 / (p0 + p2)) by the logits.
    by_logit = np.stack([-shares[:, 0], shares[:, 0] + shares[:, 2], -shares[:, 2]], axis=1)
    by_logit /= shares[:, [0]] + shares[:, [2]]
    np.testing.assert_allclose(maps.mean(axis=(1, 2)), (by_logit * logits).sum(axis=1), rtol=1e-3)
    assert np.abs(bias).min() > 0.05, "a bias belongs to no place"


def test_the_flip_is_turned_back() -> None:
    once, both = explain(build().full), explain(average_with_flipped(build().full))
    mirrored = explain(build().full, IMAGES[:, :, ::-1])[:, :, ::-1]
    np.testing.assert_allclose(both, (once + mirrored) / 2, atol=1e-5)
    assert np.abs(once - mirrored).max() > 1e-2, "the network sees a difference"


def test_of_several_networks_the_mean() -> None:
    each = [explain(build(seed).full) for seed in (0, 1)]
    bag = average_networks([build(0), build(0)], [1, 1], same_tail=True)
    np.testing.assert_allclose(explain(bag), each[0], atol=1e-5)
    first, second = build(0), build(0)
    second.head.set_weights(build(1).head.get_weights())
    second.full.set_weights(first.full.get_weights()[:-2] + build(1).head.get_weights())
    expected = (explain(first.full) + explain(second.full)) / 2
    tuned = average_with_pretuned(first, second)
    np.testing.assert_allclose(explain(tuned), expected, atol=1e-5)
    joined = average_models([build(0).full, build(1).full])
    np.testing.assert_allclose(explain(joined), (each[0] + each[1]) / 2, atol=1e-5)


def test_every_window_has_a_map() -> None:
    windows = np.stack([IMAGES, IMAGES[::-1], IMAGES // 2], axis=1)
    maps = explain(average_over_windows(build().full, 3), windows)
    expected = explain(build().full, windows.reshape(-1, *IMAGES.shape[1:]))
    np.testing.assert_allclose(maps, expected, atol=1e-5)


def test_the_export_has_the_attribution_and_computes_nothing_twice() -> None:
    import onnx

    def count(content: bytes) -> int:
        nodes = onnx.load_model_from_string(content).graph.node
        return sum(node.op_type == "Conv" for node in nodes)

    members = [average_with_flipped(build(seed).full) for seed in (0, 1)]
    model = deliver(average_over_windows(average_models(members), 2))
    windows = np.stack([IMAGES, IMAGES[::-1]], axis=1)
    content = export_classifier(model, [1])
    answer = OnnxNetworks(content).classify(windows)
    expected = np.asarray(add_attribution(model, [1]).predict_on_batch(windows)[ATTRIBUTION])
    assert answer[ATTRIBUTION].shape == (4, 2, *expected.shape[1:])
    np.testing.assert_allclose(answer[ATTRIBUTION].reshape(expected.shape), expected, atol=1e-4)
    # Two members, the image and its flip, each with all of the network's convolutions.
    convolutions = [
        layer
        for part in (build().frozen, build().tail)
        for layer in part._flatten_layers()
        if isinstance(layer, keras.layers.Conv2D)
    ]
    assert count(content) == 2 * 2 * len(convolutions)


def test_a_head_with_hidden_layers_has_none() -> None:
    model = deliver(build_tiny_network(head=HEAD).full)
    assert not has_linear_heads(model)
    assert has_linear_heads(deliver(build().full))
    answer = OnnxNetworks(export_classifier(model, [1])).classify(IMAGES)
    assert ATTRIBUTION not in answer
    expected = DeliveredModel(model, {}).classify(IMAGES)["probabilities"]
    np.testing.assert_allclose(answer["probabilities"], expected, atol=1e-5)
