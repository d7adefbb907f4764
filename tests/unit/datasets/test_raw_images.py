"""Raw images: read when they are asked for, DICOM frames under names that are no patient's."""

import hmac
import logging
import os
import pickle
import socket
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from kedro.io import DatasetError

from busi_pipeline.caching.places import find_place
from busi_pipeline.datasets import raw_images
from busi_pipeline.datasets.raw_images import RawImagesDataset
from busi_pipeline.errors import BadInputError, find_bad_input
from busi_pipeline.imaging.decoding import UnusableImageError, decode_image
from busi_pipeline.imaging.raw_files import RawFiles
from tests.dicom_factories import SECRETS, make_dicom, make_region, write_dicom

KEY = "a key of the tests alone"


def load(folder: Path, **options: object) -> RawFiles:
    return RawImagesDataset({"main": str(folder)}, **options).load()  # type: ignore[arg-type]


def refuse(sites: dict[str, str], **options: object) -> str:
    """Return the one line with which loading is refused."""
    with pytest.raises(DatasetError) as caught:
        RawImagesDataset(sites, **options).load()  # type: ignore[arg-type]
    error = find_bad_input(caught.value)
    assert isinstance(error, BadInputError)
    assert "\n" not in str(error)
    return str(error)


def write(folder: Path, *names: str, content: bytes | None = None) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode() if content is None else content)


# Folders


@pytest.mark.parametrize("is_empty", [True, False])
def test_missing_data_says_how_to_get_it(tmp_path: Path, is_empty: bool) -> None:
    folder = tmp_path / "BUSI"
    if is_empty:
        folder.mkdir()
        write(folder, ".DS_Store")
    message = refuse({"main": str(folder)})
    for part in (str(folder), "empty" if is_empty else "missing", "Al-Dhabyani", "BUSI_RAW_DIR"):
        assert part in message


def test_the_demo_says_to_make_it(tmp_path: Path) -> None:
    message = refuse({"main": "data/demo/01_raw"}, project_root=str(tmp_path))
    assert "make demo" in message
    assert "BUSI_RAW_DIR" not in message


def test_of_several_sites_the_message_names_the_site(tmp_path: Path) -> None:
    write(tmp_path, "one/a.png")
    message = refuse({"one": str(tmp_path / "one"), "two": str(tmp_path / "two")})
    assert "of the site two is missing" in message
    assert "sites.two.folder" in message


def test_without_a_site_the_message_says_how_to_name_one() -> None:
    message = refuse({})
    assert "--params external.folder=<folder>,external.layout=<layout>" in message


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path: Path) -> None:
    write(tmp_path, "images.zip")
    assert "Not a directory" in refuse({"main": str(tmp_path / "images.zip")})


def test_an_optional_folder_may_be_missing(tmp_path: Path) -> None:
    assert not load(tmp_path / "nowhere", optional=True)


def test_folders_are_relative_to_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "raw/a.png")
    monkeypatch.chdir("/")
    files = RawImagesDataset({"main": "raw"}, project_root=str(tmp_path)).load()
    assert list(files) == ["a.png"]


def test_the_demo_says_that_it_does_not_read_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, "a.png")
    load(tmp_path, demo=True)
    assert not caplog.records
    monkeypatch.setenv("BUSI_RAW_DIR", "/busi")
    load(tmp_path, demo=True)
    assert "BUSI_RAW_DIR is set, but not read" in caplog.text


# Files


def test_files_are_listed_in_order_and_read_when_asked(tmp_path: Path) -> None:
    write(tmp_path, "b/2.png", "a/1.png", "a/b/c.png")
    files = load(tmp_path)
    assert list(files) == ["a/1.png", "a/b/c.png", "b/2.png"]
    write(tmp_path, "b/2.png", content=b"changed since")
    assert files["b/2.png"]() == b"changed since"


def test_a_folder_in_object_storage_is_listed_as_one_here(tmp_path: Path) -> None:
    """What is there twice is listed with the longer copy first, as of a folder."""
    root = find_place(f"memory://{uuid.uuid4().hex}")
    for folder in (tmp_path, root):
        for name in ("b/b (1).png", "a/a.png", "a/.hidden/x.png", "a/Thumbs.db", "table.csv"):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(name.encode())
    here, there = (RawImagesDataset({"main": str(own)}).load() for own in (tmp_path, root))
    assert list(there) == list(here) == ["a/a.png", "b/b (1).png", "table.csv"]
    assert there["b/b (1).png"]() == b"b/b (1).png"
    assert RawImagesDataset({"main": str(root)})._exists()


