"""From the pixels of an image to a finding: the same whatever computes the networks.

Nothing here needs TensorFlow.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from busi_pipeline.imaging.crops import Window
from busi_pipeline.imaging.decoding import UInt8Array
from busi_pipeline.imaging.network_input import InputDescription, show_windows
from busi_pipeline.models.localizer import locate_lesion
from busi_pipeline.stats.classes import Classes
from busi_pipeline.stats.operating_point import allow_single_precision


class Finding(NamedTuple):
    """The answer of a model on one image.

    Attributes:
        flagged: whether the image is flagged for review: `positive_score` is at the threshold or
            above. This is the decision; a likeliest class of another name does not lift it.
        positive_score: calibrated probability of the positive classes together, 0 to 1.
        threshold: chosen on validation images for the sensitivity in the description.
        probabilities: {class: calibrated probability}.
        box: of the lesion that the model looked at, in pixels of the image; None where it looked at
            the whole.
        confidence: of the localizer that there is a lesion, 0 to 1; None where it was not asked.
    """

    flagged: bool
    positive_score: float
    threshold: float
    probabilities: dict[str, float]
    box: Window | None = None
    confidence: float | None = None


class Networks(Protocol):
    """What computes: Keras, or another runtime with the same networks."""

    def classify(self, shown: UInt8Array) -> Mapping[str, np.ndarray]:
        """Return `probabilities` float32 (n, classes), `positive_score` (n,), `flagged` (n,).

        Args:
            shown: uint8 (n, size, size, 3), of several windows (n, windows, size, size, 3).
        """
        ...

    def draw_maps(self, shown: UInt8Array) -> np.ndarray:
        """Return the localizer's maps float32 (n, h, w, 2) of uint8 (n, size, size), grey."""
        ...

    @property
    def localizer_size(self) -> int | None:
        """Height and width of what the localizer sees; None where there is no localizer."""
        ...


class Reading(NamedTuple):
    """A finding, and the answer of the networks that it comes from."""

    finding: Finding
    answer: Mapping[str, np.ndarray]


def read_pixels(
    networks: Networks,
    description: Mapping[str, Any],
    pixels: UInt8Array,
    box: Window | None = None,
) -> Reading:
    """Return the finding on uint8 (height, width, 3) RGB of any size.

    Args:
        networks: what computes.
        description: of a delivered model.
        pixels: the image.
        box: of the lesion, by a reader, in pixels of the image; takes the place of the localizer's.
            Who draws it says that there is a lesion: the probabilities of classes without one are
            0, and the threshold is the one that was chosen for lesions.
    """
    is_drawn, confidence = box is not None, None
    if networks.localizer_size is not None and box is None:
        box, confidence = locate_lesion(networks.draw_maps, networks.localizer_size, pixels)
    shape = InputDescription(**description.get("input", {}))
    shown = show_windows(pixels, box, shape, description["image_size"])
    answer = networks.classify(shown[None])
    return Reading(_conclude(answer, description, box, confidence, is_drawn), answer)


def _conclude(
    answer: Mapping[str, np.ndarray],
    description: Mapping[str, Any],
    box: Window | None,
    confidence: float | None,
    is_drawn: bool,
) -> Finding:
    """Return the finding of the networks' answer on one image; see `read_pixels`."""
    probabilities = np.asarray(answer["probabilities"])
    flagged = bool(np.asarray(answer["flagged"])[0])
    score = float(np.asarray(answer["positive_score"])[0])
    threshold = description["threshold"]
    if is_drawn and "threshold_given_lesion" in description:
        classes = read_classes(description)
        probabilities = classes.given_lesion(probabilities)
        score = float(classes.positive_score(probabilities)[0])
        threshold = description["threshold_given_lesion"]
        flagged = score >= allow_single_precision(threshold)
    return Finding(
        flagged,
        score,
        threshold,
        dict(zip(description["classes"], probabilities[0].tolist(), strict=True)),
        box,
        confidence,
    )


def read_classes(description: Mapping[str, Any]) -> Classes:
    """Return the classes of a delivered model, of its description."""
    return Classes(
        description["classes"],
        description["positive_classes"],
        description.get("lesion_free_classes", ()),
    )
