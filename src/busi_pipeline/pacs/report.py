"""The structured report of an image: TID 1500, Imaging Measurement Report."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import numpy as np
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import (
    AlgorithmIdentification,
    CodeContentItem,
    CodedConcept,
    ComprehensiveSR,
    ContainerContentItem,
    ContentSequence,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    GraphicTypeValues,
    ImageContentItem,
    ImageRegion,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    QualitativeEvaluation,
    RelationshipTypeValues,
    SourceImageForMeasurement,
    SourceImageForRegion,
    TextContentItem,
    TrackingIdentifier,
)
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from busi_pipeline import __version__
from busi_pipeline.imaging.crops import Window
from busi_pipeline.models.packaged import REASONS, Answer
from busi_pipeline.pacs.results import (
    NO_DIAGNOSIS,
    Algorithm,
    describe_decision,
    finish_object,
    identify,
    to_ascii,
)
from busi_pipeline.pacs.seen import Seen
from busi_pipeline.pacs.settings import PROBABILITY
from busi_pipeline.pacs.source import MANUFACTURER, Source, is_breast
from busi_pipeline.pacs.uids import derive_uid, name_image, shorten

OWN_CODES: Final = "99BUSI"
_LONGEST_MEANING = 64

FLAGGED = CodedConcept("flagged", OWN_CODES, "Flagged for review")
REFER = CodedConcept("refer", OWN_CODES, "Referred to a reader")
REASON = CodedConcept("reason", OWN_CODES, "Reason of the referral")
THRESHOLD = CodedConcept("threshold", OWN_CODES, "Probability from which an image is flagged")
SIDE = CodedConcept("longest_side", OWN_CODES, "Longest side of the box of the likeliest lesion")
REGION = CodedConcept("looked_at", OWN_CODES, "Box of the likeliest lesion")
IMAGE = CodedConcept("whole_image", OWN_CODES, "Image that the model looked at")

_PIXELS = CodedConcept("{pixels}", "UCUM", "pixels")
_QUALITATIVE = CodedConcept("C0034375", "UMLS", "Qualitative Evaluations")
_COMMENT = codes.DCM.Comment
_ULTRASOUND = Code("16310003", "SCT", "Diagnostic ultrasonography")
_ANSWERS = {True: codes.SCT.Yes, False: codes.SCT.No}
_SIDES = {
    "left": CodedConcept("7771000", "SCT", "Left"),
    "right": CodedConcept("24028007", "SCT", "Right"),
    "both": CodedConcept("51440002", "SCT", "Right and left"),
}


def make_report(
    source: Source,
    seen: Seen,
    algorithm: Algorithm,
    arrived: datetime,
    probability: str = PROBABILITY,
) -> bytes:
    """Return the file of the report of an image that the model answered on.

    Args:
        source: what the header of the image says.
        seen: what the model says.
        algorithm: the model.
        arrived: when the image came.
        probability: what the probability is called: code^scheme^meaning.
    """
    tracking = _track(source, algorithm)
    named = AlgorithmIdentification(algorithm.name, algorithm.version, manufacturer=MANUFACTURER)
    evaluations = list(_evaluate(seen.answer))
    frames = [seen.frame] if source.is_multi_frame else None
    # Of a header that does not say so, the report does not either.
    site = FindingSite(codes.SCT.Breast, _SIDES.get(seen.laterality))
    sites = [site] if is_breast(source) else None
    group: MeasurementsAndQualitativeEvaluations | PlanarROIMeasurementsAndQualitativeEvaluations
    if seen.box is None:
        measured = [_measure_probability(seen.answer, probability, source, frames)]
        group = MeasurementsAndQualitativeEvaluations(
            tracking,
            finding_type=IMAGE,
            algorithm_id=named,
            finding_sites=sites,
            measurements=[*measured, _measure_threshold(seen.answer)],
            qualitative_evaluations=evaluations,
        )
    else:
        left, top, right, bottom = seen.box
        corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
        group = PlanarROIMeasurementsAndQualitativeEvaluations(
            tracking,
            ImageRegion(
                GraphicTypeValues.POLYLINE,
                np.array(corners),
                SourceImageForRegion(source.known_class, source.instance, frames),
            ),
            finding_type=REGION,
            algorithm_id=named,
            finding_sites=sites,
            measurements=[
                _measure_probability(seen.answer, probability),
                _measure_threshold(seen.answer),
                _measure_side(seen.box, seen.spacing),
            ],
            qualitative_evaluations=evaluations,
        )
    texts = list(_comment(seen, algorithm))
    return _write(source, group, algorithm, texts, frames, arrived)


def make_refusal(source: Source, reason: str, algorithm: Algorithm, arrived: datetime) -> bytes:
    """Return the file of the report of an image that the model cannot use.

    Args:
        source: what the header of the image says.
        reason: one line.
        algorithm: the model.
        arrived: when the image came.
    """
    group = MeasurementsAndQualitativeEvaluations(
        _track(source, algorithm),
        algorithm_id=AlgorithmIdentification(
            algorithm.name, algorithm.version, manufacturer=MANUFACTURER
        ),
        qualitative_evaluations=[
            QualitativeEvaluation(
                codes.DCM.SummaryOfAnalyses, codes.DCM.NoAlgorithmsSucceededWithoutFindings
            )
        ],
    )
    text = f"This image could not be analysed: {reason}. This report says nothing about the image."
    # The image may get an answer later: this report must not stand in its place.
    named = identify("refusal", source, algorithm.version, reason)
    return _write(source, group, algorithm, [to_ascii(text), NO_DIAGNOSIS], None, arrived, named)


def _track(source: Source, algorithm: Algorithm) -> TrackingIdentifier:
    return TrackingIdentifier(
        derive_uid("tracking", source.instance, algorithm.version),
        f"{MANUFACTURER} {shorten(name_image(source.instance))} {algorithm.version}",
    )


def _measure_probability(
    answer: Answer, probability: str, source: Source | None = None, frames: list[int] | None = None
) -> Measurement:
    images = None
    if source is not None:
        images = [SourceImageForMeasurement(source.known_class, source.instance, frames)]
    value, scheme, meaning = probability.split("^")
    return Measurement(
        CodedConcept(value, scheme, meaning),
        round(100 * answer.positive_score, 4),
        codes.UCUM.Percent,
        referenced_images=images,
    )


def _measure_threshold(answer: Answer) -> Measurement:
    return Measurement(THRESHOLD, round(100 * answer.threshold, 4), codes.UCUM.Percent)


def _measure_side(box: Window, spacing: tuple[float, float] | None) -> Measurement:
    if spacing is None:
        return Measurement(SIDE, round(max(box.width, box.height), 1), _PIXELS)
    height, width = spacing
    side = max(box.height * height, box.width * width)
    return Measurement(SIDE, round(side, 2), codes.UCUM.Millimeter)


def _evaluate(answer: Answer) -> Iterator[QualitativeEvaluation]:
    yield QualitativeEvaluation(FLAGGED, _ANSWERS[bool(answer.flagged)])
    yield QualitativeEvaluation(REFER, _ANSWERS[bool(answer.refer)])
    for code in answer.reasons:
        # A code has 16 characters at most, so it is a number.
        number = f"reason_{list(REASONS).index(code) + 1}"
        yield QualitativeEvaluation(
            REASON, CodedConcept(number, OWN_CODES, code.replace("_", " ")[:_LONGEST_MEANING])
        )


def _comment(seen: Seen, algorithm: Algorithm) -> Iterator[str]:
    """Yield what a person reads, first what may not be missed."""
    answer, positive = seen.answer, " or ".join(algorithm.positive)
    reasons = "; ".join(REASONS[code] for code in answer.reasons)
    decision = describe_decision(answer) + (f": {reasons}" if reasons else "")
    yield " ".join(filter(None, [f"{decision}.", seen.describe_scope()]))
    yield (
        f"{positive}: {100 * answer.positive_score:.2f} %; flagged from "
        f"{100 * answer.threshold:.2f} % on. {algorithm.calibration}"
    )
    shares = (f"{to_ascii(name)} {100 * p:.2f} %" for name, p in answer.probabilities.items())
    yield f"Probabilities: {', '.join(shares)}"
    yield f"Model: {algorithm.title}, {algorithm.name} {algorithm.version}"
    yield NO_DIAGNOSIS


def _write(
    source: Source,
    group: MeasurementsAndQualitativeEvaluations | PlanarROIMeasurementsAndQualitativeEvaluations,
    algorithm: Algorithm,
    texts: Sequence[str],
    frames: list[int] | None,
    arrived: datetime,
    named: Mapping[str, Any] | None = None,
) -> bytes:
    device = DeviceObserverIdentifyingAttributes(
        derive_uid("device", __version__, algorithm.version),
        name=MANUFACTURER,
        manufacturer_name=MANUFACTURER,
        model_name=f"{algorithm.name} {algorithm.version}",
    )
    content = MeasurementReport(
        ObservationContext(ObserverContext(codes.DCM.Device, device)),
        codes.SCT.UltrasonographyOfBreast if is_breast(source) else _ULTRASOUND,
        [group],
    )
    items = content[0].ContentSequence
    items.insert(len(items) - 1, _list_image(source, frames))
    items.append(_list_texts(texts))
    made = ComprehensiveSR(
        [_make_evidence(source)],
        content,
        is_complete=True,
        is_verified=False,
        coding_schemes=[
            CodingSchemeIdentificationItem(
                OWN_CODES, f"Codes of {MANUFACTURER}", responsible_organization=MANUFACTURER
            )
        ],
        **(named or identify("report", source, algorithm.version)),
    )
    return finish_object(made, source, arrived)


def _list_image(source: Source, frames: list[int] | None) -> ContainerContentItem:
    """Return the image library (TID 1600): the one image that was looked at."""
    contains, has = RelationshipTypeValues.CONTAINS, RelationshipTypeValues.HAS_ACQ_CONTEXT
    image = ImageContentItem(
        Code("260753009", "SCT", "Source"),
        source.known_class,
        source.instance,
        referenced_frame_numbers=frames,
        relationship_type=contains,
    )
    modality = CodeContentItem(codes.DCM.Modality, Code("US", "DCM", "Ultrasound"), has)
    group = ContainerContentItem(codes.DCM.ImageLibraryGroup, relationship_type=contains)
    group.ContentSequence = ContentSequence([modality, image])
    library = ContainerContentItem(codes.DCM.ImageLibrary, relationship_type=contains)
    library.ContentSequence = ContentSequence([group])
    return library


def _list_texts(texts: Sequence[str]) -> ContainerContentItem:
    """Return texts as qualitative evaluations of TID 1500, which highdicom does not write."""
    contains = RelationshipTypeValues.CONTAINS
    container = ContainerContentItem(_QUALITATIVE, relationship_type=contains)
    container.ContentSequence = ContentSequence(
        [TextContentItem(_COMMENT, text, contains) for text in texts]
    )
    return container


def _make_evidence(source: Source) -> Dataset:
    """Return an image for highdicom to refer to.

    Patient and study are copied later (results.finish_object): highdicom refuses what the standard
    does not allow, and a patient whose sex is written `FEMALE` must have a report, too.
    """
    stand_in = Dataset()
    stand_in.StudyInstanceUID, stand_in.SeriesInstanceUID = source.study, source.series
    stand_in.SOPInstanceUID, stand_in.SOPClassUID = source.instance, source.known_class
    for keyword in (
        *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber"),
        *("StudyID", "StudyDate", "StudyTime", "ReferringPhysicianName"),
    ):
        setattr(stand_in, keyword, None)
    return stand_in
