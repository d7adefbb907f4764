"""The folders of raw images, as files that are read when they are asked for."""

import hashlib
import hmac
import io
import logging
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from kedro.io import AbstractDataset, DatasetError
from PIL import Image

from busi_pipeline.caching.places import Place, describe, find_place
from busi_pipeline.errors import BadInputError
from busi_pipeline.imaging.decoding import MAX_PIXELS, UnusableImageError
from busi_pipeline.imaging.dicom import (
    DICOM_SUFFIXES,
    START_LENGTH,
    DicomHeader,
    decode_frame,
    is_dicom,
    read_header,
    select_frames,
)
from busi_pipeline.imaging.raw_files import RawFiles, ReadBytes
from busi_pipeline.layouts import IMAGE_SUFFIXES

if TYPE_CHECKING:
    from upath import UPath

logger = logging.getLogger(__name__)

HOW_TO_GET_BUSI = (
    "Get BUSI ('Dataset of breast ultrasound images', Al-Dhabyani et al. 2020, Data in Brief "
    "28:104863; on Kaggle as aryashah2k/breast-ultrasound-images-dataset) and unpack it so that "
    "<folder>/benign/benign (1).png exists, or name its place in the environment variable "
    "BUSI_RAW_DIR. `pip install -e '.[download]'` and `python -m busi_pipeline.download` do both."
)
HOW_TO_MAKE_A_KEY = (
    "Set it to a secret of your own, and keep it: with another one, patients and files get other "
    'names. `python -c "import secrets; print(secrets.token_hex(16))"` makes one.'
)
NOT_UTF_8 = "its name is not UTF-8: rename it"
KEY_VARIABLE = "BUSI_PSEUDONYM_KEY"

# The site of parameters_sites.yml whose folder is that of BUSI_RAW_DIR.
_BUSI_SITE = "main"
_DEMO_FOLDER = "data/demo"
# Of no DICOM file: such files are not opened before they are read.
_KNOWN_SUFFIXES = (*IMAGE_SUFFIXES, ".csv", ".tsv", ".txt", ".xlsx", ".xls", ".json", ".md")
# What computers leave in folders, beside hidden files.
_LEFT_BEHIND = {
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "icon\r", "@eadir"),
    *("$recycle.bin", "system volume information", "lost+found"),
}
_NO_FILE = {
    stat.S_ISFIFO: "a pipe",
    stat.S_ISSOCK: "a socket",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
}


