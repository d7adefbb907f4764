"""From a Keras model to an ONNX file, in several precisions."""

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import pandas as pd

from busi_pipeline.models.onnx_networks import FEATURES

if TYPE_CHECKING:
    import keras
    import onnx

# Names of nodes within a head: models.network calls it so, and copies get a number.
_IN_HEAD = re.compile(r"(^|/)head(_\d+)*/")
_MATMULS = ("MatMul", "Gemm")
# An image's side, in sides of a map that is large.
_LARGE_MAP = 8
# Not the newest: what runtimes of two years ago read.
_OPSET = 18
SINGLE, PHONE = "single", "phone"


class ExportLimits(Protocol):
    """What is allowed; `config.schemas.PackagingSettings` fits."""

    @property
    def precision(self) -> str: ...
    @property
    def phone_megabytes(self) -> float: ...
    @property
    def largest_difference(self) -> float: ...
    @property
    def max_auc_lost(self) -> float: ...
    @property
    def max_changed_flags(self) -> float: ...


class ExportedNetworks(NamedTuple):
    """ONNX files.

    Attributes:
        classifiers: {`single`, `half` or `int8`: file}.
        localizer: in single precision; None where there is none.
        phone: {`classifier`, and `localizer` where there is one: LiteRT file}; empty where none was
            asked for.
    """

    classifiers: dict[str, bytes]
    localizer: bytes | None
    phone: dict[str, bytes] = {}  # noqa: RUF012  # nothing changes it


def export_classifier(model: "keras.Model", positive: Sequence[int]) -> bytes:
    """Return a classifier as an ONNX file.

    Args:
        model: uint8 images -> {`probabilities`, `positive_score`, `flagged`}, as delivered.
        positive: positions of the positive classes.

    What the first head reads becomes a further output, `features` float32 (images x windows,
    channels), so that a look at what the network sees costs nothing. So does `attribution`, where
    the heads are linear; see models.attribution.add_attribution.
    """
    import onnx

    from busi_pipeline.models.attribution import add_attribution, has_linear_heads, list_heads

    first = next(list_heads(model), None)
    if first is None:
        raise ValueError(f"{model.name} has no layer named head to take features from")
    if has_linear_heads(model):
        model = add_attribution(model, positive)
    proto = onnx.load_model_from_string(export_model(model))
    read, channels = _find_features(proto, first)
    proto.graph.node.append(onnx.helper.make_node("Identity", [read], [FEATURES], name=FEATURES))
    proto.graph.output.append(
        onnx.helper.make_tensor_value_info(FEATURES, onnx.TensorProto.FLOAT, [None, channels])
    )
    onnx.checker.check_model(proto)
    return proto.SerializeToString()


def export_model(model: "keras.Model") -> bytes:
    """Return a Keras model as an ONNX file, by Keras' own export."""
    # Keras exports what was called before.
    model(np.zeros((1, *model.input_shape[1:]), dtype=np.uint8))
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        # Keras looks whether NumPy still has `np.object`.
        warnings.filterwarnings("ignore", message=".*np.object", category=FutureWarning)
        path = Path(folder) / "model.onnx"
        model.export(path, format="onnx", verbose=False, opset_version=_OPSET)
        return path.read_bytes()


def _find_features(proto: "onnx.ModelProto", head: "keras.Model") -> tuple[str, int]:
    """Return the name of what a head reads, and its number of channels.

    The head is known by its weights: the export orders and names nodes anew each time.
    """
    import onnx

    kernel = next(np.asarray(weights) for weights in head.get_weights() if weights.ndim == 2)
    for node in proto.graph.node:
        if node.op_type not in _MATMULS or not _IN_HEAD.search(node.name):
            continue
        if np.array_equal(onnx.numpy_helper.to_array(_find_weights(proto, node.input[1])), kernel):
            return node.input[0], len(kernel)
    raise ValueError(f"the export of {head.name} has none of its weights")


def _find_weights(proto: "onnx.ModelProto", name: str) -> "onnx.TensorProto":
    return next(tensor for tensor in proto.graph.initializer if tensor.name == name)


def cut_to_features(content: bytes) -> bytes:
    """Return an ONNX file that computes `features` alone, several times faster.

    Args:
        content: of a classifier.
    """
    import onnx
    from onnx.utils import Extractor

    proto = onnx.load_model_from_string(content)
    cut = Extractor(proto).extract_model([proto.graph.input[0].name], [FEATURES])
    return cut.SerializeToString()


