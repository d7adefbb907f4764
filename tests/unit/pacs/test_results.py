"""Reports and pictures: the right patient, the right place, the same bytes each time."""

import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pydicom import Dataset
from pydicom.uid import ImplicitVRLittleEndian, JPEGBaseline8Bit, UltrasoundMultiFrameImageStorage

from busi_pipeline.imaging.crops import Window
from busi_pipeline.imaging.overlays import draw_finding
from busi_pipeline.imaging.text_cover import find_text_boxes
from busi_pipeline.models.packaged import REASONS, PackagedModel, load_package
from busi_pipeline.pacs.picture import make_picture
from busi_pipeline.pacs.report import make_refusal, make_report
from busi_pipeline.pacs.results import describe_algorithm
from busi_pipeline.pacs.seen import Seen, look_at
from busi_pipeline.pacs.source import Source, is_breast, read_source
from tests.dicom_factories import compress, make_region, set_pixels, write_dicom
from tests.package_factories import make_parts, write_tiny_package
from tests.pacs_factories import (
    REGION,
    STUDY,
    find_items,
    list_texts,
    make_image,
    read_object,
    write_image,
)

MOMENT = datetime(2025, 1, 2, 12, 30, tzinfo=UTC)
NAMES = {
    "Жукова^Анна": "ISO_IR 144",
    "Müller^Jörg": "ISO_IR 100",
    "山田^太郎": "ISO_IR 192",
    "Yamada^Tarou=山田^太郎=やまだ^たろう": ["", "ISO 2022 IR 87"],
    "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎": ["ISO 2022 IR 13", "ISO 2022 IR 87"],
    "Hong^Gildong=洪^吉洞=홍^길동": ["", "ISO 2022 IR 149"],
    "Wang^XiaoDong=王^小东": "GB18030",
}


def make_both(model: PackagedModel, content: bytes) -> list[bytes]:
    source, seen = read_source(content), look_at(model, content)
    algorithm = describe_algorithm(model)
    return [make(source, seen, algorithm, MOMENT) for make in (make_report, make_picture)]


def make_all(model: PackagedModel, content: bytes) -> list[bytes]:
    refusal = make_refusal(read_source(content), "no", describe_algorithm(model), MOMENT)
    return [*make_both(model, content), refusal]


def list_errors(content: bytes, folder: Path) -> list[str]:
    (folder / "made.dcm").write_bytes(content)
    finished = subprocess.run(
        ["dciodvfy", "-new", str(folder / "made.dcm")], capture_output=True, text=True, check=False
    )
    lines = (finished.stdout + finished.stderr).splitlines()
    assert lines
    return [line for line in lines if line.startswith("Error")]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_copied_byte_for_byte(name: str, model: PackagedModel) -> None:
    image = make_image(PatientName=name, SpecificCharacterSet=NAMES[name])
    image.ReferringPhysicianIdentificationSequence = [Dataset()]
    # Some of its parts in a character set of several, as an institution has no name of a person.
    text = name.rsplit("=", maxsplit=1)[-1].replace("^", " ")
    image.ReferringPhysicianIdentificationSequence[0].InstitutionName = text
    content = write_dicom(image)
    sent = read_object(content)
    raw = sent.get_item("PatientName").value
    for made in map(read_object, make_all(model, content)):
        assert made.get_item("PatientName").value == raw
        assert made.PatientName == name
        (physician,) = made.ReferringPhysicianIdentificationSequence
        assert physician.InstitutionName == text
        assert made.SpecificCharacterSet == sent.SpecificCharacterSet


def test_what_a_character_set_does_not_explain_stays(model: PackagedModel) -> None:
    content = write_image(PatientName="Muller^J", SpecificCharacterSet="ISO_IR 192")
    damaged = content.replace(b"Muller^J", b"M\xfcller^J")
    for made in map(read_object, make_all(model, damaged)):
        assert made.get_item("PatientName").value.rstrip() == b"M\xfcller^J"