class RawImagesDataset(AbstractDataset[None, RawFiles]):
    """Every file of one or several sites: {path: function that reads its bytes}, and what is known.

    Of one site the paths are relative to its folder; of several they begin with `<site>/`. A folder
    may lie in object storage (`s3://...`). Linked folders are followed. What a computer leaves in
    any folder is left out: hidden files, `Thumbs.db`, `__MACOSX`.

    A frame of a DICOM file is a file: a PNG of its pixels. Its path and its attributes hold
    pseudonyms, made with the secret in the environment variable BUSI_PSEUDONYM_KEY, and of the
    original path only folders that are no patient's.

    Attributes:
        optional: no folder and no files is no error.
    """

    def __init__(
        self,
        sites: Mapping[str, str],
        folders_to_keep: Sequence[str] = (),
        dicom: Mapping[str, Any] | None = None,
        project_root: str = ".",
        demo: bool = False,
        optional: bool = False,
        setting: str | None = None,
        metadata: dict[str, Any] | None = None,
    ):
        """Name the folders.

        Args:
            sites: {name: folder}.
            folders_to_keep: names of folders that may stand in the path of a DICOM frame, in upper
                or lower case: the classes.
            dicom: `frames` and `crop_to_region` of DicomSettings, and `max_pixels`.
            project_root: what folders are relative to.
            demo: whether the images are the synthetic ones of the demo.
            optional: see above.
            setting: parameter that names the folder, where it is no site; for messages.
            metadata: for Kedro-Viz.
        """
        self._sites = {name: _find_folder(project_root, folder) for name, folder in sites.items()}
        self._folders_to_keep = frozenset(name.casefold() for name in folders_to_keep)
        self._dicom = _DicomReading(**dicom or {})
        self._demo = demo
        self.optional = optional
        self._setting = setting
        self.metadata = metadata

    def load(self) -> RawFiles:
        """List the files of all sites, sorted by path; none is read but the headers of DICOM files.

        Raises BadInputError, one line, where a folder is missing or empty, and where there are
        DICOM files but no BUSI_PSEUDONYM_KEY or nothing that reads them.
        """
        self._check_named()
        if self._demo and os.environ.get("BUSI_RAW_DIR", "").strip():
            logger.warning("BUSI_RAW_DIR is set, but not read: the demo has images of its own")
        found = _Found()
        for site, folder in self._sites.items():
            start = f"{site}/" if len(self._sites) > 1 else ""
            before = found.count()
            problem = _find_folder_problem(folder)
            if not problem:
                self._list_site(found, folder, start)
                problem = "" if found.count() > before else "empty"
            if problem and not self.optional:
                raise BadInputError(self._describe_problem(site, folder, problem))
        return found.as_raw_files()

    def check(self) -> None:
        """Raise what `load` would raise for a folder, and list no files."""
        self._check_named()
        for site, folder in self._sites.items():
            problem = _find_folder_problem(folder)
            if problem and not self.optional:
                raise BadInputError(self._describe_problem(site, folder, problem))

    def _check_named(self) -> None:
        if not self._sites and self._setting:
            raise BadInputError(
                f"no folder is named: say where the images lie, with --params "
                f"{self._setting}=<folder>."
            )
        if not self._sites:
            raise BadInputError(
                "no site is named: say where the images of the external site lie, with "
                "--params external.folder=<folder>,external.layout=<layout>, or name an entry of "
                "parameters_sites.yml with --params external.site=<site>."
            )

    def save(self, data: None) -> None:
        """Refuse: raw data is never written."""
        raise DatasetError("raw images are read-only")

    def _exists(self) -> bool:
        return all(folder.is_dir() for folder in self._sites.values())

    def _describe(self) -> dict[str, Any]:
        return {"sites": {name: str(folder) for name, folder in self._sites.items()}}

    def _describe_problem(self, site: str, folder: Place, problem: str) -> str:
        of_site = f" of the site {site}" if len(self._sites) > 1 else ""
        if self._setting:
            remedy = f"Correct {self._setting}."
        elif f"/{_DEMO_FOLDER}/" in f"/{folder.as_posix()}/":
            remedy = "`make demo` writes synthetic images into it."
        elif site == _BUSI_SITE:
            remedy = HOW_TO_GET_BUSI
        else:
            remedy = f"Correct sites.{site}.folder, or external.folder."
        return f"no raw data: the folder {folder}{of_site} is {problem}. {remedy}"

    def _list_site(self, found: "_Found", root: Place, start: str) -> None:
        # Of copies the longest counts, since a shorter one was cut off; of like ones the first.
        entries = _walk(root) if isinstance(root, Path) else _list_objects(root)
        for entry in sorted(entries, key=lambda own: (-_measure_length(own), own.path)):
            path = start + entry.path
            if entry.problem:
                found.unusable[path] = entry.problem
                continue
            try:
                is_frames = _is_dicom_file(entry.file)
            except OSError as error:
                found.unusable[path] = f"it cannot be read: {error.strerror}"
                continue
            if is_frames:
                self._list_frames(found, entry, start)
            else:
                found.readers[path] = entry.file.read_bytes

    def _list_frames(self, found: "_Found", entry: "_Entry", start: str) -> None:
        """Add the frames of a DICOM file under names that are no patient's."""
        key = _read_key()
        kept = [
            part
            for part in PurePosixPath(entry.path).parent.parts
            if part.casefold() in self._folders_to_keep
        ]
        folder = start + "".join(f"{part}/" for part in kept)
        try:
            header = _read_header(entry.file, *describe(entry.file))
            frames = select_frames(self._dicom.frames, header.frames)
            if header.sop_instance_uid in found.instances:
                raise UnusableImageError(
                    "another DICOM file has the same SOPInstanceUID: this is a copy of it"
                )
        except (UnusableImageError, OSError) as error:
            reason = f"it cannot be read: {error.strerror}" if isinstance(error, OSError) else error
            path = f"{folder}{_pseudonymise(key, entry.path)}.dcm"
            found.unusable[path] = str(reason)
            found.originals[path] = start + entry.path
            return
        found.instances.add(header.sop_instance_uid)
        name = folder + _pseudonymise(key, header.sop_instance_uid)
        for frame in frames:
            path = f"{name}_{frame:04d}.png" if header.frames > 1 else f"{name}.png"
            found.readers[path] = partial(_read_frame, entry.file, frame, self._dicom)
            found.attributes[path] = _list_attributes(header, key, frame)
            found.originals[path] = start + entry.path


# Files


@dataclass(frozen=True)
class _Found:
    """What RawFiles holds, as it is collected; and which DICOM instances are there."""

    readers: dict[str, ReadBytes] = field(default_factory=dict)
    unusable: dict[str, str] = field(default_factory=dict)
    attributes: dict[str, dict[str, str]] = field(default_factory=dict)
    originals: dict[str, str] = field(default_factory=dict)
    instances: set[str] = field(default_factory=set)

    def count(self) -> int:
        return len(self.readers) + len(self.unusable)

    def as_raw_files(self) -> RawFiles:
        return RawFiles(
            dict(sorted(self.readers.items())),
            dict(sorted(self.unusable.items())),
            dict(sorted(self.attributes.items())),
            dict(sorted(self.originals.items())),
        )


