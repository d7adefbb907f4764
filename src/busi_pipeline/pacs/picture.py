"""The picture of an answer: a secondary capture with the box, and what speaks for and against."""

from datetime import datetime

from highdicom import CoordinateSystemNames, PhotometricInterpretationValues
from highdicom.sc import SCImage
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from busi_pipeline.imaging.overlays import draw_finding
from busi_pipeline.imaging.text_cover import cover_text
from busi_pipeline.models.packaged import READER
from busi_pipeline.pacs.results import (
    NO_DIAGNOSIS,
    Algorithm,
    finish_object,
    identify,
)
from busi_pipeline.pacs.seen import Seen
from busi_pipeline.pacs.source import Source

_LOSSY = ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")


def make_picture(source: Source, seen: Seen, algorithm: Algorithm, arrived: datetime) -> bytes:
    """Return the file of the picture of an image, its burned-in text covered.

    Args:
        source: what the header of the image says.
        seen: what the model says.
        algorithm: the model.
        arrived: when the image came.
    """
    answer = seen.answer
    drawn = draw_finding(
        cover_text(seen.pixels), answer.box, answer.box_source == READER, answer.attribution
    )
    made = SCImage(
        drawn,
        PhotometricInterpretationValues.RGB,
        8,
        CoordinateSystemNames.PATIENT,
        source.study,
        patient_orientation=("L", "F"),  # highdicom asks for one; see below
        transfer_syntax_uid=ExplicitVRLittleEndian,
        **identify("picture", source, algorithm.version),
    )
    made.PatientOrientation = []  # of a freely held probe nobody knows it
    if seen.laterality:
        made.ImageLaterality = seen.laterality[0].upper()
    else:
        made.Laterality = ""
    made.DerivationDescription = (
        f"{algorithm.name} {algorithm.version}: box that the model looked at; red speaks for "
        f"{' or '.join(algorithm.positive)}, blue against. Burned-in text is covered."
    )
    made.ImageComments = NO_DIAGNOSIS
    made.SourceImageSequence = [_refer(source, seen)]
    header = source.look("BurnedInAnnotation", *_LOSSY)
    # No search for text proves that none is left.
    made.BurnedInAnnotation = "NO" if header.get("BurnedInAnnotation") == "NO" else "YES"
    for keyword in _LOSSY:
        if keyword in header:
            made[keyword] = header[keyword]
    return finish_object(made, source, arrived)


def _refer(source: Source, seen: Seen) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID = source.known_class
    reference.ReferencedSOPInstanceUID = source.instance
    if source.is_multi_frame:
        reference.ReferencedFrameNumber = seen.frame
    return reference