PATIENT = {
    "PatientSex": "WEIBLICH",
    "PatientBirthDate": "2.7.1969",
    "StudyDate": "02.01.2025",
    "PatientID": "ID/\\1",
    "IssuerOfPatientID": "HOUSE",
    "PatientAge": "55",
    "StudyDescription": "Mamma-Sono",
}


@pytest.mark.parametrize("syntax", ["explicit", "implicit"])
def test_patient_and_study_are_copied_as_they_are(syntax: str, model: PackagedModel) -> None:
    image = make_image(**PATIENT)
    image.ProcedureCodeSequence = [Dataset()]
    image.ProcedureCodeSequence[0].CodeMeaning = "sono"
    if syntax == "implicit":
        image.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    for content in make_all(model, write_dicom(image)):
        # pydicom would read one without a VR as well.
        assert b"\x08\x00\x04\x01LO\x04\x00sono" in content
        made = read_object(content)
        for keyword in (*PATIENT, "PatientName", "ReferringPhysicianName", "AccessionNumber"):
            assert made[keyword].value == image[keyword].value, keyword
        assert made.ProcedureCodeSequence[0].CodeMeaning == "sono"
        assert (made.StudyInstanceUID, made.StudyID) == (STUDY, "S1")


def test_what_a_header_does_not_have_is_left_empty(model: PackagedModel) -> None:
    missing = ("PatientSex", "PatientBirthDate", "AccessionNumber", "StudyID", "StudyDate")
    content = write_image(**dict.fromkeys(missing))
    for made in map(read_object, make_all(model, content)):
        assert all(made[keyword].value in ("", None) for keyword in missing)


def test_the_same_image_gives_the_same_bytes(model: PackagedModel) -> None:
    content = write_image()
    assert make_all(model, content) == make_all(model, content)


def test_uids_follow_image_and_model(model: PackagedModel, tmp_path: Path) -> None:
    other = write_tiny_package(tmp_path, locates=True, card="# Another\n")
    made = [
        read_object(content)
        for own, number in ((model, 1), (model, 2), (load_package(other), 1))
        for content in make_both(own, write_image(number))
    ]
    assert len({own.SOPInstanceUID for own in made}) == 6
    assert made[0].SeriesInstanceUID == made[2].SeriesInstanceUID
    assert len({own.SeriesInstanceUID for own in made}) == 4
    assert all(len(own.SOPInstanceUID) <= 64 for own in made)


def test_times_are_in_the_zone_of_the_header(model: PackagedModel) -> None:
    content = write_image(TimezoneOffsetFromUTC="-0330")
    for made in map(read_object, make_all(model, content)):
        assert (made.ContentDate, made.ContentTime) == ("20250102", "090000")
        assert made.TimezoneOffsetFromUTC == "-0330"


@pytest.mark.parametrize("offset", ["+2400", "-1530", "+0175", "0100", "+01"])
def test_a_zone_that_does_not_exist_is_none(offset: str, model: PackagedModel) -> None:
    for made in map(read_object, make_all(model, write_image(TimezoneOffsetFromUTC=offset))):
        assert made.ContentDate == MOMENT.astimezone().strftime("%Y%m%d")


def read_box(report: Dataset) -> list[float]:
    (region,) = find_items(report, "111030")
    points = np.array(region.GraphicData).reshape(-1, 2)
    assert len(points) == 5
    assert (points[0] == points[-1]).all()
    return [*points.min(axis=0), *points.max(axis=0)]


def test_the_box_is_in_pixels_of_the_whole_frame(model: PackagedModel) -> None:
    content = write_image()
    seen = look_at(model, content)
    box = seen.answer.box
    assert box is not None
    report = read_object(make_both(model, content)[0])
    left, top = REGION[:2]
    expected = [box.left + left, box.top + top, box.right + left, box.bottom + top]
    # The localizer's window may go beyond the picture.
    limits = [left, top, REGION[2] + 1, REGION[3] + 1]
    inside = [max(a, b) for a, b in zip(expected[:2], limits[:2], strict=True)]
    inside += [min(a, b) for a, b in zip(expected[2:], limits[2:], strict=True)]
    assert read_box(report) == pytest.approx(inside)


