"""A step of fine-tuning changes tail and head of every backbone, and nothing else."""

import keras
import numpy as np
import pytest

from busi_pipeline.models.backbones import BACKBONES
from tests.learning_factories import build_contract_network, draw_pictures_for


def read(layers: list[keras.Layer]) -> list[np.ndarray]:
    return [np.asarray(weight).copy() for layer in layers for weight in layer.weights]


def same(before: list[np.ndarray], after: list[np.ndarray]) -> bool:
    return all(np.array_equal(*pair) for pair in zip(before, after, strict=True))


@pytest.mark.parametrize("name", BACKBONES)
def test_a_step_of_fine_tuning_changes_the_tail_only(name: str) -> None:
    network = build_contract_network(name)
    tail = network.tail.get_layer("tail").layers
    statistics = [y for y in tail if isinstance(y, keras.layers.BatchNormalization)]
    convolutions = [y for y in tail if isinstance(y, keras.layers.Conv2D)]
    dense = [network.head.get_layer("probabilities")]
    parts = [[network.frozen], statistics, convolutions, dense]
    before = [read(part) for part in parts]
    features = np.asarray(network.frozen(draw_pictures_for(BACKBONES[name], 4)))
    network.trainable.compile(keras.optimizers.SGD(0.1), "categorical_crossentropy")
    network.trainable.fit(features, np.eye(3)[[0, 1, 2, 0]], epochs=1, verbose=0)
    frozen, of_statistics, of_convolutions, of_head = (
        same(was, read(part)) for was, part in zip(before, parts, strict=True)
    )
    assert frozen
    assert of_statistics, "normalisation keeps its statistics, scale and shift"
    assert not of_convolutions
    assert not of_head
