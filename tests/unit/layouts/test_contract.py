"""What every layout does: a new one is tested once `folders.FOLDERS` has a folder for it."""

import pytest

from busi_pipeline.errors import BadInputError
from busi_pipeline.layouts import LAYOUTS, Layout, Listing, recognise_layout
from tests.factories import make_png

from .folders import FOLDERS, LABELS, Folder, as_raw_files

LISTED = [name for name in LAYOUTS if name != "class_folders"]


def read(name: str, files: dict[str, bytes]) -> Listing:
    return LAYOUTS[name].read(as_raw_files(files), LABELS)


@pytest.fixture(params=LAYOUTS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def folder(name: str) -> Folder:
    return FOLDERS[name]()


@pytest.fixture
def layout(name: str) -> type[Layout]:
    return LAYOUTS[name]


def test_its_folder_is_recognised_as_no_other(folder: Folder, layout: type[Layout]) -> None:
    found = recognise_layout(as_raw_files(folder.files), LAYOUTS, LABELS)
    assert (found.layout, found.folder) == (layout, "")
    assert not layout.recognises(["readme.txt", "x/y.png"], LABELS)


@pytest.mark.parametrize("wrapper", ["X", "X/X", "BUSI #1/ä"])
def test_folders_around_it_are_taken_off(
    folder: Folder, layout: type[Layout], wrapper: str
) -> None:
    wrapped = {f"{wrapper}/{path}": content for path, content in folder.files.items()}
    found = recognise_layout(as_raw_files(wrapped | {"readme.txt": b"x"}), LAYOUTS, LABELS)
    assert (found.layout, found.folder) == (layout, wrapper)
    assert set(found.files) == set(folder.files)


def test_labels_patients_and_masks_are_read(name: str, folder: Folder) -> None:
    images, unused = read(name, folder.files)
    found = {image.path: (image.label, image.patient, image.masks) for image in images}
    assert found == folder.images
    assert images[0].attributes == folder.attributes
    assert [reason for _, reason in unused if reason] == []


def test_every_file_is_an_image_a_mask_or_unused(name: str, folder: Folder) -> None:
    files = folder.files | {"notes.txt": b"hello", "benign/extra.txt": b"hello"}
    images, unused = read(name, files)
    known = [image.path for image in images] + [m for image in images for m in image.masks]
    known += [path for path, _ in unused] + [folder.table]
    assert sorted(known) == sorted(files)
    reasons = dict(unused)
    assert "not an image file" in reasons["benign/extra.txt"]
    assert reasons["notes.txt"]


def test_upper_case_suffixes_are_as_good(name: str, folder: Folder) -> None:
    def shout(path: str) -> str:
        return path.replace(".png", ".PNG")

    images, _ = read(name, {shout(path): content for path, content in folder.files.items()})
    assert {image.path for image in images} == {shout(path) for path in folder.images}
    assert sum(len(image.masks) for image in images) == sum(
        len(i[2]) for i in folder.images.values()
    )


@pytest.mark.parametrize("name", LISTED)
def test_what_is_not_listed_or_not_there_is_said(name: str, folder: Folder) -> None:
    gone = next(path for path, (_, _, masks) in folder.images.items() if not masks or path)
    files = {path: content for path, content in folder.files.items() if path != gone}
    extra = next(iter(folder.images)).replace(".png", "_extra.png")
    images, unused = read(name, files | {extra: make_png(9)})
    assert gone not in {image.path for image in images}
    absent = [
        path for path, reason in unused if reason == f"listed in {folder.table}, but not there"
    ]
    assert len(absent) == 1
    assert absent[0].removesuffix(".png") == gone.removesuffix(".png")
    assert (extra, f"not listed in {folder.table}") in unused


@pytest.mark.parametrize("name", LISTED)
def test_a_table_of_other_files_is_named(name: str, folder: Folder) -> None:
    files = {path: c for path, c in folder.files.items() if path not in folder.images}
    with pytest.raises(BadInputError, match="none of them is there") as caught:
        read(name, files)
    assert "\n" not in str(caught.value)


def test_a_table_without_its_columns_is_named(name: str, folder: Folder) -> None:
    if folder.table.endswith(".xlsx"):
        pytest.skip("a workbook is tested in test_tables")
    with pytest.raises(BadInputError, match=rf"^{folder.table} .*; it has colour, size") as caught:
        LAYOUTS[name].read(folder.replace_table(b"colour,size\n1,2\n"), LABELS)
    assert "\n" not in str(caught.value)


def test_another_layout_than_the_named_one_is_described(layout: type[Layout]) -> None:
    files = as_raw_files({"scans/a.png": b"", "other/b.png": b"", "x.txt": b""})
    with pytest.raises(BadInputError) as caught:
        recognise_layout(files, {layout.name: layout}, LABELS)
    message = str(caught.value)
    assert "It holds other/, scans/, x.txt." in message
    assert f"{layout.name}: {layout.looks_like}" in message
    assert "\n" not in message


def test_class_folders_of_other_names_are_taken_for_what_they_may_be() -> None:
    files = as_raw_files({"Malign/a.png": b"", "benigno/b.png": b"", "x.txt": b""})
    with pytest.raises(BadInputError) as caught:
        recognise_layout(files, LAYOUTS, ["benign", "malignant", "normal"])
    expected = "did you mean ingestion.class_names: {Malign: malignant, benigno: benign}?"
    assert expected in str(caught.value)
    other = as_raw_files({"scans/a.png": b""})
    with pytest.raises(BadInputError) as caught:
        recognise_layout(other, LAYOUTS, ["benign", "malignant", "normal"])
    assert "did you mean" not in str(caught.value)


def test_what_no_layout_fits_names_them_all() -> None:
    with pytest.raises(BadInputError) as caught:
        recognise_layout(as_raw_files({f"{n}/a.png": b"" for n in range(9)}), LAYOUTS, LABELS)
    assert all(layout.looks_like in str(caught.value) for layout in LAYOUTS.values())
    assert "5/ and 3 more" in str(caught.value)