def make_seen(model: PackagedModel, content: bytes, **changes: Any) -> tuple[Source, Seen]:
    seen = look_at(model, content)
    answer = seen.answer._replace(**changes)
    return read_source(content), seen._replace(answer=answer)


@pytest.mark.parametrize(
    ("delta_cm", "unit", "value"), [(0.02, "mm", 10.0), (None, "{pixels}", 50)]
)
def test_the_longest_side_is_in_mm_where_they_are_known(
    delta_cm: float | None, unit: str, value: float, model: PackagedModel
) -> None:
    region = make_region(*REGION, delta_cm=delta_cm or 1.0)
    if delta_cm is None:
        region.PhysicalUnitsXDirection = 0
    content = write_image(SequenceOfUltrasoundRegions=[region])
    source, seen = make_seen(model, content, box=Window(10, 10, 40, 60))
    report = read_object(make_report(source, seen, describe_algorithm(model), MOMENT))
    (measured,) = find_items(report, "longest_side")
    numbers = measured.MeasuredValueSequence[0]
    assert numbers.MeasurementUnitsCodeSequence[0].CodeValue == unit
    assert float(numbers.NumericValue) == pytest.approx(value)


def test_the_report_says_what_the_model_says(model: PackagedModel) -> None:
    content = write_image()
    reasons = ("near_threshold", "noise")
    source, seen = make_seen(
        model, content, positive_score=0.125, flagged=False, refer=True, reasons=reasons
    )
    report = read_object(make_report(source, seen, describe_algorithm(model), MOMENT))
    (probability,) = find_items(report, "positive")
    number = probability.MeasuredValueSequence[0]
    assert float(number.NumericValue) == 12.5
    assert number.MeasurementUnitsCodeSequence[0].CodeValue == "%"
    said = {
        code: find_items(report, code)[0].ConceptCodeSequence[0].CodeMeaning
        for code in ("flagged", "refer")
    }
    assert said == {"flagged": "No", "refer": "Yes"}
    found = [item.ConceptCodeSequence[0].CodeMeaning for item in find_items(report, "reason")]
    assert found == ["near threshold", "noise"]
    texts = list_texts(report)
    assert texts[0].startswith("Not flagged, but referred to a reader: ")
    assert all(REASONS[code] in texts[0] for code in reasons)
    assert "33 % of 60 were malignant" in texts[1]
    assert "No diagnosis" in texts[-1]
    (name,), (version,) = find_items(report, "111001"), find_items(report, "111003")
    assert (name.TextValue, version.TextValue) == ("tiny", model.version)
    assert (report.VerificationFlag, report.CompletionFlag) == ("UNVERIFIED", "COMPLETE")


def test_the_probability_can_have_another_name(model: PackagedModel) -> None:
    content = write_image()
    name = "risk^99SITE^Probability of what we look for"
    made = make_report(
        read_source(content), look_at(model, content), describe_algorithm(model), MOMENT, name
    )
    report = read_object(made)
    assert find_items(report, "risk")
    assert not find_items(report, "positive")


def test_of_several_frames_the_one_that_was_seen_is_named(model: PackagedModel) -> None:
    content = write_image(frames=3, sop_class=UltrasoundMultiFrameImageStorage)
    report, picture = map(read_object, make_both(model, content))
    (region,) = find_items(report, "111030")
    reference = region.ContentSequence[0].ReferencedSOPSequence[0]
    assert reference.ReferencedFrameNumber == 2
    assert picture.SourceImageSequence[0].ReferencedFrameNumber == 2