def convert_to_half(content: bytes) -> bytes:
    """Return an ONNX file of a classifier in half precision, inputs, outputs and heads excepted.

    Weights of a head can be beyond what half precision holds.
    """
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    proto = onnx.load_model_from_string(content)
    half = convert_float_to_float16(
        proto, keep_io_types=True, node_block_list=_list_after_features(proto)
    )
    return half.SerializeToString()


def quantize(content: bytes, batches: Iterable[np.ndarray]) -> bytes:
    """Return an ONNX file whose convolutions compute in 8-bit integers.

    Args:
        content: of a classifier in single precision.
        batches: uint8 images that the range of every layer's values is taken from.

    Weights have a scale each channel, values one each layer. Everything else stays in single
    precision: weights of a head spread too far for one scale. So do the first convolutions, on
    large maps: they have few weights, and their rounding runs through all that follows.
    """
    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    taken = onnx.load_model_from_string(content).graph.input[0].name

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._batches: Iterator[np.ndarray] = iter(batches)

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self._batches, None)
            return None if batch is None else {taken: batch}

    with TemporaryDirectory() as folder:
        given, single, whole = (
            Path(folder) / f"{name}.onnx" for name in ("given", "single", "int8")
        )
        given.write_bytes(content)
        # Batch normalisation becomes part of the convolutions before them.
        quant_pre_process(given, single, skip_symbolic_shape=True)
        quantize_static(
            single,
            whole,
            Reader(),
            nodes_to_exclude=_list_on_large_maps(onnx.load(single)),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            per_channel=True,
            # Seven bits: sums of products of eight overflow on processors without VNNI.
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            reduce_range=True,
            calibrate_method=CalibrationMethod.MinMax,
        )
        return whole.read_bytes()


def _list_on_large_maps(proto: "onnx.ModelProto") -> list[str]:
    """Return the names of convolutions whose maps have an eighth of the image's side or more."""
    import onnx

    graph = onnx.shape_inference.infer_shapes(proto).graph
    *_, side, _ = (size.dim_value for size in graph.input[0].type.tensor_type.shape.dim)
    heights = {
        value.name: value.type.tensor_type.shape.dim[2].dim_value
        for value in graph.value_info
        if len(value.type.tensor_type.shape.dim) == 4
    }
    return [
        node.name
        for node in graph.node
        if node.op_type == "Conv" and _LARGE_MAP * heights.get(node.output[0], 0) >= side
    ]


def _list_after_features(proto: "onnx.ModelProto") -> list[str]:
    """Return the names of the nodes of heads, and of all that follows them."""
    known: set[str] = set()
    names = []
    for node in proto.graph.node:
        in_head = bool(_IN_HEAD.search(node.name))
        if in_head or known & set(node.input):
            names.append(node.name)
            known |= set(node.output)
    return names


def list_export_problems(comparison: pd.DataFrame, limits: ExportLimits) -> list[str]:
    """Return where exported networks differ by more than is allowed, a phrase each.

    Args:
        comparison: a row a network; see pipelines.packaging.nodes.compare_networks.
        limits: what is allowed, and the precision of the network that is packed.
    """
    rows = {row["network"]: row for row in comparison.to_dict("records")}
    single = rows[SINGLE]
    problems = []
    if not single["largest_difference"] <= limits.largest_difference:
        problems.append(
            f"its probabilities differ by up to {single['largest_difference']:.1e} "
            f"(packaging.largest_difference {limits.largest_difference:.1e})"
        )
    problems += [
        f"{single[f'changed_{what}']} {what} differ"
        for what in ("classes", "flags")
        if single[f"changed_{what}"]
    ]
    if limits.precision != SINGLE:
        problems += _list_losses(rows[limits.precision], single, limits)
    if phone := rows.get(PHONE):
        problems += _list_losses(phone, single, limits)
        if phone["megabytes"] > limits.phone_megabytes:
            problems.append(
                f"its files for a phone have {phone['megabytes']:.0f} MB "
                f"(packaging.phone_megabytes {limits.phone_megabytes:g})"
            )
    return problems


def _list_losses(
    row: Mapping[Any, Any], single: Mapping[Any, Any], limits: ExportLimits
) -> list[str]:
    """Return what a network of less precision loses against the one in single precision."""
    problems = []
    lost = single["positive_auc"] - row["positive_auc"]
    turned = row["changed_flags"] / row["images"]
    if lost > limits.max_auc_lost:
        problems.append(
            f"{row['network']} loses {lost:.3f} of AUC "
            f"(packaging.max_auc_lost {limits.max_auc_lost:g})"
        )
    if turned > limits.max_changed_flags:
        problems.append(
            f"{row['network']} turns {100 * turned:.1f} % of the flags "
            f"(packaging.max_changed_flags {limits.max_changed_flags:g})"
        )
    return problems
