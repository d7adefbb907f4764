"""A model in one folder, with all that it takes to use it: bytes of an image in, an answer out.

The folder holds networks (ONNX), what is known of the images that they learned from, and
`package.json`: what was chosen, and the SHA-256 of every other file. Nothing here needs TensorFlow,
Kedro or MLflow.
"""

import csv
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from busi_pipeline.caching.fingerprints import hash_file
from busi_pipeline.caching.places import Place
from busi_pipeline.errors import BadInputError
from busi_pipeline.imaging.crops import Window
from busi_pipeline.imaging.decoding import (
    MAX_PIXELS,
    UInt8Array,
    UnusableImageError,
    decode_image,
    hash_pixels,
)
from busi_pipeline.imaging.dicom import decode_frame, is_dicom, read_header, select_frames
from busi_pipeline.imaging.network_input import WHOLE, InputDescription, find_windows
from busi_pipeline.imaging.overlays import Attribution
from busi_pipeline.imaging.quality import CheckedImage, Quality, check_pixels
from busi_pipeline.models.novelty import Reference, load_reference
from busi_pipeline.models.onnx_networks import ATTRIBUTION, FEATURES, OnnxNetworks
from busi_pipeline.models.reading import Finding, Networks, read_pixels

SCHEMA_VERSION: Final = 2
PACKAGE_FILE: Final = "package.json"
CLASSIFIER_FILE, LOCALIZER_FILE = "classifier.onnx", "localizer.onnx"
REFERENCE_FILE, CARD_FILE = "reference.npz", "model_card.md"
TRAINING_FILE, TESTED_FILE = "training_pixels.txt", "tested.csv"
CASES_FILE = "cases.csv"
_SHOWN_CASES = 5

READER, LOCALIZER = "reader", "localizer"
# Of a DICOM file with several.
SHOWN_FRAME = "middle"

REASONS: Final = {
    "out_of_distribution": "it does not look like the images that the model learned from",
    "turned": "it looks turned, upside down or inverted",
    "no_lesion_found": "no lesion was found where the model would look at one",
    "near_threshold": "its score is close to the threshold: a little more or less turns the flag",
    "poor_quality": "it is much smaller, flatter or more blurred than the images learned from",
    "noise": "it has much more fine grain than the images learned from",
    "colour": "it has more colour than the images learned from, as of Doppler",
    "seen_in_training": "the model learned from this image, or a copy of it, and knows its label",
}
"""Why an image goes to a human whatever the flag says: {code: in words}."""


class Case(NamedTuple):
    """An image learned from that is like the one asked about.

    Attributes:
        image_id: its name in the training set.
        label: its class.
        similarity: -1 to 1.
    """

    image_id: str
    label: str
    similarity: float


class Answer(NamedTuple):
    """What a packaged model says of one image.

    Attributes:
        flagged: whether the image is flagged for review: the decision.
        refer: whether a human has to look for another reason, whatever the flag says.
        reasons: why; codes of REASONS.
        positive_score: calibrated probability of the positive classes together, 0 to 1.
        threshold: score from which an image is flagged.
        expected_sensitivity: share of positive images like those of the training that are flagged.
        probabilities: {class: calibrated probability}.
        box: of the lesion that was looked at, in pixels of the image; None where the whole image
            was.
        box_source: READER or LOCALIZER; None without a box.
        confidence: of the localizer that there is a lesion, 0 to 1; None where it was not asked.
        distance: from the images learned from, 0 and more; see models.novelty.
        similarity: to the most similar image learned from, -1 to 1.
        quality: how much there is to see; see imaging.quality.
        width, height: of the image, in pixels.
        model: name of the model.
        model_version: the first 12 hex digits of the package's SHA-256.
        similar: the most similar images learned from, where the package may show them.
        look: its place among the images learned from, see models.novelty.Reference.describe; not
            in records.
        attribution: which places speak for a positive class, and which against; None where the
            heads of the networks are not linear; not in records.
        schema_version: of this record.
    """

    flagged: bool
    refer: bool
    reasons: tuple[str, ...]
    positive_score: float
    threshold: float
    expected_sensitivity: float
    probabilities: dict[str, float]
    box: Window | None
    box_source: str | None
    confidence: float | None
    distance: float
    similarity: float
    quality: Quality
    width: int
    height: int
    model: str
    model_version: str
    similar: tuple[Case, ...]
    look: tuple[float, ...]
    attribution: Attribution | None = None
    schema_version: int = SCHEMA_VERSION

    def as_record(self) -> dict[str, Any]:
        """Return the answer for JSON: lists in place of tuples."""
        record = self._asdict()
        del record["look"], record["attribution"]
        return record | {
            "reasons": list(self.reasons),
            "quality": self.quality._asdict(),
            "similar": [case._asdict() for case in self.similar],
            "box": None if self.box is None else [round(float(edge), 1) for edge in self.box],
        }


