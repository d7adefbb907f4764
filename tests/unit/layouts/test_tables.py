"""Tables: any encoding and separator that can be told, one line about any other."""

import pandas as pd
import pytest

from busi_pipeline.errors import BadInputError
from busi_pipeline.imaging.raw_files import RawFiles
from busi_pipeline.layouts.base import Box, ListedImage
from busi_pipeline.layouts.tables import FileIndex, drop_unknown, list_rows, parse_box, read_table

from .folders import as_raw_files, make_workbook

TEXT = "Image;Patient\nä 1.png;007\n"


def read(content: bytes, name: str = "t.csv") -> pd.DataFrame:
    return read_table(as_raw_files({name: content}), name, ("image",), ("patient", "site"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_encodings_and_separators_are_told(encoding: str, separator: str, end: str) -> None:
    table = read(TEXT.replace(";", separator).replace("\n", end).encode(encoding))
    assert table.to_dict("records") == [{"image": "ä 1.png", "patient": "007", "site": ""}]


def test_quoted_cells_empty_lines_and_short_rows_are_read() -> None:
    table = read(b'IMAGE , Other\n\n"a,b.png",2\n,\n"say ""x""",\nc.png\n')
    assert table["image"].tolist() == ["a,b.png", 'say "x"', "c.png"]
    assert table["Other"].tolist() == ["2", "", ""]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "t.csv is empty"),
        (b"\xef\xbb\xbf \r\n\n", "t.csv is empty"),
        (TEXT.encode("latin-1"), "t.csv is not UTF-8: save it as UTF-8"),
        (TEXT.encode("utf-16-le"), "t.csv is not UTF-8"),
        (b"a,b\n1,2\n", "t.csv lacks the columns image; it has a, b"),
        (b"image,Image\n1,2\n", "the column image more than once"),
        (b"image,patient\na,b,c\n", "2 columns, but row 1 has 3 cells: quote"),
        (b'image,patient\n"a,b\n', "t.csv is no table"),
    ],
)
def test_a_wrong_table_is_named_in_one_line(content: bytes, message: str) -> None:
    with pytest.raises(BadInputError, match=message) as caught:
        read(content)
    assert "\n" not in str(caught.value)


def test_a_table_that_cannot_be_opened_is_named() -> None:
    def fail() -> bytes:
        raise PermissionError("no\npermission")

    with pytest.raises(BadInputError, match=r"^t.csv cannot be read: no permission\.$"):
        read_table(RawFiles({"t.csv": fail}), "t.csv", ("image",))


def test_a_workbook_is_read_as_text() -> None:
    rows = [{"Image": "a", "Patient": 7, "more": 0.5}, {"Image": "b", "Patient": None}]
    table = read(make_workbook(rows), "t.XLSX")
    assert table["patient"].tolist() == ["7", ""]
    assert table["more"].tolist() == ["0.5", ""]
    for content, message in ((b"PK no zip", "is no Excel workbook"), (b"", "is empty")):
        with pytest.raises(BadInputError, match=f"t.xlsx {message}"):
            read(content, "t.xlsx")


@pytest.mark.parametrize(
    "text", ["", " ", "NA", "n/a", "None", "NULL", "nan", "-", "Not available", "not applicable"]
)
def test_words_for_nothing_are_nothing(text: str) -> None:
    assert drop_unknown(text) == ""
    assert parse_box(text, "t.csv") is None
    assert drop_unknown(f" x{text} ") == f"x{text}".strip()


@pytest.mark.parametrize(
    "text", ["1,2,3,4", "[1,2,3,4]", " [1, 2.2, 3, 4] ", "(1;2;3;4)", "1 2 3 4"]
)
def test_a_box_is_four_numbers(text: str) -> None:
    assert parse_box(text, "t.csv") == Box(1, 2, 3, 4)


@pytest.mark.parametrize(
    "text", ["1,2,3", "1,2,3,4,5", "a", "1,2,nan,4", "1,2,inf,4", "1,2,0,4", "-1,2,3,4"]
)
def test_any_other_box_is_refused(text: str) -> None:
    with pytest.raises(BadInputError, match="a box must be x,y,width,height"):
        parse_box(text, "t.csv")


def test_files_are_found_by_what_a_table_calls_them() -> None:
    paths = ["A/ä b.PNG", "A/c.png", "A/c.bmp", "d.txt", "x/f_1.png", "x/f_2.png"]
    files = RawFiles(
        dict.fromkeys(paths, bytes), originals={"x/f_1.png": "x/Doe.dcm", "x/f_2.png": "x/Doe.dcm"}
    )
    index = FileIndex(files)
    for name in ("A/ä b.PNG", "a\\ä b.png", "./A/a\u0308 B.png", "a/ä b"):
        assert index.find(name) == ["A/ä b.PNG"]
    assert index.find("A/c.png") == ["A/c.png"]
    assert index.find("x/doe.dcm") == index.find("x/Doe") == ["x/f_1.png", "x/f_2.png"]
    assert index.find("d") == index.find("") == index.find("A") == []
    with pytest.raises(BadInputError, match=r"'A/c' is the name of 2 files \(A/c.bmp, A/c.png\)"):
        index.find("A/c")


def test_rows_of_one_image_must_agree() -> None:
    files = as_raw_files({"a.png": b"", "t.csv": b""})
    row = ListedImage("a.png", "benign", "p1")
    images, _ = list_rows(files, "t.csv", [row, ListedImage("a", " benign", "p1 ")])
    assert images == [row]
    with pytest.raises(BadInputError, match="has several rows of 'a', and they do not say"):
        list_rows(files, "t.csv", [row, ListedImage("a", "malignant", "p1")])
    with pytest.raises(BadInputError, match="row 2 names no image"):
        list_rows(files, "t.csv", [row, ListedImage("", "benign")])


def test_what_cannot_be_read_is_not_called_absent() -> None:
    files = RawFiles(
        {"a.png": bytes},
        unusable={"4f.dcm": "damaged", "c.png": "a pipe"},
        originals={"4f.dcm": "x/Doe.dcm"},
    )
    rows = [ListedImage(name, "benign") for name in ("a.png", "x/Doe.dcm", "c.png")]
    assert list_rows(files, "t.csv", rows).unused == []


def test_names_of_dicom_files_that_are_not_there_are_not_shown() -> None:
    files = RawFiles({"a.png": bytes}, originals={"a.png": "x/Roe.dcm"})
    rows = [ListedImage(name, "benign") for name in ("x/Roe", "x/Doe.dcm", "x/Doe", "b.png")]
    assert [path for path, _ in list_rows(files, "t.csv", rows).unused] == [
        "row 2 of t.csv",
        "row 3 of t.csv",
        "b.png",
    ]