def test_a_folder_that_is_not_in_object_storage_is_named() -> None:
    place = f"memory://{uuid.uuid4().hex}"
    with pytest.raises(DatasetError, match=f"the folder {place} is missing"):
        RawImagesDataset({"main": place}).load()


def test_paths_of_several_sites_begin_with_the_site(tmp_path: Path) -> None:
    write(tmp_path, "x/a/1.png", "y/a/1.png")
    files = RawImagesDataset({"two": str(tmp_path / "y"), "one": str(tmp_path / "x")}).load()
    assert list(files) == ["one/a/1.png", "two/a/1.png"]
    assert files["two/a/1.png"]() == b"y/a/1.png"


def test_unusual_names_just_work(tmp_path: Path) -> None:
    names = ["a b/c #1.png", "a b/100%.png", "a b/1²3.png", "é/ü(1).png", "é/[x]*?.png"]
    write(tmp_path, *names)
    files = load(tmp_path)
    assert sorted(files) == sorted(names)
    for name in names:
        assert files[name]() == name.encode()


def test_what_computers_leave_behind_is_left_out(tmp_path: Path) -> None:
    write(tmp_path, "a/1.png", "a/.DS_Store", "a/Thumbs.db", "desktop.ini", ".git/config")
    write(tmp_path, "__MACOSX/a/._1.png", "a/._1.png", ".hidden.png")
    files = load(tmp_path)
    assert list(files) == ["a/1.png"]
    assert not files.unusable


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    write(tmp_path, "store/1.png", "raw/benign/2.png")
    (tmp_path / "raw/linked").symlink_to(tmp_path / "store")
    (tmp_path / "raw/3.png").symlink_to(tmp_path / "store/1.png")
    (tmp_path / "raw/benign/around").symlink_to(tmp_path / "raw")
    files = load(tmp_path / "raw")
    assert list(files) == ["3.png", "benign/2.png", "linked/1.png"]
    assert files.unusable == {"benign/around": "a link to a folder that it lies in"}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no pipes in folders")
def test_what_is_no_file_is_named_and_never_opened(tmp_path: Path) -> None:
    write(tmp_path, "1.png")
    os.mkfifo(tmp_path / "pipe.png")  # to open it would wait for ever
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "dangling.png").symlink_to(tmp_path / "nothing")
    (tmp_path / "itself.png").symlink_to(tmp_path / "itself.png")
    (tmp_path / "endless.png").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(str(tmp_path / "socket.png"))
        files = load(tmp_path)
    assert list(files) == ["1.png"]
    assert files.unusable["pipe.png"] == files.unusable["pipe"] == "a pipe, not a file"
    assert files.unusable["socket.png"] == "a socket, not a file"
    assert files.unusable["endless.png"] == "a device, not a file"
    assert files.unusable["dangling.png"] == "a link to nothing"
    assert "symbolic links" in files.unusable["itself.png"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has names of characters, not of bytes")
def test_a_name_that_is_not_utf_8_is_named_readably(tmp_path: Path) -> None:
    write(tmp_path, "1.png")
    (tmp_path / os.fsdecode(b"\xe9t\xe9.png")).write_bytes(b"")
    (tmp_path / os.fsdecode(b"fold\xe9r")).mkdir()
    files = load(tmp_path)
    assert list(files) == ["1.png"]
    assert files.unusable == {
        r"\xe9t\xe9.png": "its name is not UTF-8: rename it",
        r"fold\xe9r": "its name is not UTF-8: rename it",
    }


def test_a_folder_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "open/1.png", "shut/2.png")
    _shut(monkeypatch, tmp_path / "shut")
    files = load(tmp_path)
    assert list(files) == ["open/1.png"]
    assert files.unusable == {"shut/": "a folder that is unreadable: Permission denied"}


def test_a_site_that_cannot_be_read_is_no_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _shut(monkeypatch, tmp_path)
    assert "unreadable: Permission denied" in refuse({"main": str(tmp_path)})


