"""What the header of an image says: who, where, of what. The pixels are imaging.dicom's."""

import hashlib
import io
import re
from datetime import datetime, timedelta, timezone
from typing import NamedTuple

from pydicom import Dataset, dcmread
from pydicom.filereader import read_dataset
from pydicom.uid import (
    SecondaryCaptureImageStorage,
    UltrasoundImageStorage,
    UltrasoundMultiFrameImageStorage,
)

from busi_pipeline.imaging.decoding import UnusableImageError
from busi_pipeline.imaging.dicom import ITEM

MANUFACTURER = "busi_pipeline"
REPORT_CLASS = "1.2.840.10008.5.1.4.1.1.88.33"
"""Comprehensive SR: every reader of TID 1500 knows it, and a box has two dimensions."""
RESULT_CLASSES = (REPORT_CLASS, str(SecondaryCaptureImageStorage))
# The last two are retired; archives still have them.
_MULTI_FRAME = (str(UltrasoundMultiFrameImageStorage), "1.2.840.10008.5.1.4.1.1.3")
IMAGE_CLASSES = (str(UltrasoundImageStorage), "1.2.840.10008.5.1.4.1.1.6", *_MULTI_FRAME)

_NEEDED = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
_MOST_ITEMS = 100_000  # in the whole file
_START_LENGTH, _META_GROUP = 132, 0x0002
# SNOMED CT, and the older codes of the same: breast, right, left, both.
_BREAST_CODES = {
    *("76752008", "73056007", "80248007", "63762007"),
    *("T-04000", "T-04020", "T-04030", "T-04080"),
}
_BREAST_WORDS = ("BREAST", "MAMM", "MAMA", "MAMO", "SEIN", "SENO", "BRUST", "BORST")
# Beginnings of what is no breast, in PS3.16 (CID 4 and 4031) and in the languages of the words
# above. Whatever is on neither list, as CHEST, AXILLA and SOFT TISSUE, may show one.
_OTHER_WORDS = (
    *("ABDOM", "ADNEX", "ADRENAL", "ANKLE", "ANUS", "AORTA", "APPEND", "ARTER", "BILE", "BILIARY"),
    *("BLADDER", "BOWEL", "BRAIN", "CARDI", "CAROTI", "CEREBR", "CERVIX", "COLON", "CORAZON"),
    *("DUODEN", "ECHOCARD", "ELBOW", "ENDOMETR", "ESOPHAG", "EYE", "FEMUR", "FETAL", "FETUS"),
    *("FINGER", "FOETUS", "FOOT", "GALLBLADDER", "GASTR", "GROIN", "HAND", "HEART", "HEPAT"),
    *("HERZ", "HIP", "HODEN", "INGUINAL", "INTESTIN", "KIDNEY", "KNEE", "KNIE", "LEBER", "LEG"),
    *("LIVER", "MUSCULOSKEL", "NECK", "NIERE", "OBSTETR", "ORBIT", "OVAR", "PANCREA", "PAROTI"),
    *("PELV", "PENIS", "PLACENTA", "PROSTAT", "RECTUM", "RENAL", "SALIVA", "SCHILDDR"),
    *(
        "SCROT",
        "SHOULDER",
        "SPLEEN",
        "STOMACH",
        "TENDON",
        "TESTE",
        "TESTI",
        "THIGH",
        "THYR",
        "TIROID",
    ),
    *("TOE", "URET", "URINARY", "UTER", "VAGINA", "VEIN", "VENA", "WRIST"),
)
_OFFSET = re.compile(r"[+-](?:0\d|1[0-4])[0-5]\d")
_IS_OTHER = re.compile(rf"\b[LR]?(?:{'|'.join(_OTHER_WORDS)})")
# Of the same in SNOMED CT, which need no meaning beside them.
_OTHER_CODES = {
    *("69748006", "10200004", "64033007", "818981001", "113345001", "80891009", "45048000"),
    *("72696002", "16982005", "12921003", "35039007", "15497006", "41216001", "40689003"),
    *("69105007", "78961009", "15776009", "28231008", "89837001", "816092008", "20233005"),
}