class Limits(NamedTuple):
    """Beyond which an image goes to a human.

    Attributes:
        distance: from the images learned from.
        turned: score of the rule that knows turned images.
        similarity: to an image learned from; above it, one is a copy of the other.
        near_threshold: difference of the logits of score and threshold.
        min_confidence: of the localizer.
        lowest, highest: of quality; an image below or above is rare among those learned from.
    """

    distance: float
    turned: float
    similarity: float
    near_threshold: float
    min_confidence: float
    lowest: Quality
    highest: Quality

    def as_record(self) -> dict[str, Any]:
        """Return the limits for JSON."""
        return self._asdict() | {
            "lowest": self.lowest._asdict(),
            "highest": self.highest._asdict(),
        }


def read_limits(record: Mapping[str, Any]) -> Limits:
    """Return what `Limits.as_record` gave."""
    qualities = {name: Quality(**record[name]) for name in ("lowest", "highest")}
    return Limits(**dict(record) | qualities)


class PackagedModel:
    """A model that answers on images. It computes the same as the delivered model it was made of.

    Attributes:
        description: of the delivered model: classes, threshold, what it was chosen for, where the
            model comes from; and `name`, `schema_version`, `versions`, `limits`.
        version: the first 12 hex digits of the SHA-256 of `package.json`, which names those of all
            files.
        folder: that it was read from.
        limits: beyond which an image goes to a human.
        networks: that compute; see models.onnx_networks.
        card: the model card, Markdown.
    """

    def __init__(
        self,
        networks: Networks,
        description: Mapping[str, Any],
        reference: Reference,
        training_pixels: frozenset[str],
        version: str,
        folder: Path,
        cases: Sequence[tuple[str, str]] = (),
        card: str = "",
    ):
        """Put the parts together; `load_package` reads them from a folder."""
        self.networks = networks
        self.description = dict(description)
        self._reference = reference
        self._training_pixels = training_pixels
        self.version = version
        self.folder = folder
        self._cases = cases
        self.card = card
        self.limits = read_limits(description["limits"])

    @property
    def name(self) -> str:
        """Of the experiment that it was made of."""
        return str(self.description["name"])

    @property
    def training_pixels(self) -> frozenset[str]:
        """`pixel_sha256` of what it learned from."""
        return self._training_pixels

    @property
    def components(self) -> int:
        """Length of an answer's `look`."""
        return len(self._reference.axes)

    @property
    def learned_groups(self) -> frozenset[str]:
        """Groups of the images that it learned from."""
        return frozenset(self._reference.groups.tolist())

    @property
    def needs_lesion(self) -> bool:
        """Whether the model looks at the lesion."""
        return bool(self.description.get("input", {}).get("view", WHOLE) != WHOLE)

    def predict_file(self, path: str | Path, box: Sequence[float | str] | None = None) -> Answer:
        """Return the answer on a PNG, JPEG, BMP, TIFF or DICOM file; see `predict_bytes`."""
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            raise UnusableImageError(f"it cannot be read: {error.strerror or error}") from None
        return self.predict_bytes(content, box)

    def predict_bytes(self, content: bytes, box: Sequence[float | str] | None = None) -> Answer:
        """Return the answer on the content of a PNG, JPEG, BMP, TIFF or DICOM file.

        Args:
            content: of a DICOM file with several frames, the middle one is looked at.
            box: left, top, right and bottom of the lesion, by a reader, in pixels of the image.

        Raises UnusableImageError, one line, where it cannot be used.
        """
        return self.predict_image(check_pixels(decode_any(content)), box)

    def predict_pixels(
        self, pixels: np.ndarray, box: Sequence[float | str] | None = None
    ) -> Answer:
        """Return the answer on uint8 (height, width, 3), RGB, or (height, width), grey.

        Args:
            pixels: of any size.
            box: see `predict_bytes`.

        Raises UnusableImageError, one line, for everything the model was not made for.
        """
        return self.predict_image(check_pixels(pixels), box)

    def predict_image(
        self, image: CheckedImage, box: Sequence[float | str] | None = None
    ) -> Answer:
        """Return the answer on an image that was checked; see `predict_pixels`."""
        height, width = image.pixels.shape[:2]
        drawn = None if box is None else check_box(box, width, height)
        finding, answer = read_pixels(self.networks, self.description, image.pixels, drawn)
        features = answer[FEATURES]
        distance = float(self._reference.measure_distance(features)[0])
        turned = float(self._reference.measure_turned(features)[0])
        look = self._reference.describe(features)[0]
        alike = self._reference.looks @ look
        numbers = (finding.positive_score, distance, turned, *finding.probabilities.values())
        if not all(map(math.isfinite, numbers)):
            raise UnusableImageError("the networks gave no number for it")
        used = finding.box if self.needs_lesion else None
        reasons = self._list_reasons(finding, image, distance, turned, float(alike.max()), used)
        source = READER if drawn is not None else LOCALIZER
        return Answer(
            finding.flagged,
            bool(reasons),
            reasons,
            finding.positive_score,
            finding.threshold,
            float(self.description["expected_sensitivity"]),
            finding.probabilities,
            used,
            None if used is None else source,
            finding.confidence,
            distance,
            float(alike.max()),
            image.quality,
            width,
            height,
            self.name,
            self.version,
            self._list_similar(alike),
            tuple(look.tolist()),
            self._find_attribution(image.pixels, used, answer),
        )

    def _find_attribution(
        self, pixels: UInt8Array, box: Window | None, answer: Mapping[str, np.ndarray]
    ) -> Attribution | None:
        if ATTRIBUTION not in answer:
            return None
        shape = InputDescription(**self.description.get("input", {}))
        return Attribution(answer[ATTRIBUTION][0], find_windows(pixels, box, shape))

    def _list_similar(self, alike: np.ndarray) -> tuple[Case, ...]:
        if not self._cases:
            return ()
        nearest = np.argsort(-alike, kind="stable")[:_SHOWN_CASES]
        return tuple(Case(self._cases[i][0], self._cases[i][1], float(alike[i])) for i in nearest)

    def _list_reasons(
        self,
        finding: Finding,
        image: CheckedImage,
        distance: float,
        turned: float,
        similarity: float,
        box: Window | None,
    ) -> tuple[str, ...]:
        limits, quality = self.limits, image.quality
        least, most = limits.lowest, limits.highest
        found = {
            "out_of_distribution": distance > limits.distance,
            "turned": turned > limits.turned,
            "no_lesion_found": box is not None
            and finding.confidence is not None
            and finding.confidence < limits.min_confidence,
            "near_threshold": measure_margin(finding.positive_score, finding.threshold)
            < limits.near_threshold,
            "poor_quality": quality.shorter_side < least.shorter_side
            or quality.contrast < least.contrast
            or quality.detail < least.detail,
            "noise": quality.detail > most.detail,
            "colour": quality.colour > most.colour,
            "seen_in_training": similarity > limits.similarity
            or hash_pixels(image.pixels) in self._training_pixels,
        }
        return tuple(code for code in REASONS if found[code])


