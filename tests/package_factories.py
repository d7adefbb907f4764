"""A package with the smallest networks that answer: the brighter, the likelier malignant."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
from onnx import TensorProto, helper, numpy_helper

from busi_pipeline.imaging.quality import Quality
from busi_pipeline.models.novelty import Reference, build_reference
from busi_pipeline.models.onnx_networks import ATTRIBUTION, FEATURES
from busi_pipeline.models.package_parts import PackageParts, write_package
from busi_pipeline.models.packaged import Limits

SIZE, LOCALIZER_SIZE = 16, 32
CLASS_NAMES = ["benign", "malignant", "normal"]
THRESHOLD = 0.3
ANYTHING = Limits(
    1e9,
    1e9,
    1e9,
    0.0,
    0.5,
    Quality(0.0, 0.0, 0.0, 0.0, 0.0),
    Quality(1e9, 1e9, 1e9, 1.0, 255.0),
)


def draw_scan(seed: int = 0, height: int = 60, width: int = 80, level: float = 90) -> np.ndarray:
    """Return uint8 (height, width, 3) grey speckle, smooth enough to be no noise."""
    rng = np.random.default_rng(seed)
    rough = rng.normal(level, 30, (height // 4 + 1, width // 4 + 1))
    smooth = np.kron(rough, np.ones((4, 4)))[:height, :width] + rng.normal(0, 4, (height, width))
    return np.repeat(np.clip(smooth, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def make_classifier(threshold: float = THRESHOLD, size: int = SIZE) -> bytes:
    """Return an ONNX file: softmax of the mean brightness; features are mean and contrast.

    What is brighter than half speaks for malignant.
    """
    weights = {
        "slopes": np.array([[-2.0, 8.0, 0.0]], np.float32),
        "offsets": np.array([3.0, -2.0, -3.0], np.float32),
        "scale": np.array(255.0, np.float32),
        "flat": np.array([0, size * size * 3], np.int64),
        "across": np.array([1], np.int64),
        "channels": np.array([3], np.int64),
        "half": np.array(0.5, np.float32),
        "chosen": np.array(1, np.int64),
        "threshold": np.array(threshold, np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["values"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["values", "scale"], ["shares"]),
        helper.make_node("Reshape", ["shares", "flat"], ["rows"]),
        helper.make_node("ReduceMean", ["rows", "across"], ["mean"]),
        helper.make_node("ReduceMax", ["rows", "across"], ["most"]),
        helper.make_node("ReduceMin", ["rows", "across"], ["least"]),
        helper.make_node("Concat", ["mean", "most", "least"], [FEATURES], axis=1),
        helper.make_node("MatMul", ["mean", "slopes"], ["scores"]),
        helper.make_node("Add", ["scores", "offsets"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=-1),
        helper.make_node("Sub", ["shares", "half"], ["signed"]),
        helper.make_node("ReduceMean", ["signed", "channels"], [ATTRIBUTION], keepdims=0),
        helper.make_node("Gather", ["probabilities", "chosen"], ["positive_score"], axis=1),
        helper.make_node("GreaterOrEqual", ["positive_score", "threshold"], ["flagged"]),
    ]
    outputs = [
        helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 3]),
        helper.make_tensor_value_info("positive_score", TensorProto.FLOAT, [None]),
        helper.make_tensor_value_info("flagged", TensorProto.BOOL, [None]),
        helper.make_tensor_value_info(FEATURES, TensorProto.FLOAT, [None, 3]),
        helper.make_tensor_value_info(ATTRIBUTION, TensorProto.FLOAT, [None, size, size]),
    ]
    return _save(nodes, "image", [None, size, size, 3], outputs, weights)


def make_localizer(size: int = LOCALIZER_SIZE) -> bytes:
    """Return an ONNX file: the brighter a pixel, the likelier it is of a lesion."""
    weights = {
        "scale": np.array(255.0, np.float32),
        "shape": np.array([-1, 1, size, size], np.int64),
        "back": np.array([-1, size // 4, size // 4, 1], np.int64),
    }
    nodes = [
        helper.make_node("Cast", ["grey"], ["values"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["values", "scale"], ["shares"]),
        helper.make_node("Reshape", ["shares", "shape"], ["planes"]),
        helper.make_node(
            "AveragePool", ["planes"], ["pooled"], kernel_shape=[4, 4], strides=[4, 4]
        ),
        helper.make_node("Reshape", ["pooled", "back"], ["map"]),
        helper.make_node("Concat", ["map", "map"], ["maps"], axis=3),
    ]
    output = helper.make_tensor_value_info(
        "maps", TensorProto.FLOAT, [None, size // 4, size // 4, 2]
    )
    return _save(nodes, "grey", [None, size, size], [output], weights)


def _save(
    nodes: list[onnx.NodeProto],
    name: str,
    shape: list[int | None],
    outputs: list[onnx.ValueInfoProto],
    weights: dict[str, np.ndarray],
) -> bytes:
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, TensorProto.UINT8, shape)],
        outputs,
        [numpy_helper.from_array(values, key) for key, values in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 9
    onnx.checker.check_model(model)
    return model.SerializeToString()


def make_reference() -> Reference:
    """Return what is known of twelve scans."""
    features = np.array([_look(draw_scan(seed)) for seed in range(12)])
    groups = np.arange(12)
    return build_reference(features, groups, 1 - features, groups, 2)


def _look(pixels: np.ndarray) -> list[float]:
    shares = pixels / 255
    return [float(shares.mean()), float(shares.max()), float(shares.min())]


def make_tested(count: int = 60, shift: float = 0.0, seed: int = 0) -> pd.DataFrame:
    """Return what such a model was tested on, a third of it malignant.

    Args:
        shift: of the logits of malignant images: how much better, or worse, the model is.
    """
    rng = np.random.default_rng(seed)
    labels = np.array([CLASS_NAMES[number % 3] for number in range(count)])
    malignant = labels == "malignant"
    logits = np.where(malignant, 2.0 + shift, -3.0) + rng.normal(0, 1, count)
    score = 1 / (1 + np.exp(-logits))
    table = pd.DataFrame(
        {
            "image_id": [f"image {number}" for number in range(count)],
            "group": [f"group {number}" for number in range(count)],
            "label": labels,
            "split": "test",
            "repeat": 1,
            "fold": 1,
            "p_benign": (1 - score) * np.where(labels == "benign", 0.97, 0.03),
            "p_malignant": score,
            "p_normal": (1 - score) * np.where(labels == "benign", 0.03, 0.97),
            "pixel_sha256": [f"{number:064x}" for number in range(count)],
            "positive_score": score,
            "flagged": score >= THRESHOLD,
            "distance": rng.uniform(0.2, 1.0, count),
        }
    )
    uncalibrated = {f"uncalibrated_{name}": table[f"p_{name}"] for name in CLASS_NAMES}
    likeliest = table[[f"p_{name}" for name in CLASS_NAMES]].to_numpy().argmax(axis=1)
    table["predicted"] = np.array(CLASS_NAMES)[likeliest]
    table["correct"] = table["predicted"] == table["label"]
    qualities = {
        "shorter_side": 60.0,
        "contrast": 100.0 + rng.normal(0, 5, count),
        "detail": 0.2,
        "colour": 0.0,
        "brightness": 90.0 + rng.normal(0, 5, count),
    }
    return table.assign(**uncalibrated, **qualities)


def make_parts(locates: bool = False, **changes: Any) -> PackageParts:
    """Return the parts of a package, of a model that looks at the lesion or at the whole image."""
    description = {
        "title": "by brightness",
        "image_size": SIZE,
        "classes": CLASS_NAMES,
        "positive_classes": ["malignant"],
        "lesion_free_classes": ["normal"],
        "threshold": THRESHOLD,
        "temperature": 1.0,
        "offsets": [0.0, 0.0, 0.0],
        "expected_sensitivity": 0.95,
    }
    if locates:
        description["input"] = {"view": "lesion", "keep_aspect": True, "margin": 0.2}
    parts = PackageParts(
        classifier=make_classifier(),
        localizer=make_localizer() if locates else None,
        description=description,
        limits=ANYTHING,
        reference=make_reference(),
        training_pixels=frozenset(),
        tested=make_tested(),
        card="# A card\n",
        precision="single",
    )
    return parts._replace(**changes)


def write_tiny_package(folder: Path, locates: bool = False, **changes: Any) -> Path:
    """Write a package and return its folder."""
    write_package(make_parts(locates, **changes), "tiny", folder)
    return folder


def change_package_file(folder: Path, **changes: Any) -> None:
    """Change entries of package.json; None takes one out."""
    path = folder / "package.json"
    described = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in described.items() if v is not None}))
