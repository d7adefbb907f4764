"""Ultrasound images as a PACS has them, a scanner that sends them, a reader of what comes back."""

import io
from collections.abc import Iterator, Sequence
from ssl import SSLContext
from typing import Any

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.uid import UltrasoundImageStorage
from pynetdicom import AE
from pynetdicom.sop_class import Verification

from tests.dicom_factories import make_dicom, make_region, write_dicom
from tests.package_factories import draw_scan

NODE = "BUSI_PIPELINE"
STUDY, SERIES = "1.2.826.0.1.3680043.8.498.20", "1.2.826.0.1.3680043.8.498.21"
# Where the picture lies in the frame: right and bottom lie within it.
REGION = (20, 10, 139, 109)


def make_image(
    number: int = 1, frames: int = 1, sop_class: str = UltrasoundImageStorage, **elements: Any
) -> Dataset:
    """Return a breast ultrasound image with a patient; see dicom_factories.make_dicom."""
    scans = [draw_scan(number + 100 * frame, 120, 160) for frame in range(frames)]
    given: dict[str, Any] = {
        "StudyInstanceUID": STUDY,
        "SeriesInstanceUID": SERIES,
        "SOPInstanceUID": f"1.2.826.0.1.3680043.8.498.30.{number}",
        "SOPClassUID": sop_class,
        "Modality": "US",
        "PatientSex": "F",
        "StudyDate": "20250102",
        "StudyTime": "101112",
        "StudyID": "S1",
        "InstanceNumber": str(number),
        "BodyPartExamined": "BREAST",
        "SequenceOfUltrasoundRegions": [make_region(*REGION)],
    }
    given |= elements
    missing = ["PatientAddress", *(name for name, value in given.items() if value is None)]
    given = {name: value for name, value in given.items() if value is not None}
    made = make_dicom([np.ascontiguousarray(scan) for scan in scans], "RGB", **given)
    for name in missing:
        if name in made:
            delattr(made, name)
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
    made.preamble = bytes(128)  # without, dicomweb-client stores no DICOM file
    return made


def write_image(number: int = 1, **elements: Any) -> bytes:
    """Return the content of its file."""
    return write_dicom(make_image(number, **elements))


def read_object(content: bytes) -> Dataset:
    """Return an object that a node made."""
    return dcmread(io.BytesIO(content))


def list_items(item: Dataset) -> Iterator[Dataset]:
    """Yield all content items of a structured report."""
    for own in item.get("ContentSequence", ()):
        yield own
        yield from list_items(own)


def find_items(report: Dataset, code: str) -> list[Dataset]:
    """Return the content items of a concept."""
    return [
        item for item in list_items(report) if item.ConceptNameCodeSequence[0].CodeValue == code
    ]


def list_texts(report: Dataset) -> list[str]:
    """Return what a person reads."""
    return [str(item.TextValue) for item in find_items(report, "121106")]


def send(
    port: int,
    images: Sequence[Dataset],
    calling: str = "SCANNER",
    called: str = NODE,
    tls: SSLContext | None = None,
) -> list[int | None]:
    """Send images as a scanner does, and return their status; None where there was no answer."""
    entity = AE(calling)
    entity.dimse_timeout = entity.acse_timeout = 30
    for image in images:
        if image.SOPClassUID not in {own.abstract_syntax for own in entity.requested_contexts}:
            entity.add_requested_context(image.SOPClassUID, image.file_meta.TransferSyntaxUID)
    association = entity.associate(
        "127.0.0.1", port, ae_title=called, tls_args=None if tls is None else (tls, "localhost")
    )
    assert association.is_established
    try:
        return [association.send_c_store(image).get("Status") for image in images]
    finally:
        association.release()


def ask_to_echo(
    port: int, calling: str = "SCANNER", called: str = NODE, tls: SSLContext | None = None
) -> tuple[int, int, int] | int | None:
    """Return the status of a C-ECHO, or result, source and reason of a rejection, or None."""
    entity = AE(calling)
    entity.acse_timeout = entity.connection_timeout = 10
    entity.add_requested_context(Verification)
    association = entity.associate(
        "127.0.0.1", port, ae_title=called, tls_args=None if tls is None else (tls, "localhost")
    )
    if association.is_established:
        status = int(association.send_c_echo().Status)
        association.release()
        return status
    answer = association.acceptor.primitive
    if association.is_rejected and answer is not None:
        return answer.result, answer.result_source, answer.diagnostic
    return None