class _Entry(NamedTuple):
    """Something in a folder: its path from the root, `/`-separated; why it is no file, or ""."""

    path: str
    file: Place
    problem: str = ""
    length: int | None = None


def _find_folder(project_root: str, folder: str) -> Place:
    place = find_place(folder)
    return Path(project_root) / place.expanduser() if isinstance(place, Path) else place


def _measure_length(entry: _Entry) -> int:
    """Return the bytes of a file; 0 where there is none to read."""
    if entry.length is not None:
        return entry.length
    try:
        return 0 if entry.problem else int(entry.file.stat().st_size)
    except OSError:
        return 0


def _find_folder_problem(folder: Place) -> str:
    """Return why a folder cannot be listed, else ""."""
    try:
        if not isinstance(folder, Path):
            folder.fs.ls(folder.path)
            return ""
        os.listdir(folder)
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return f"unreadable: {error.strerror or error}"
    return ""


def _list_objects(root: "UPath") -> Iterator[_Entry]:
    """Yield what lies below a folder of object storage."""
    for path, about in root.fs.find(root.path, detail=True).items():
        relative = path[len(root.path) :].lstrip("/")
        parts = relative.split("/")
        if not any(own.startswith(".") or own.casefold() in _LEFT_BEHIND for own in parts):
            yield _Entry(relative, root / relative, "", int(about["size"]))


def _walk(root: Path) -> Iterator[_Entry]:
    """Yield what lies below a folder, links followed; nothing is opened."""
    pending = [(root, "", frozenset([os.path.realpath(root)]))]
    while pending:
        folder, start, around = pending.pop()
        for name in os.listdir(folder):
            if name.startswith(".") or name.casefold() in _LEFT_BEHIND:
                continue
            file = folder / name
            printable = os.fsencode(name).decode(errors="backslashreplace")
            path = start + printable
            problem = _find_problem(file) if printable == name else NOT_UTF_8
            if problem or not file.is_dir():
                yield _Entry(path, file, problem)
            elif problem := _find_folder_problem(file):
                yield _Entry(f"{path}/", file, f"a folder that is {problem}")
            elif (real := os.path.realpath(file)) in around:
                yield _Entry(path, file, "a link to a folder that it lies in")
            else:
                pending.append((file, f"{path}/", around | {real}))


def _find_problem(file: Path) -> str:
    """Return why something is neither file nor folder, else ""."""
    try:
        mode = file.stat().st_mode
    except FileNotFoundError:
        return "a link to nothing"
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    return next((f"{kind}, not a file" for test, kind in _NO_FILE.items() if test(mode)), "")


# DICOM


class _DicomReading(NamedTuple):
    """How DICOM files are read: see DicomSettings and `ingestion.max_pixels`."""

    frames: str | int = "middle"
    crop_to_region: bool = True
    max_pixels: int = MAX_PIXELS


def _is_dicom_file(file: Place) -> bool:
    suffix = file.suffix.lower()
    if suffix in DICOM_SUFFIXES:
        return True  # its name may be a patient's, even if it is no DICOM file
    if suffix in _KNOWN_SUFFIXES:
        return False
    with file.open("rb") as opened:
        return is_dicom(opened.read(START_LENGTH))


def _read_key() -> bytes:
    # From the environment alone: parameters are logged.
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not key:
        raise BadInputError(
            f"there are DICOM files, but {KEY_VARIABLE} is not set: it takes the place of names "
            f"and numbers of patients. {HOW_TO_MAKE_A_KEY}"
        )
    return key.encode()


def _pseudonymise(key: bytes, text: str) -> str:
    """Return 12 hex digits in place of a text: HMAC-SHA256, which needs the key to be repeated."""
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()[:12]


@lru_cache(maxsize=100_000)
def _read_header(file: Place, mtime_ns: int, size: int) -> DicomHeader:
    """Return the header of a file; once a process, unless the file changes."""
    with file.open("rb") as opened:
        return read_header(opened)


def _list_attributes(header: DicomHeader, key: bytes, frame: int) -> dict[str, str]:
    attributes = {
        "patient": _pseudonymise(key, header.patient_id) if header.patient_id else "",
        "device": header.device,
        "age": header.age,
        "view": header.view,
        "pixel_spacing_mm": header.pixel_spacing_mm,
        "frame": str(frame),
    }
    return {name: value for name, value in attributes.items() if value}


def _read_frame(file: Place, frame: int, reading: _DicomReading) -> bytes:
    """Return a frame as PNG; raises UnusableImageError where it cannot be decoded."""
    with file.open("rb") as opened:
        pixels = decode_frame(opened, frame, reading.crop_to_region, reading.max_pixels)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