class Source(NamedTuple):
    """An image that came.

    Attributes:
        header: all before the pixels, as it was sent; its elements are not decoded.
        study, series, instance, sop_class: UIDs.
        number: InstanceNumber, 1 where there is none.
        is_multi_frame: whether a reference must name the frame: by its class, or its frames.
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
    if content.count(ITEM) > _MOST_ITEMS:
        raise UnusableImageError(f"more than {_MOST_ITEMS} items in one DICOM file")
    header = _read_header(content)
    try:
        # Of a second one: to look at an element decodes it.
        seen = _read_header(content)
        study, series, instance, sop_class = (str(seen.get(name) or "") for name in _NEEDED)
        number, frames = _read_number(seen, "InstanceNumber"), _read_number(seen, "NumberOfFrames")
    except Exception as error:
        raise UnusableImageError(f"unreadable DICOM header ({type(error).__name__})") from None
    if not all((study, series, instance, sop_class)):
        raise UnusableImageError(f"the DICOM header needs {', '.join(_NEEDED)}")
    is_multi_frame = sop_class in _MULTI_FRAME or frames > 1
    return Source(header, study, series, instance, sop_class, number, is_multi_frame)


def hash_dataset(content: bytes) -> str:
    """Return SHA-256 of a DICOM file without what its writer says of the file (group 0002).

    So an image has the same whether C-STORE or WADO-RS brought it.
    """
    file = io.BytesIO(content)
    file.seek(_START_LENGTH)
    read_dataset(file, False, True, stop_when=lambda tag, *_: tag >> 16 != _META_GROUP)
    return hashlib.sha256(memoryview(content)[file.tell() :]).hexdigest()


def _read_header(content: bytes) -> Dataset:
    try:
        return dcmread(io.BytesIO(content), stop_before_pixels=True)
    except Exception as error:
        raise UnusableImageError(f"unreadable DICOM header ({type(error).__name__})") from None


def _read_number(header: Dataset, keyword: str) -> int:
    try:
        return max(1, int(header[keyword].value))
    except (KeyError, TypeError, ValueError):
        return 1


def is_breast(source: Source) -> bool | None:
    """Return whether the header says that an image shows a breast.

    False only where it names another organ or region, and nothing else in it names a breast; None
    where it says neither: a missing report would be seen by nobody.
    """
    header = source.look(
        *("BodyPartExamined", "AnatomicRegionSequence", "SpecificCharacterSet"),
        *("StudyDescription", "ProtocolName"),
    )
    regions = [item for item in header.get("AnatomicRegionSequence") or [] if item.get("CodeValue")]
    codes = {str(item.CodeValue) for item in regions}
    parts = [_read_capitals(header, "BodyPartExamined")]
    parts += [_read_capitals(item, "CodeMeaning") for item in regions]
    texts = [
        *parts,
        *(_read_capitals(header, name) for name in ("StudyDescription", "ProtocolName")),
    ]
    if codes & _BREAST_CODES or any(word in text for text in texts for word in _BREAST_WORDS):
        return True
    return False if codes & _OTHER_CODES or any(map(_IS_OTHER.search, parts)) else None


def _read_capitals(item: Dataset, keyword: str) -> str:
    return str(item.get(keyword) or "").upper().replace("_", " ")


def is_own_result(source: Source) -> bool:
    """Return whether an object is a result of this node, or of another one."""
    maker = str(source.look("Manufacturer").get("Manufacturer") or "")
    return source.sop_class in RESULT_CLASSES and maker == MANUFACTURER


def place_in_time(source: Source, moment: datetime) -> datetime:
    """Return a moment in the time zone that the times of the header are in.

    Where it does not name one, or none that there is, they are local times.
    """
    header = source.look("TimezoneOffsetFromUTC")
    text = str(header.get("TimezoneOffsetFromUTC") or "").strip()
    if _OFFSET.fullmatch(text):
        offset = timedelta(hours=int(text[1:3]), minutes=int(text[3:]))
        return moment.astimezone(timezone(-offset if text[0] == "-" else offset))
    return moment.astimezone()
