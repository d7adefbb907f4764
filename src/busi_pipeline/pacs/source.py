"""What the header of an image says: who, where, of what. The pixels are imaging.dicom's."""

import io
from datetime import datetime, timedelta, timezone
from typing import NamedTuple

from pydicom import Dataset, dcmread
from pydicom.uid import (
    SecondaryCaptureImageStorage,
    UltrasoundImageStorage,
    UltrasoundMultiFrameImageStorage,
)

from busi_pipeline.imaging.decoding import UnusableImageError

MANUFACTURER = "busi_pipeline"
REPORT_CLASS = "1.2.840.10008.5.1.4.1.1.88.33"
"""Comprehensive SR: every reader of TID 1500 knows it, and a box has two dimensions."""
RESULT_CLASSES = (REPORT_CLASS, str(SecondaryCaptureImageStorage))
# The last two are retired; archives still have them.
_MULTI_FRAME = (str(UltrasoundMultiFrameImageStorage), "1.2.840.10008.5.1.4.1.1.3")
IMAGE_CLASSES = (str(UltrasoundImageStorage), "1.2.840.10008.5.1.4.1.1.6", *_MULTI_FRAME)

_NEEDED = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
_ITEM, _MOST_ITEMS = b"\xfe\xff\x00\xe0", 100_000
# SNOMED CT, and the older codes of the same: breast, right, left, both.
_BREAST_CODES = {
    *("76752008", "73056007", "80248007", "63762007"),
    *("T-04000", "T-04020", "T-04030", "T-04080"),
}
_BREAST_WORDS = ("BREAST", "MAMMA")


class Source(NamedTuple):
    """An image that came.

    Attributes:
        header: all before the pixels, as it was sent; its elements are not decoded.
        study, series, instance, sop_class: UIDs.
        number: InstanceNumber, 1 where there is none.
        is_multi_frame: whether a reference must name the frame.
    """

    header: Dataset
    study: str
    series: str
    instance: str
    sop_class: str
    number: int
    is_multi_frame: bool

    @property
    def known_class(self) -> str:
        """Class that highdicom knows: of a retired one, what came after it."""
        return str(
            UltrasoundMultiFrameImageStorage if self.is_multi_frame else UltrasoundImageStorage
        )

    def look(self, *keywords: str) -> Dataset:
        """Return a copy of some elements: to look at one decodes it."""
        seen = Dataset()
        for keyword in keywords:
            if keyword in self.header:
                seen[keyword] = self.header.get_item(keyword)
        return seen


def read_source(content: bytes) -> Source:
    """Return what the header of a DICOM file says.

    Raises UnusableImageError, without text of the file, where no result could be filed: it is
    damaged, or does not say of which study it is.
    """
    if content.count(_ITEM) > _MOST_ITEMS:
        raise UnusableImageError(f"more than {_MOST_ITEMS} items in one DICOM file")
    header = _read_header(content)
    try:
        # Of a second one: to look at an element decodes it.
        seen = _read_header(content)
        study, series, instance, sop_class = (str(seen.get(name) or "") for name in _NEEDED)
        number = _read_number(seen)
    except Exception as error:
        raise UnusableImageError(f"unreadable DICOM header ({type(error).__name__})") from None
    if not all((study, series, instance, sop_class)):
        raise UnusableImageError(f"the DICOM header needs {', '.join(_NEEDED)}")
    return Source(header, study, series, instance, sop_class, number, sop_class in _MULTI_FRAME)


def _read_header(content: bytes) -> Dataset:
    try:
        return dcmread(io.BytesIO(content), stop_before_pixels=True)
    except Exception as error:
        raise UnusableImageError(f"unreadable DICOM header ({type(error).__name__})") from None


def _read_number(header: Dataset) -> int:
    try:
        return max(1, int(header.InstanceNumber))
    except (AttributeError, TypeError, ValueError):
        return 1


def is_breast(source: Source) -> bool | None:
    """Return whether the header says that an image shows a breast; None where it says nothing."""
    header = source.look("BodyPartExamined", "AnatomicRegionSequence", "SpecificCharacterSet")
    said = str(header.get("BodyPartExamined") or "").upper()
    regions = [item for item in header.get("AnatomicRegionSequence") or [] if item.get("CodeValue")]
    if not said.strip() and not regions:
        return None
    texts = [said, *(str(item.get("CodeMeaning") or "").upper() for item in regions)]
    named = any(word in text for text in texts for word in _BREAST_WORDS)
    return named or any(str(item.CodeValue) in _BREAST_CODES for item in regions)


def is_own_result(source: Source) -> bool:
    """Return whether an object is a result of this node, or of another one."""
    maker = str(source.look("Manufacturer").get("Manufacturer") or "")
    return source.sop_class in RESULT_CLASSES and maker == MANUFACTURER


def place_in_time(source: Source, moment: datetime) -> datetime:
    """Return a moment in the time zone that the times of the header are in.

    Where it does not name one, they are local times.
    """
    header = source.look("TimezoneOffsetFromUTC")
    text = str(header.get("TimezoneOffsetFromUTC") or "").strip()
    if len(text) == 5 and text[0] in "+-" and text[1:].isdecimal():
        offset = timedelta(hours=int(text[1:3]), minutes=int(text[3:]))
        return moment.astimezone(timezone(-offset if text[0] == "-" else offset))
    return moment.astimezone()