def test_frames_of_the_class_of_one_frame_are_named(model: PackagedModel) -> None:
    content = write_image(frames=3)
    report, picture = map(read_object, make_both(model, content))
    (region,) = find_items(report, "111030")
    reference = region.ContentSequence[0].ReferencedSOPSequence[0]
    assert reference.ReferencedFrameNumber == 2
    assert reference.ReferencedSOPClassUID == read_object(content).SOPClassUID
    assert picture.SourceImageSequence[0].ReferencedFrameNumber == 2


def test_both_say_how_little_was_looked_at(model: PackagedModel) -> None:
    regions = [make_region(*REGION), make_region(145, 10, 158, 40)]
    content = write_image(
        frames=120,
        sop_class=UltrasoundMultiFrameImageStorage,
        SequenceOfUltrasoundRegions=regions,
    )
    report, picture = map(read_object, make_both(model, content))
    scope = (
        "Only frame 60 of 120 was looked at. Only the largest of 2 ultrasound regions was looked "
        "at: pixels 20 to 139 from the left, 10 to 109 from the top."
    )
    assert scope in list_texts(report)[0]
    assert scope in picture.ImageComments


def test_of_all_that_was_looked_at_nothing_is_said(model: PackagedModel) -> None:
    report, picture = map(read_object, make_both(model, write_image()))
    assert "Only" not in list_texts(report)[0] + picture.ImageComments


def test_without_labels_the_report_gives_no_share(tmp_path: Path) -> None:
    model = load_package(write_tiny_package(tmp_path))
    (model.folder / "tested.csv").unlink()
    assert describe_algorithm(model).calibration == (
        "Calibrated to images like those that the model was tested on."
    )


@pytest.mark.parametrize("box", [Window(200, 10, 220, 40), Window(-30, 10, -5, 40)])
def test_a_box_beyond_the_picture_is_none(box: Window, model: PackagedModel) -> None:
    source, seen = make_seen(model, write_image(), box=box)
    algorithm = describe_algorithm(model)
    report = read_object(make_report(source, seen, algorithm, MOMENT))
    assert not find_items(report, "111030")
    assert find_items(report, "positive")
    assert make_picture(source, seen, algorithm, MOMENT)


def test_a_box_is_cut_to_the_picture(model: PackagedModel) -> None:
    source, seen = make_seen(model, write_image(), box=Window(-5, 20, 500, 60))
    report = read_object(make_report(source, seen, describe_algorithm(model), MOMENT))
    assert read_box(report) == [REGION[0], REGION[1] + 20, REGION[2] + 1, REGION[1] + 60]


def test_refusals_take_no_place_of_an_answer(model: PackagedModel) -> None:
    source, algorithm = read_source(write_image()), describe_algorithm(model)
    refusals = [make_refusal(source, why, algorithm, MOMENT) for why in ("black", "small")]
    answer = make_both(model, write_image())[0]
    made = [read_object(content) for content in (*refusals, answer)]
    assert len({own.SOPInstanceUID for own in made}) == 3


@pytest.mark.parametrize("number", [3, 6])
def test_retired_classes_of_ultrasound_are_read(number: int, model: PackagedModel) -> None:
    sop_class = f"1.2.840.10008.5.1.4.1.1.{number}"
    content = write_image(sop_class=sop_class)
    for made in map(read_object, make_all(model, content)):
        assert made.PatientID == "PID-4711"
        named = {
            element.value
            for element in made.iterall()
            if element.keyword == "ReferencedSOPClassUID"
        }
        assert named == {sop_class}


def test_the_picture_is_the_overlay_of_the_whole_image(model: PackagedModel) -> None:
    image = make_image()
    pixels = image.pixel_array.copy()
    cv2.putText(pixels, "DOE JANE", (30, 40), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255,) * 3)
    set_pixels(image, pixels.tobytes())
    content = write_dicom(image)
    seen = look_at(model, content)
    answer = seen.answer
    assert find_text_boxes(seen.pixels), "text that a cover would hide"
    picture = read_object(make_both(model, content)[1])
    expected = draw_finding(seen.pixels, answer.box, False, answer.attribution)
    height = len(expected)
    assert (picture.pixel_array[:height] == expected).all()
    assert "No diagnosis" in picture.ImageComments
    assert picture.ConversionType == "WSD"


