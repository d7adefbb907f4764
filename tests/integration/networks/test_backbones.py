"""The contract of a backbone: whatever stands in the table can be built, cut and trained."""

import sys
from itertools import pairwise

import keras
import numpy as np
import pytest

from busi_pipeline.config.schemas import ExperimentSettings
from busi_pipeline.errors import BadInputError
from busi_pipeline.models.backbones import BACKBONES, get_backbone
from busi_pipeline.models.batch_norm_folding import fold_batch_normalization
from busi_pipeline.models.network import _cut_base, count_operations, normalise_pixels
from tests.factories import load_parameters
from tests.learning_factories import (
    build_base,
    build_contract_network,
    draw_pictures,
    draw_pictures_for,
)

EXPERIMENTS = {
    name: own
    for name, own in load_parameters()["experiments"].items()
    if isinstance(own, ExperimentSettings)
}

every_backbone = pytest.mark.parametrize("name", BACKBONES)


@every_backbone
def test_pieces_make_up_the_whole_network(name: str) -> None:
    network = build_contract_network(name)
    pictures = draw_pictures_for(BACKBONES[name])
    features = network.frozen(pictures)
    whole = np.asarray(network.full(pictures))
    assert whole.shape == (2, 3)
    np.testing.assert_allclose(whole.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(network.trainable(features), whole, atol=1e-5)
    np.testing.assert_allclose(network.head(network.tail(features)), whole, atol=1e-5)


@every_backbone
def test_input_is_what_preprocess_input_makes(name: str) -> None:
    backbone = BACKBONES[name]
    module = sys.modules[getattr(keras.applications, backbone.builder).__module__]
    pictures = draw_pictures(2, 8)
    images = keras.Input((8, 8, 3), dtype="uint8")
    model = keras.Model(images, normalise_pixels(images, backbone.preprocessing))
    expected = module.preprocess_input(pictures.astype(np.float32))  # a copy: it works in place
    np.testing.assert_allclose(model(pictures), expected, atol=1e-3)


@every_backbone
def test_sizes_are_those_the_network_allows(name: str) -> None:
    backbone = BACKBONES[name]
    assert backbone.image_size >= backbone.minimum_size
    below = backbone.minimum_size - 1
    with pytest.raises(ValueError, match=f"at least {backbone.minimum_size}"):
        getattr(keras.applications, backbone.builder)(
            include_top=False, weights=None, input_shape=(below, below, 3)
        )


@every_backbone
def test_no_connection_skips_freeze_until(name: str) -> None:
    base, _ = build_base(name)
    seen: set[str] = set()
    waiting = [base.output]
    while waiting:
        layer, node, _ = waiting.pop()._keras_history
        if layer.name in seen or layer.name == BACKBONES[name].freeze_until:
            continue
        assert not isinstance(layer, keras.layers.InputLayer), "the input is reached past the cut"
        seen.add(layer.name)
        waiting += layer._inbound_nodes[node].input_tensors
    assert seen, "nothing would be left to fine-tune"


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_cuts_its_backbone_where_it_can(name: str) -> None:
    settings = EXPERIMENTS[name]
    base, _ = build_base(settings.backbone)
    if settings.truncate_at is not None:
        base = keras.Model(base.input, base.get_layer(settings.truncate_at).output)
    trunk, tail = _cut_base(base, settings.freeze_until)
    assert trunk.output.shape == tail.input.shape
    assert tail.trainable_weights, "nothing would be fine-tuned"


@every_backbone
def test_only_the_tail_and_the_head_can_be_trained(name: str) -> None:
    network = build_contract_network(name)
    assert not network.frozen.trainable_weights
    tail = network.tail.get_layer("tail")
    assert tail.trainable_weights
    assert BACKBONES[name].freeze_until not in {layer.name for layer in tail.layers}
    for layer in tail.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            assert not layer.trainable, "its statistics would be destroyed"
    assert len(network.trainable.trainable_weights) == len(tail.trainable_weights) + len(
        network.head.trainable_weights
    )


@every_backbone
def test_folding_changes_nothing_but_the_work(name: str) -> None:
    base, _ = build_base(name)
    trunk, _ = _cut_base(base, BACKBONES[name].freeze_until)
    images = np.random.default_rng(2).normal(size=(2, *base.input_shape[1:])).astype(np.float32)
    expected = np.asarray(trunk(images))
    folded = fold_batch_normalization(trunk)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(np.asarray(folded(images)) / scale, expected / scale, atol=2e-4)
    np.testing.assert_array_equal(np.asarray(trunk(images)), expected, "left as it was")
    assert count_operations(folded) == count_operations(trunk)
    assert len(folded.layers) == len(trunk.layers)


@every_backbone
def test_features_fit_float16_and_have_four_axes(name: str) -> None:
    network = build_contract_network(name)
    features = np.asarray(network.frozen(draw_pictures_for(BACKBONES[name])))
    assert features.ndim == 4
    assert np.isfinite(features.astype(np.float16)).all()
    channels, last = (model.output_shape[-1] for model in (network.frozen, network.tail))
    base_channels = network.tail.get_layer("tail").output_shape[-1]
    assert last == 2 * channels + base_channels, "mean and spread at the cut, mean at the end"


@every_backbone
def test_imagenet_file_begins_as_keras_names_it(name: str) -> None:
    _, file_name = build_base(name)
    assert file_name.startswith(BACKBONES[name].imagenet_file)


def test_no_two_imagenet_files_begin_alike() -> None:
    names = sorted(backbone.imagenet_file for backbone in BACKBONES.values())
    assert not [one for one, other in pairwise(names) if other.startswith(one)]


def test_an_unknown_backbone_is_refused_with_those_there_are() -> None:
    with pytest.raises(BadInputError, match=r"one of .*'vgg16'.*got 'vgg61'") as caught:
        get_backbone("vgg61")
    assert "\n" not in str(caught.value)
