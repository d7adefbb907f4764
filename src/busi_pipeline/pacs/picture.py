"""The picture of an answer: a secondary capture with the box, and what speaks for and against."""

from datetime import datetime

from highdicom import CoordinateSystemNames, PhotometricInterpretationValues
from highdicom.sc import SCImage
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from busi_pipeline.imaging.overlays import draw_finding
from busi_pipeline.models.packaged import READER
from busi_pipeline.pacs.legend import add_legend
from busi_pipeline.pacs.results import (
    NO_DIAGNOSIS,
    Algorithm,
    describe_decision,
    finish_object,
    identify,
)
from busi_pipeline.pacs.seen import Seen
from busi_pipeline.pacs.source import Source

NO_LESION = "no_lesion_found"
_LOSSY = ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")


def make_picture(source: Source, seen: Seen, algorithm: Algorithm, arrived: datetime) -> bytes:
    """Return the file of the picture of an image.

    Args:
        source: what the header of the image says.
        seen: what the model says.
        algorithm: the model.
        arrived: when the image came.
    """
    answer = seen.answer
    # Where no lesion was found, a box would show one.
    box = None if NO_LESION in answer.reasons or seen.box is None else answer.box
    # Whole: a cover could hide a lesion, and the archive has the image as it is.
    drawn = draw_finding(seen.pixels, box, answer.box_source == READER, answer.attribution)
    made = SCImage(
        add_legend(drawn, _describe(seen, algorithm, box is not None)),
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
        f"{algorithm.name} {algorithm.version}: box of the likeliest lesion; red speaks for "
        f"{' or '.join(algorithm.positive)}, blue against."
    )
    made.ConversionType = "WSD"
    comments = (f"{describe_decision(answer)}.", seen.describe_scope(), NO_DIAGNOSIS)
    made.ImageComments = " ".join(filter(None, comments))
    made.SourceImageSequence = [_refer(source, seen)]
    header = source.look("BurnedInAnnotation", *_LOSSY)
    # No search for text proves that none is left.
    made.BurnedInAnnotation = "NO" if header.get("BurnedInAnnotation") == "NO" else "YES"
    for keyword in _LOSSY:
        if keyword in header:
            made[keyword] = header[keyword]
    return finish_object(made, source, arrived)


def _describe(seen: Seen, algorithm: Algorithm, has_box: bool) -> str:
    answer = seen.answer
    parts = [
        "AI second look, no diagnosis.",
        f"{describe_decision(answer)};",
        f"{' or '.join(algorithm.positive)} {100 * answer.positive_score:.0f} %.",
        "Box: likeliest lesion." if has_box else "",
        "No lesion was found." if NO_LESION in answer.reasons else "",
        "Red speaks for, blue against." if answer.attribution is not None else "",
        seen.describe_scope(),
    ]
    return " ".join(filter(None, parts))


def _refer(source: Source, seen: Seen) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID = source.known_class
    reference.ReferencedSOPInstanceUID = source.instance
    if source.is_multi_frame:
        reference.ReferencedFrameNumber = seen.frame
    return reference