def test_the_picture_says_below_what_it_is(model: PackagedModel) -> None:
    content, algorithm = write_image(), describe_algorithm(model)
    pictures = [
        read_object(make_picture(*make_seen(model, content, flagged=flagged), algorithm, MOMENT))
        for flagged in (False, True)
    ]
    height = len(look_at(model, content).pixels)
    one, other = (own.pixel_array for own in pictures)
    assert len(one) > height + 11
    assert one[height:].max() == 255, "white letters"
    assert one.shape != other.shape or (one[height:] != other[height:]).any()
    assert (one[:height] == other[:height]).all()


def test_where_no_lesion_was_found_no_box_is_drawn(model: PackagedModel) -> None:
    content = write_image()
    source, seen = make_seen(model, content, refer=True, reasons=("no_lesion_found",))
    picture = read_object(make_picture(source, seen, describe_algorithm(model), MOMENT))
    expected = draw_finding(seen.pixels, None, False, seen.answer.attribution)
    assert (picture.pixel_array[: len(expected)] == expected).all()


@pytest.mark.parametrize(("said", "expected"), [(None, "YES"), ("YES", "YES"), ("NO", "NO")])
def test_burned_in_names_are_ruled_out_by_the_header_alone(
    said: str | None, expected: str, model: PackagedModel
) -> None:
    content = write_image(**({} if said is None else {"BurnedInAnnotation": said}))
    assert read_object(make_both(model, content)[1]).BurnedInAnnotation == expected


def test_lossy_compression_is_remembered(model: PackagedModel) -> None:
    content = write_dicom(compress(make_image(LossyImageCompression="01"), JPEGBaseline8Bit))
    assert read_object(make_both(model, content)[1]).LossyImageCompression == "01"


def test_a_model_of_whole_images_needs_no_box(tmp_path: Path) -> None:
    model = load_package(write_tiny_package(tmp_path))
    report = read_object(make_both(model, write_image())[0])
    assert not find_items(report, "111030")
    (probability,) = find_items(report, "positive")
    reference = probability.ContentSequence[0].ReferencedSOPSequence[0]
    assert reference.ReferencedSOPInstanceUID.endswith(".30.1")


@pytest.mark.parametrize(
    ("said", "procedure", "sites"), [("BREAST", "47079000", 1), ("", "16310003", 0)]
)
def test_a_breast_is_named_where_the_header_names_it(
    said: str, procedure: str, sites: int, model: PackagedModel
) -> None:
    report = read_object(make_both(model, write_image(BodyPartExamined=said))[0])
    (reported,) = find_items(report, "121058")
    assert reported.ConceptCodeSequence[0].CodeValue == procedure
    assert len(find_items(report, "363698007")) == sites


def test_the_side_of_the_header_is_in_both(model: PackagedModel) -> None:
    report, picture = map(read_object, make_both(model, write_image(ImageLaterality="L")))
    (site,) = find_items(report, "363698007")
    assert site.ContentSequence[0].ConceptCodeSequence[0].CodeMeaning == "Left"
    assert picture.ImageLaterality == "L"


@pytest.mark.parametrize("position", ["LONG", "LAT", "RAD"])
def test_a_view_is_no_side(position: str, model: PackagedModel) -> None:
    report, picture = map(read_object, make_both(model, write_image(ViewPosition=position)))
    (site,) = find_items(report, "363698007")
    assert "ContentSequence" not in site
    assert "ImageLaterality" not in picture