def _shut(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let a folder be unreadable, for root as well."""
    listdir = os.listdir

    def refuse_one(path: Path) -> list[str]:
        if Path(path) == folder:
            raise PermissionError(13, "Permission denied", str(path))
        return listdir(path)

    monkeypatch.setattr(os, "listdir", refuse_one)


def test_raw_images_are_never_written(tmp_path: Path) -> None:
    write(tmp_path, "a.png", content=b"raw")
    with pytest.raises(DatasetError, match="read-only"):
        RawImagesDataset({"main": str(tmp_path)}).save({"a.png": b"other"})
    assert (tmp_path / "a.png").read_bytes() == b"raw"


def test_only_files_that_may_be_dicom_are_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "1.png", "2.JPG", "table.csv", "notes", "4.bin")
    opened = []
    original = Path.open

    def note(path: Path, *arguments: str) -> object:
        opened.append(path.name)
        return original(path, *arguments)

    monkeypatch.setattr(Path, "open", note)
    assert len(load(tmp_path)) == 5
    assert sorted(opened) == ["4.bin", "notes"]


# DICOM


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUSI_PSEUDONYM_KEY", KEY)


@pytest.fixture
def grey() -> np.ndarray:
    return np.arange(40 * 50, dtype=np.uint16).reshape(40, 50).astype(np.uint8)


def make_pseudonym(text: str) -> str:
    return hmac.new(KEY.encode(), text.encode(), "sha256").hexdigest()[:12]


def write_scan(
    folder: Path,
    name: str,
    grey: np.ndarray,
    frames: int = 1,
    uid: str = "1.2.3",
    **elements: object,
) -> bytes:
    """Write a DICOM file; return its content."""
    dataset = make_dicom([grey] * frames, SOPInstanceUID=uid, **elements)
    content = write_dicom(dataset)
    write(folder, name, content=content)
    return content


@pytest.mark.usefixtures("key")
def test_a_dicom_file_becomes_a_png_under_a_pseudonym(tmp_path: Path, grey: np.ndarray) -> None:
    name = "Malignant/DOE_JANE/IM0001"
    write_scan(
        tmp_path,
        name,
        grey,
        Manufacturer="GE",
        ManufacturerModelName="LOGIQ",
        PatientAge="047Y",
        ImageLaterality="R",
        SequenceOfUltrasoundRegions=[make_region(5, 10, 44, 39)],
    )
    files = load(tmp_path, folders_to_keep=["malignant"])
    path = f"Malignant/{make_pseudonym('1.2.3')}.png"
    assert list(files) == [path]
    assert files.originals == {path: name}
    assert files.attributes[path] == {
        "patient": make_pseudonym("PID-4711"),
        "device": "GE LOGIQ",
        "age": "47",
        "view": "right",
        "pixel_spacing_mm": "0.1",
        "frame": "1",
    }
    content = files[path]()
    assert content.startswith(b"\x89PNG")
    assert content == files[path]()
    np.testing.assert_array_equal(decode_image(content).pixels[..., 1], grey[10:40, 5:45])


@pytest.mark.usefixtures("key")
@pytest.mark.parametrize(
    ("frames", "numbers"), [("middle", [2]), ("all", [1, 2, 3, 4]), ("every 3", [1, 4]), (3, [3])]
)
def test_chosen_frames_are_files(
    tmp_path: Path, grey: np.ndarray, frames: str | int, numbers: list[int]
) -> None:
    write_scan(tmp_path, "clip.dcm", grey, frames=4)
    files = load(tmp_path, dicom={"frames": frames, "crop_to_region": False, "max_pixels": 9999})
    name = make_pseudonym("1.2.3")
    assert list(files) == [f"{name}_{number:04d}.png" for number in numbers]
    assert [files.attributes[path]["frame"] for path in files] == list(map(str, numbers))


@pytest.mark.usefixtures("key")
def test_dicom_frames_of_several_sites_keep_the_site(tmp_path: Path, grey: np.ndarray) -> None:
    write_scan(tmp_path, "x/benign/DOE.dcm", grey)
    write(tmp_path, "y/1.png")
    sites = {"one": str(tmp_path / "x"), "two": str(tmp_path / "y")}
    files = RawImagesDataset(sites, folders_to_keep=["benign"]).load()
    path = f"one/benign/{make_pseudonym('1.2.3')}.png"
    assert list(files) == [path, "two/1.png"]
    assert files.originals == {path: "one/benign/DOE.dcm"}


@pytest.mark.usefixtures("key")
def test_without_a_patient_id_there_is_no_patient(tmp_path: Path, grey: np.ndarray) -> None:
    write_scan(tmp_path, "a.dcm", grey, PatientID="")
    files = load(tmp_path)
    assert list(files.attributes.values()) == [{"frame": "1"}]


@pytest.mark.usefixtures("key")
def test_what_cannot_be_read_has_a_pseudonym_too(tmp_path: Path, grey: np.ndarray) -> None:
    names = ["benign/DOE_JANE.dcm", "benign/ELMSTREET.DICOM", "benign/HOUSE"]
    write(tmp_path, names[0], content=b"no DICOM")
    write_scan(tmp_path, names[1], grey, Rows=0)
    write_scan(tmp_path, names[2], grey, uid="")
    files = load(tmp_path, folders_to_keep=["benign"])
    assert not files
    paths = [f"benign/{make_pseudonym(name)}.dcm" for name in names]
    assert {path: files.originals[path] for path in paths} == dict(zip(paths, names, strict=True))
    reasons = ["the mark DICM", "no picture", "no SOPInstanceUID"]
    for path, reason in zip(paths, reasons, strict=True):
        assert reason in files.unusable[path]


@pytest.mark.usefixtures("key")
def test_a_second_file_of_one_instance_is_unusable(tmp_path: Path, grey: np.ndarray) -> None:
    write_scan(tmp_path, "benign/1.dcm", grey)
    write_scan(tmp_path, "benign/2.dcm", grey)
    files = load(tmp_path, folders_to_keep=["benign"])
    assert list(files.originals.values()).count("benign/1.dcm") == 1
    assert len(files) == 1
    assert list(files.unusable) == [f"benign/{make_pseudonym('benign/2.dcm')}.dcm"]
    assert "SOPInstanceUID" in next(iter(files.unusable.values()))


@pytest.mark.usefixtures("key")
def test_a_frame_that_cannot_be_decoded_says_why(tmp_path: Path, grey: np.ndarray) -> None:
    write_scan(tmp_path, "a.dcm", grey, PhotometricInterpretation="CMYK")
    files = load(tmp_path)
    with pytest.raises(UnusableImageError, match="PhotometricInterpretation"):
        next(iter(files.values()))()


@pytest.mark.usefixtures("key")
def test_frames_can_be_read_in_other_processes(tmp_path: Path, grey: np.ndarray) -> None:
    write_scan(tmp_path, "a.dcm", grey)
    read = next(iter(load(tmp_path).values()))
    assert pickle.loads(pickle.dumps(read))() == read()


def test_without_a_key_one_line_says_how_to_make_one(
    tmp_path: Path, grey: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BUSI_PSEUDONYM_KEY", raising=False)
    write_scan(tmp_path, "DOE_JANE.dcm", grey)
    message = refuse({"main": str(tmp_path)})
    for part in ("BUSI_PSEUDONYM_KEY is not set", "secrets.token_hex(16)"):
        assert part in message
    assert "DOE" not in message


@pytest.mark.usefixtures("key")
def test_headers_are_read_once_a_process(
    tmp_path: Path, grey: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[object] = []
    original: Callable[..., object] = raw_images.read_header

    def note(opened: object) -> object:
        read.append(opened)
        return original(opened)

    monkeypatch.setattr(raw_images, "read_header", note)
    write_scan(tmp_path, "a.dcm", grey)
    assert list(load(tmp_path)) == list(load(tmp_path))
    assert len(read) == 1
    write_scan(tmp_path, "a.dcm", grey, uid="1.2.3.4.5.6")
    assert list(load(tmp_path)) == [f"{make_pseudonym('1.2.3.4.5.6')}.png"]
    assert len(read) == 2


@pytest.mark.usefixtures("key")
def test_nothing_that_is_written_names_a_patient(
    tmp_path: Path, grey: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    write_scan(tmp_path, "benign/DOE^JANE/ELMSTREET_1", grey, frames=3)
    write_scan(tmp_path, "PID-4711/19690702.dcm", grey, uid="1.2.4", PhotometricInterpretation="X")
    write_scan(tmp_path, "PID-4711/ACC-0815.dcm", grey, uid="1.2.5", Rows=0)
    write(tmp_path, "HOUSE/DOE.dcm", content=b"nothing")
    files = load(tmp_path, folders_to_keep=["benign"], dicom={"frames": "all"})
    assert len(files) == 4
    said = [*files, *files.unusable.items(), *files.attributes.items(), caplog.text]
    for path, read in files.items():
        try:
            said.append(str(read()))
        except UnusableImageError as error:
            said.append(f"{path}: {error}")
    everything = str(said).casefold()
    assert not [secret for secret in SECRETS if secret.casefold() in everything]


def test_a_folder_that_is_no_site_is_named_by_its_setting(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"with --params prediction\.folder=<folder>"):
        RawImagesDataset({}, setting="prediction.folder").load()
    absent = RawImagesDataset({"x": str(tmp_path / "absent")}, setting="prediction.folder")
    with pytest.raises(DatasetError, match=r"is missing\. Correct prediction\.folder\."):
        absent.load()