def decode_any(content: bytes, frame: str | int = SHOWN_FRAME) -> UInt8Array:
    """Return the pixels of a PNG, JPEG, BMP, TIFF or DICOM file: uint8 (height, width, 3), RGB.

    Args:
        content: of the file.
        frame: of a DICOM file; see imaging.dicom.select_frames.

    Raises UnusableImageError, one line, where there are none.
    """
    if not is_dicom(content):
        return decode_image(content, MAX_PIXELS).pixels
    header = read_header(content)
    return decode_frame(content, select_frames(frame, header.frames)[0], crop_to_region=True)


def check_box(box: Sequence[float | str], width: int, height: int) -> Window:
    """Return a reader's box; raises UnusableImageError where it lies not in the image."""
    allowed = "a box is left, top, right and bottom in pixels of the image"
    try:
        edges = [float(edge) for edge in box]
    except (TypeError, ValueError):
        raise UnusableImageError(f"{allowed}; got {box!r}") from None
    if len(edges) != 4 or not all(math.isfinite(edge) for edge in edges):
        raise UnusableImageError(f"{allowed}; got {list(box)}")
    window = Window(*edges)
    inside = 0 <= window.left < window.right <= width and 0 <= window.top < window.bottom <= height
    if not inside:
        raise UnusableImageError(
            f"{allowed}, {width} x {height}; got {', '.join(f'{edge:g}' for edge in edges)}"
        )
    return window


