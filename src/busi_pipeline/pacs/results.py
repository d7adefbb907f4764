"""What both objects that a node makes have in common: whose they are, when, of which model."""

import csv
import io
from datetime import datetime
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import highdicom
from pydicom import DataElement, Dataset, dcmread
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.filewriter import correct_ambiguous_vr

from busi_pipeline import __version__
from busi_pipeline.models.packaged import TESTED_FILE, Answer, PackagedModel
from busi_pipeline.pacs.source import MANUFACTURER, Source, place_in_time
from busi_pipeline.pacs.uids import derive_uid

NO_DIAGNOSIS = "No diagnosis. For a second look by a reader."
_SERIES_NUMBERS = {"report": 9801, "picture": 9802, "refusal": 9803}
_SERIES_TEXTS = {
    "report": "AI second look: report",
    "picture": "AI second look: box and attribution",
    "refusal": "AI second look: no answer",
}
_MOMENTS = (("InstanceCreation", ""), ("Content", ""), ("", "OfSecondaryCapture"))
# Beside patient and study, what the texts and times of the header mean.
_MEANING = ("SpecificCharacterSet", "TimezoneOffsetFromUTC")


class Algorithm(NamedTuple):
    """What results say of a model.

    Attributes:
        name, title, version: of the model.
        positive: its positive classes.
        calibration: on which images its probabilities are right, a sentence.
    """

    name: str
    title: str
    version: str
    positive: tuple[str, ...]
    calibration: str


def describe_algorithm(model: PackagedModel) -> Algorithm:
    """Return what the results say of a model."""
    described = model.description
    positive = tuple(described["positive_classes"])
    return Algorithm(
        to_ascii(model.name),
        to_ascii(str(described["title"])),
        model.version,
        tuple(map(to_ascii, positive)),
        _describe_calibration(model.folder / TESTED_FILE, model.version, positive),
    )


@lru_cache(maxsize=8)
def _describe_calibration(path: Path, version: str, positive: tuple[str, ...]) -> str:
    """Return on which images probabilities are right.

    Args:
        path: of what the package says it was tested on.
        version: of the package, whose files its loading has checked.
        positive: classes.
    """
    meant = "Calibrated to images like those that the model was tested on"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [(row["repeat"], row["label"]) for row in csv.DictReader(file)]
    except (OSError, KeyError, ValueError):  # it was moved since
        return f"{meant}."
    labels = [label for repeat, label in rows if repeat == rows[0][0]]
    if not labels:
        return f"{meant}."
    share = sum(label in positive for label in labels) / len(labels)
    return f"{meant}: {100 * share:.0f} % of {len(labels)} were {to_ascii(' or '.join(positive))}."


def describe_decision(answer: Answer) -> str:
    """Return what is decided, a referral first of all, in a few words."""
    if answer.flagged:
        return "FLAGGED for review" + (", and referred to a reader" if answer.refer else "")
    return "Not flagged, but referred to a reader" if answer.refer else "Not flagged for review"


def to_ascii(text: str) -> str:
    """Return a text that every character set of DICOM has."""
    return text.encode("ascii", "replace").decode("ascii").replace("\\", "/")


def identify(kind: str, source: Source, version: str, *more: str) -> dict[str, Any]:
    """Return what highdicom asks of an object: UIDs, series, equipment.

    Args:
        kind: `report`, `picture` or `refusal`.
        source: the image.
        version: of the model.
        more: what else its UID depends on.
    """
    return {
        "series_instance_uid": derive_uid("series", kind, source.study, version),
        "series_number": _SERIES_NUMBERS[kind],
        "series_description": _SERIES_TEXTS[kind],
        "sop_instance_uid": derive_uid(kind, source.instance, version, *more),
        "instance_number": source.number,
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": "second look",
        "software_versions": (__version__, version),
    }


def finish_object(made: highdicom.base.SOPClass, source: Source, arrived: datetime) -> bytes:
    """Return the file of an object, with patient and study of the image.

    Their elements are copied as they were sent, byte for byte: a name that its character set does
    not explain stays what it is.

    Args:
        made: by highdicom; changed.
        source: the image.
        arrived: when the image came. It is the only time, so that an object that is made again is
            the same.
    """
    if source.sop_class != source.known_class:
        made.walk(partial(_name_class, source))
    made.copy_patient_and_study_information(cast(Dataset, _Untouched(source)))
    for keyword in _MEANING:
        if keyword in made:
            delattr(made, keyword)
        if keyword in source.header:
            made[keyword] = _Untouched(source)[keyword]
    moment = place_in_time(source, arrived)
    for before, after in _MOMENTS:
        if f"{before}Date{after}" in made:
            setattr(made, f"{before}Date{after}", moment.strftime("%Y%m%d"))
            setattr(made, f"{before}Time{after}", moment.strftime("%H%M%S"))
    for equipment in made.get("ContributingEquipmentSequence", ()):
        equipment.ContributionDateTime = moment.strftime("%Y%m%d%H%M%S")
    # Else pydicom would decode what was not, and code it again.
    correct_ambiguous_vr(made, True)
    made.set_original_encoding(False, True, made._character_set)
    buffer = io.BytesIO()
    made.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _name_class(source: Source, item: Dataset, element: DataElement) -> None:
    """Let a reference name the class that the image has."""
    is_of_image = item.get("ReferencedSOPInstanceUID") == source.instance
    if element.keyword == "ReferencedSOPClassUID" and is_of_image:
        element.value = source.sop_class


class _Untouched:
    """A header for highdicom to copy from, which gives elements as they were sent."""

    def __init__(self, source: Source):
        self._header = source.header
        self.SOPInstanceUID = source.instance
        self.SOPClassUID = source.known_class

    def __getitem__(self, key: Any) -> DataElement | RawDataElement:
        if key not in self._header:
            raise KeyError(key)
        element = self._header.get_item(key)
        if not isinstance(element, RawDataElement):
            return element
        own = element.VR if element.VR not in (None, "UN") else dictionary_VR(element.tag)
        # A sequence may have been sent without VRs.
        return self._header[key] if own == "SQ" else element._replace(VR=own)


def read_file(content: bytes) -> Dataset:
    """Return an object that was made, to send it."""
    return dcmread(io.BytesIO(content))
