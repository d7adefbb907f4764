"""Exported networks answer as Keras does, and one that does not is never packed."""

import sys
from pathlib import Path
from typing import Literal

import keras
import numpy as np
import onnx
import pandas as pd
import pytest

from busi_pipeline.config.schemas import HeadSettings
from busi_pipeline.errors import BadInputError
from busi_pipeline.models import exporting
from busi_pipeline.models.delivered import DeliveredModel
from busi_pipeline.models.exporting import convert_to_half, export_classifier, quantize
from busi_pipeline.models.onnx_networks import FEATURES, OnnxNetworks
from busi_pipeline.models.phone import LitertClassifier, export_litert
from busi_pipeline.models.runtime_cost import measure_cost
from busi_pipeline.models.wrappers import (
    add_flag,
    average_models,
    average_networks,
    average_over_windows,
    calibrate,
)
from busi_pipeline.pipelines.packaging.nodes import check_export
from tests.factories import load_parameters
from tests.learning_factories import TINY_SIZE, build_tiny_network

HEAD = HeadSettings(
    pool_intermediate=True,
    dense_units=0,
    batch_normalization=False,
    batch_normalization_momentum=0.9,
    dropout=0.1,
)
IMAGES = np.random.default_rng(1).integers(0, 256, (6, 3, TINY_SIZE, TINY_SIZE, 3), dtype=np.uint8)
PACKAGING = load_parameters()["packaging"]


def build_bag(seed: int) -> tuple[keras.Model, keras.Model]:
    """Return the mean of two networks over three windows, and what their heads read."""
    networks = [build_tiny_network(head=HEAD, seed=seed + number) for number in range(2)]
    for network in networks:
        kernel, bias = network.head.get_weights()
        network.head.set_weights([5 * kernel, bias])  # images differ more
    return average_over_windows(average_networks(networks, [1, 1], True), 3), keras.Model(
        networks[0].frozen.input, networks[0].tail(networks[0].frozen.output)
    )


@pytest.fixture(scope="module")
def built() -> tuple[keras.Model, keras.Model, bytes]:
    """A model of two members, what the first one sees, and the exported file."""
    (first, seen), (second, _) = build_bag(0), build_bag(10)
    model = add_flag(calibrate(average_models([first, second]), 1.3, [0.1, -0.2, 0.0]), [1], 0.3)
    return model, seen, export_classifier(model, [1])


def load(content: bytes, folder: Path) -> OnnxNetworks:
    path = folder / "classifier.onnx"
    path.write_bytes(content)
    return OnnxNetworks(path)


def test_the_export_answers_as_keras(
    built: tuple[keras.Model, keras.Model, bytes], tmp_path: Path
) -> None:
    model, _, content = built
    expected = DeliveredModel(model, {}).classify(IMAGES)
    networks = load(content, tmp_path)
    answer = networks.classify(IMAGES)
    assert networks.windows == 3
    np.testing.assert_allclose(answer["probabilities"], expected["probabilities"], atol=1e-5)
    np.testing.assert_allclose(answer["positive_score"], expected["positive_score"], atol=1e-5)
    np.testing.assert_array_equal(answer["flagged"], expected["flagged"])
    one = networks.classify(IMAGES[2:3])
    np.testing.assert_allclose(one["probabilities"], answer["probabilities"][2:3], atol=1e-6)


def test_features_are_what_the_first_head_reads(
    built: tuple[keras.Model, keras.Model, bytes], tmp_path: Path
) -> None:
    _, seen, content = built
    each = seen.predict_on_batch(IMAGES.reshape(-1, *IMAGES.shape[2:]))
    expected = each.reshape(len(IMAGES), 3, -1).mean(axis=1)
    answer = load(content, tmp_path).classify(IMAGES)
    np.testing.assert_allclose(answer[FEATURES], expected, rtol=1e-4, atol=1e-5)