def test_a_refusal_says_that_nothing_was_analysed(model: PackagedModel) -> None:
    made = make_refusal(
        read_source(write_image()), "it is black", describe_algorithm(model), MOMENT
    )
    report = read_object(made)
    (summary,) = find_items(report, "111065")
    assert summary.ConceptCodeSequence[0].CodeValue == "111245"
    assert list_texts(report)[0] == (
        "This image could not be analysed: it is black. This report says nothing about the image."
    )
    assert not find_items(report, "positive")


def test_names_of_classes_fit_every_character_set(tmp_path: Path) -> None:
    described = {**make_parts(locates=True).description, "title": "nach Helligkeit, größer"}
    model = load_package(write_tiny_package(tmp_path, locates=True, description=described))
    report = read_object(make_both(model, write_image())[0])
    assert any("nach Helligkeit, gr??er" in text for text in list_texts(report))


KINDS: dict[str, dict[str, Any]] = {
    "single": {},
    "multi-frame": {"frames": 3, "sop_class": UltrasoundMultiFrameImageStorage},
    "left": {"ImageLaterality": "L"},
    "japanese": {"PatientName": "山田^太郎", "SpecificCharacterSet": "ISO_IR 192"},
    "burned in": {"BurnedInAnnotation": "YES"},
}


@pytest.mark.skipif(
    shutil.which("dciodvfy") is None, reason="dciodvfy is not installed: apt install dicom3tools"
)
@pytest.mark.parametrize("kind", KINDS)
def test_another_program_finds_no_error(kind: str, model: PackagedModel, tmp_path: Path) -> None:
    for content in make_all(model, write_image(**KINDS[kind])):
        assert list_errors(content, tmp_path) == []


def make_code(value: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, "SCT", meaning
    return code


OTHERS = (
    *("THYROID", "LIVER", "KIDNEY", "ABDOMEN", "HEART", "NECK", "LKNEE", "SHOULDER", "PELVIS"),
    *("UTERUS", "OVARY", "PROSTATE", "TESTIS", "CAROTID", "Schilddruese", "HIP", "WHOLE LEG"),
)
BREASTS = ("MAMA", "SEIN", "SENO IZQ", "BRUST", "MAMMOGRAPHY")
OPEN = ("CHEST", "AXILLA", "SMALL PARTS", "SMALLPARTS", "SOFT_TISSUE", "UNKNOWN", "OTHER", "TEST")


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        *(({"BodyPartExamined": own}, False) for own in OTHERS),
        *(({"BodyPartExamined": own}, True) for own in BREASTS),
        *(({"BodyPartExamined": own}, None) for own in OPEN),
        ({"BodyPartExamined": "THYROID", "StudyDescription": "US Breast, thyroid"}, True),
        ({"BodyPartExamined": "ABDOMEN", "ProtocolName": "Mamma"}, True),
        ({"BodyPartExamined": "CHEST", "StudyDescription": "Liver"}, None),
        ({"BodyPartExamined": None, "code": ("10200004", "")}, False),
        ({"BodyPartExamined": None}, None),
        ({"BodyPartExamined": ""}, None),
        ({"BodyPartExamined": "BREAST"}, True),
        ({"BodyPartExamined": "LBREAST"}, True),
        ({"BodyPartExamined": "Mamma"}, True),
        ({"BodyPartExamined": "THYROID"}, False),
        ({"BodyPartExamined": None, "code": ("80248007", "")}, True),
        ({"BodyPartExamined": None, "code": ("1", "Structure of left breast")}, True),
        ({"BodyPartExamined": None, "code": ("69748006", "Thyroid")}, False),
        ({"BodyPartExamined": "CHEST", "code": ("76752008", "Breast")}, True),
    ],
)
def test_the_header_says_whether_it_is_a_breast(
    elements: dict[str, Any], expected: bool | None
) -> None:
    code = elements.pop("code", None) if "code" in elements else None
    more = {} if code is None else {"AnatomicRegionSequence": [make_code(*code)]}
    assert is_breast(read_source(write_image(**elements, **more))) is expected
