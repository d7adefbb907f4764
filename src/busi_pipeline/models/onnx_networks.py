"""Networks that were exported to ONNX, computed by ONNX Runtime. Nothing here needs TensorFlow."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime

from busi_pipeline.errors import BadInputError
from busi_pipeline.imaging.decoding import UInt8Array

FEATURES = "features"
"""Output of an exported classifier beside its answer: what its first network sees in an image."""
ATTRIBUTION = "attribution"
"""A further one, where its heads are linear; see models.attribution.add_attribution."""


_IMAGES_AT_ONCE = 4


class Shares(NamedTuple):
    """Attributes: `images` computed at once, `threads` that compute each."""

    images: int
    threads: int


def share_cores() -> Shares:
    """Return how many images are computed at once where many are asked about.

    Two images on a core each take less time than one after the other on both. Each has memory of
    its own for what the layers give, so there are no more than four.
    """
    has_affinity = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    images = min(_IMAGES_AT_ONCE, cores)
    return Shares(images, cores // images)


class OnnxNetworks:
    """A classifier and, where it looks at lesions, a localizer; see models.reading.Networks.

    Attributes:
        windows: of an image that the classifier takes together.
    """

    def __init__(
        self,
        classifier: Path | bytes,
        localizer: Path | None = None,
        threads: int | None = None,
    ):
        """Load the networks.

        Args:
            classifier: a file, or its content: uint8 images -> `probabilities`, `positive_score`,
                `flagged`, `features`.
            localizer: uint8 (n, size, size) -> maps; None where there is none.
            threads: that compute one image; None for as many as there are cores.

        Raises BadInputError where a file is no ONNX model.
        """
        self._classifier = _load(classifier, threads)
        self._localizer = None if localizer is None else _load(localizer, threads)
        shape = self._classifier.get_inputs()[0].shape
        self.windows = int(shape[1]) if len(shape) == 5 else 1
        self._outputs = [output.name for output in self._classifier.get_outputs()]

    def classify(self, shown: UInt8Array) -> Mapping[str, np.ndarray]:
        """Return the answer, and what an exported network gives beside it.

        `features` float32 (n, channels), the mean over the windows; `attribution` float32
        (n, windows, h, w).
        """
        answer = dict(zip(self._outputs, _run(self._classifier, shown), strict=True))
        if FEATURES in answer:
            features = answer[FEATURES]
            answer[FEATURES] = features.reshape(len(shown), -1, features.shape[-1]).mean(axis=1)
        if ATTRIBUTION in answer:
            maps = answer[ATTRIBUTION]
            answer[ATTRIBUTION] = maps.reshape(len(shown), -1, *maps.shape[1:])
        return answer

    def draw_maps(self, shown: UInt8Array) -> np.ndarray:
        """Return the localizer's maps; see models.reading.Networks."""
        if self._localizer is None:
            raise ValueError("a model without a localizer draws no maps")
        return _run(self._localizer, shown)[0]

    @property
    def localizer_size(self) -> int | None:
        """Height and width of what the localizer sees; None where there is no localizer."""
        return None if self._localizer is None else int(self._localizer.get_inputs()[0].shape[1])


def _load(model: Path | bytes, threads: int | None) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises its own kinds, without a common base
        reason = " ".join(str(error).split())[:200]
        name = model if isinstance(model, Path) else "this"
        raise BadInputError(f"{name} is no ONNX model that can be used: {reason}") from None


def _run(session: onnxruntime.InferenceSession, shown: UInt8Array) -> list[np.ndarray]:
    return session.run(None, {session.get_inputs()[0].name: shown})