def test_less_precision_keeps_the_head_in_single(
    built: tuple[keras.Model, keras.Model, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights of a head can be beyond half precision, and spread too far for eight bits."""
    _, _, content = built
    single = load(content, tmp_path).classify(IMAGES)["probabilities"]
    half = convert_to_half(content)
    monkeypatch.setattr(exporting, "_LARGE_MAP", 2)  # a tiny network has none but large ones
    int8 = quantize(content, [IMAGES[:3], IMAGES[3:]])
    kinds = {
        tensor.name: tensor.data_type
        for tensor in onnx.load_model_from_string(half).graph.initializer
    }
    assert list(kinds.values()).count(onnx.TensorProto.FLOAT16) > 10
    heads = {kind for name, kind in kinds.items() if "/head" in name}
    assert heads == {onnx.TensorProto.FLOAT}
    quantized = onnx.load_model_from_string(int8).graph
    made_of = {output: node.op_type for node in quantized.node for output in node.output}
    weights = {
        kind: {made_of.get(node.input[1]) for node in quantized.node if node.op_type == kind}
        for kind in ("Conv", "MatMul")
    }
    assert weights["Conv"] == {"DequantizeLinear", None}, "those on large maps are as they were"
    assert "DequantizeLinear" not in weights["MatMul"]
    assert None in weights["MatMul"], "weights of a head are as they were"
    assert np.ptp(single, axis=0).max() > 0.01
    for smaller, tolerance in ((half, 0.02), (int8, 0.35)):
        answer = load(smaller, tmp_path).classify(IMAGES)
        assert np.abs(answer["probabilities"] - single).max() < tolerance
        assert np.ptp(answer["probabilities"], axis=0).max() > 0.01, "images still differ"


@pytest.mark.parametrize(("weights", "tolerance"), [("half", 0.01), ("int8", 0.1)])
def test_a_phone_answers_nearly_as_keras(
    built: tuple[keras.Model, keras.Model, bytes],
    weights: Literal["half", "int8"],
    tolerance: float,
) -> None:
    model, _, single = built
    expected = DeliveredModel(model, {}).classify(IMAGES)
    content = export_litert(model, weights)
    answer = LitertClassifier(content).classify(IMAGES)
    assert np.abs(answer["probabilities"] - expected["probabilities"]).max() < tolerance
    assert np.abs(answer["positive_score"] - expected["positive_score"]).max() < tolerance
    assert answer["flagged"].shape == (len(IMAGES),)
    assert np.ptp(expected["probabilities"], axis=0).max() > 0.01, "images differ"
    assert len(content) < 0.9 * len(single)


@pytest.mark.parametrize("weights", ["half", "int8"])
def test_weights_beyond_half_precision_reach_the_phone(weights: Literal["half", "int8"]) -> None:
    """Of a feature that hardly ever speaks, a head's weight can be that large."""
    network = build_tiny_network(head=HEAD)
    kernel, bias = network.head.get_weights()
    kernel[0] = [160_000, -160_000, 0]
    pooled = network.tail.predict_on_batch(network.frozen.predict_on_batch(IMAGES[:, 0]))
    network.head.set_weights([kernel, bias - kernel[0] * pooled[:, 0].mean()])
    model = add_flag(network.full, [1], 0.3)
    expected = DeliveredModel(model, {}).classify(IMAGES[:, 0])["probabilities"]
    answer = LitertClassifier(export_litert(model, weights)).classify(IMAGES[:, 0])
    assert np.isfinite(answer["probabilities"]).all()
    np.testing.assert_array_equal(answer["probabilities"].argmax(axis=1), expected.argmax(axis=1))
    assert len(set(expected.argmax(axis=1))) > 1, "images differ"


def test_without_litert_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(BadInputError, match=r"pip install \"busi_pipeline\[phone\]\""):
        LitertClassifier(b"")


def test_a_model_without_a_head_is_not_exported() -> None:
    images = keras.Input((8, 8, 3), dtype="uint8")
    mean = keras.ops.mean(keras.ops.cast(images, "float32"), axis=(1, 2))
    with pytest.raises(ValueError, match="no layer named head"):
        export_classifier(
            add_flag(keras.Model(images, keras.layers.Softmax()(mean)), [1], 0.3), [1]
        )


def test_the_cost_of_an_image_is_measured(
    built: tuple[keras.Model, keras.Model, bytes],
) -> None:
    cost = measure_cost(built[2])
    assert 0 < cost.milliseconds < 5000
    assert 20 < cost.peak_mb < 1000


def compare(**changes: dict[str, float]) -> pd.DataFrame:
    plain = {
        "images": 100,
        "largest_difference": 1e-6,
        "changed_classes": 0,
        "changed_flags": 0,
        "positive_auc": 0.9,
    }
    return pd.DataFrame(
        [plain | {"network": name} | changes.get(name, {}) for name in ("single", "half", "int8")]
    )


REFUSED = {
    "difference": ({"single": {"largest_difference": 2e-5}}, "differ by up to 2.0e-05"),
    "not a number": ({"single": {"largest_difference": float("nan")}}, "differ by up to nan"),
    "a class": ({"single": {"changed_classes": 1}}, "1 classes differ"),
    "a flag": ({"single": {"changed_flags": 2}}, "2 flags differ"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_export_that_differs_is_refused(name: str) -> None:
    changes, reason = REFUSED[name]
    with pytest.raises(BadInputError, match=reason) as caught:
        check_export(compare(**changes), PACKAGING)
    assert "Nothing was packed" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_less_precision_is_held_to_its_limits_where_it_is_packed() -> None:
    worse = {"half": {"positive_auc": 0.885}, "int8": {"changed_flags": 2}}
    check_export(compare(**worse), PACKAGING)
    for precision, reason in (("half", "loses 0.015 of AUC"), ("int8", "turns 2.0 % of the flags")):
        chosen = PACKAGING.model_copy(update={"precision": precision})
        with pytest.raises(BadInputError, match=reason):
            check_export(compare(**worse), chosen)
        check_export(compare(), chosen)


def test_files_for_a_phone_are_held_to_the_same_limits_and_to_a_size() -> None:
    phone = compare().assign(network=["single", "half", "phone"], megabytes=29.9)
    check_export(phone, PACKAGING)
    changes = {"positive_auc": (0.88, "phone loses 0.020 of AUC")}
    changes["changed_flags"] = (2, "phone turns 2.0 % of the flags")
    changes["megabytes"] = (30.5, "its files for a phone have 30 MB")
    for column, (value, reason) in changes.items():
        worse = phone.copy().astype({column: float})
        worse.loc[2, column] = value
        with pytest.raises(BadInputError, match=reason):
            check_export(worse, PACKAGING)
