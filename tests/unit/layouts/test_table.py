"""The table of one's own: paths within the folder, DICOM files, columns that mean nothing."""

import logging

import pytest

from busi_pipeline.errors import BadInputError
from busi_pipeline.imaging.raw_files import RawFiles
from busi_pipeline.layouts import LAYOUTS, Listing
from tests.factories import as_raw_images

from .folders import LABELS, as_raw_files


def read(table: str, *paths: str, **known: dict[str, str]) -> Listing:
    files = as_raw_images({"images.csv": table.encode()} | dict.fromkeys(paths, b""))
    return LAYOUTS["table"].read(RawFiles(files, **known), LABELS)


@pytest.mark.parametrize(
    "path",
    ["../a.png", "x/../../a.png", "/data/a.png", "C:\\a.png", "\\\\server\\a.png", "..\\a.png"],
)
@pytest.mark.parametrize("row", ["{},benign,", "a.png,benign,{}"])
def test_no_path_leads_out_of_the_folder(path: str, row: str) -> None:
    with pytest.raises(BadInputError, match="must be relative to the folder") as caught:
        read(f"image,label,mask\n{row.format(path)}\n", "a.png")
    assert repr(path) in str(caught.value)


def test_a_row_holds_for_all_frames_of_a_dicom_file() -> None:
    originals = {"scans/p1_3.png": "scans/Doe.dcm", "scans/p1_9.png": "scans/Doe.dcm"}
    images, unused = read(
        "image,label,patient\nscans/Doe.dcm,benign,7\n", *originals, originals=originals
    )
    assert [(i.path, i.patient) for i in images] == [
        ("scans/p1_3.png", "7"),
        ("scans/p1_9.png", "7"),
    ]
    assert unused == []


def test_columns_that_are_not_used_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    read("image,label,ward,Doctor\na.png,benign,1,2\nb.png,benign,1,2\n", "a.png", "b.png")
    assert caplog.text.count("columns that are not used: ward, Doctor") == 1


def test_a_table_names_the_site_of_an_image() -> None:
    images, _ = read("image,label,site\na.png,benign,north\nb.png,benign,NA\n", "a.png", "b.png")
    assert [image.site for image in images] == ["north", ""]


def test_only_the_workbook_of_the_images_is_read() -> None:
    from .folders import FOLDERS, make_workbook

    folder = FOLDERS["breast"]()
    others = {"a.xlsx": make_workbook([{"x": 1}]), "~$clinical data.xlsx": b"lock"}
    images, unused = LAYOUTS["breast"].read(as_raw_files(others | folder.files), LABELS)
    assert len(images) == 2
    assert {path for path, reason in unused if reason} == set(others)
    alone = {path: c for path, c in folder.files.items() if path != folder.table}
    with pytest.raises(BadInputError, match="lacks the columns CaseID"):
        LAYOUTS["breast"].read(as_raw_files(alone | others), LABELS)


def test_images_of_breast_may_lie_beside_the_workbook_or_below() -> None:
    from .folders import FOLDERS

    folder = FOLDERS["breast"]()
    files = {p if p.endswith("xlsx") else f"images/{p}": c for p, c in folder.files.items()}
    images, unused = LAYOUTS["breast"].read(as_raw_files(files), LABELS)
    assert [image.path for image in images] == ["images/case001.png", "images/case002.png"]
    assert images[0].masks == ("images/case001_tumor.png",)
    assert [reason for _, reason in unused if reason] == []