def measure_margin(score: float, threshold: float) -> float:
    """Return the difference of the logits of a score and the threshold, at least 0."""
    return abs(_logit(score) - _logit(threshold))


def _logit(share: float) -> float:
    share = min(max(share, 1e-7), 1 - 1e-7)
    return math.log(share / (1 - share))


def load_package(folder: str | Path, threads: int | None = None) -> PackagedModel:
    """Return the packaged model in a folder.

    Args:
        folder: as the `package` pipelines write it.
        threads: that compute one image; None for as many as there are cores.

    Raises BadInputError, one line, where there is none, where a file is damaged, missing or of
    another package, and where it has another schema.
    """
    folder = Path(folder)
    content, described = _read_package_file(folder / PACKAGE_FILE)
    for name, expected in described["files"].items():
        if Path(name).name != name:
            raise BadInputError(f"{folder / PACKAGE_FILE} names a file outside its folder: {name}")
        if not (folder / name).is_file():
            raise BadInputError(f"{folder / name} is missing: copy the whole folder.")
        if hash_file(folder / name) != expected:
            raise BadInputError(
                f"{folder / name} is not the file that {PACKAGE_FILE} beside it names: it was "
                "changed, or comes from another package. Copy the whole folder again."
            )
    localizer = folder / LOCALIZER_FILE if LOCALIZER_FILE in described["files"] else None
    return PackagedModel(
        OnnxNetworks(folder / CLASSIFIER_FILE, localizer, threads),
        described,
        load_reference(folder / REFERENCE_FILE),
        frozenset((folder / TRAINING_FILE).read_text().split()),
        _name_version(content),
        folder,
        _read_cases(folder / CASES_FILE) if CASES_FILE in described["files"] else (),
        (folder / CARD_FILE).read_text("utf-8") if CARD_FILE in described["files"] else "",
    )


def _read_cases(path: Path) -> list[tuple[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return [(row["image_id"], row["label"]) for row in csv.DictReader(file)]


def hash_package(folder: Place) -> str:
    """Return the version of the package in a folder: it changes with every file."""
    return _name_version((folder / PACKAGE_FILE).read_bytes())


def _name_version(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


def _read_package_file(path: Path) -> tuple[bytes, dict[str, Any]]:
    if not path.is_file():
        raise BadInputError(
            f"no packaged model in {path.parent}: `kedro run --pipeline=package_<experiment>` "
            "writes one, into data/06_models/<experiment>/package."
        )
    content = path.read_bytes()
    try:
        described = dict(json.loads(content))
        version = described["schema_version"]
        needed = {"name", "limits", "classes", "threshold", "image_size", "expected_sensitivity"}
        missing = sorted(needed - described.keys())
        named = {CLASSIFIER_FILE, REFERENCE_FILE, TRAINING_FILE, TESTED_FILE} <= set(
            described["files"]
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        raise BadInputError(f"{path} is damaged: package the model again.") from None
    if version != SCHEMA_VERSION:
        raise BadInputError(
            f"{path} has schema {version}, and this version of busi_pipeline reads "
            f"{SCHEMA_VERSION}: package the model again."
        )
    if missing or not named:
        raise BadInputError(f"{path} is damaged: package the model again.")
    return content, described
