"""Tables of a site: read as text, and held to the files that they name."""

import csv
import io
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

import pandas as pd

from busi_pipeline.errors import BadInputError
from busi_pipeline.imaging.decoding import describe_error
from busi_pipeline.imaging.dicom import DICOM_SUFFIXES
from busi_pipeline.imaging.raw_files import RawFiles

from .base import NOT_AN_IMAGE, Box, ListedImage, Listing, is_picture

_UNKNOWN = frozenset(
    ("", "na", "n/a", "none", "null", "nan", "-", "not available", "not applicable")
)
_SEPARATORS = ",;\t"


def drop_unknown(text: str) -> str:
    """Return a cell without blanks around it; "" where it says that nothing is known."""
    text = text.strip()
    return "" if text.casefold() in _UNKNOWN else text


def read_table(
    files: RawFiles, path: str, required: Sequence[str], optional: Sequence[str] = ()
) -> pd.DataFrame:
    """Return a CSV or XLSX file as text: one row a line that is not empty.

    Args:
        files: of the folder.
        path: of the table.
        required, optional: columns, by the names that they get; upper and lower case are one.
            Columns of other names keep theirs.

    Raises BadInputError where the file is empty, of another encoding than UTF-8 or UTF-16, no
    table, or without a required column.
    """
    content = _read_bytes(files, path)
    is_workbook = PurePosixPath(path).suffix.lower() == ".xlsx"
    header, *rows = _read_workbook(content, path) if is_workbook else _read_lines(content, path)
    canonical = {name.casefold(): name for name in (*required, *optional)}
    names = [canonical.get(name.casefold(), name) for name in header]
    missing = [name for name in required if name not in names]
    if missing:
        raise BadInputError(
            f"{path} lacks the columns {', '.join(missing)}; it has {', '.join(header)}."
        )
    doubled = [name for name in canonical.values() if names.count(name) > 1]
    if doubled:
        raise BadInputError(f"{path} has the column {doubled[0]} more than once.")
    for number, row in enumerate(rows, 1):
        if any(row[len(names) :]):
            raise BadInputError(
                f"{path} has {len(names)} columns, but row {number} has {len(row)} cells: quote "
                "texts that hold the separator."
            )
    cells = [row + [""] * (len(names) - len(row)) for row in rows]
    columns = {name: [row[i] for row in cells] for i, name in enumerate(names) if name}
    columns |= {name: [""] * len(rows) for name in optional if name not in names}
    return pd.DataFrame(columns, dtype=str)


def _read_bytes(files: RawFiles, path: str) -> bytes:
    try:
        content = files[path]()
    except Exception as error:  # a dataset wraps what the file system says
        raise BadInputError(f"{path} cannot be read: {describe_error(error)}.") from None
    if not content.strip():
        raise BadInputError(f"{path} is empty: fill it, or take it away.")
    return content


def _read_lines(content: bytes, path: str) -> list[list[str]]:
    is_utf16 = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        text = content.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise BadInputError(f"{path} is not UTF-8: save it as UTF-8 (in Excel: CSV UTF-8).")
    first = next((line for line in text.splitlines() if line.strip()), "")
    separator = max(_SEPARATORS, key=first.count)  # the first of them where there is none
    try:
        lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True))
    except csv.Error as error:
        raise BadInputError(f"{path} is no table: {error}.") from None
    return _drop_empty([[cell.strip() for cell in line] for line in lines], path)


def _read_workbook(content: bytes, path: str) -> list[list[str]]:
    try:
        sheet = pd.read_excel(
            io.BytesIO(content), header=None, dtype=str, keep_default_na=False, engine="openpyxl"
        )
    except Exception as error:  # openpyxl passes on what its readers of zip and XML say
        raise BadInputError(f"{path} is no Excel workbook: {describe_error(error)}.") from None
    lines = [[str(cell).strip() for cell in line] for line in sheet.to_numpy().tolist()]
    return _drop_empty(lines, path)


def _drop_empty(lines: list[list[str]], path: str) -> list[list[str]]:
    filled = [line for line in lines if any(line)]
    if not filled:
        raise BadInputError(f"{path} is empty: fill it, or take it away.")
    return filled


def parse_box(text: str, path: str) -> Box | None:
    """Return the box of a cell, `x,y,w,h` with or without brackets; None where it is not known.

    Raises BadInputError where it is anything else.
    """
    if not drop_unknown(text):
        return None
    numbers = re.split(r"[,;\s]+", text.strip().strip("[]()").strip())
    try:
        box = Box(*(round(float(number)) for number in numbers))
    except (TypeError, ValueError, OverflowError):
        box = Box(0, 0, 0, 0)
    if min(box.x, box.y) < 0 or min(box.width, box.height) < 1:
        raise BadInputError(f"{path}: a box must be x,y,width,height in pixels; got {text!r}.")
    return box


class FileIndex:
    """Finds files by what a table calls them."""

    def __init__(self, files: RawFiles):
        self._files = files
        self._unusable = {_normalise(files.originals.get(p, p)) for p in files.unusable}
        self._by_path: defaultdict[str, list[str]] = defaultdict(list)
        self._by_stem: defaultdict[str, list[str]] = defaultdict(list)
        for path in files:
            # All frames of a DICOM file go by its name.
            name = _normalise(files.originals.get(path, path))
            self._by_path[name].append(path)
            if is_picture(path):
                self._by_stem[name.removesuffix(PurePosixPath(name).suffix)].append(path)

    def find(self, name: str) -> list[str]:
        """Return the file of this name, or the frames of it; none where it is not there.

        Neither case nor suffix need be those of the file, and `\\` is as good as `/`.

        Raises BadInputError where a name without suffix is that of several files.
        """
        if name in self._files:
            return [name]
        key = _normalise(name)
        for paths in (self._by_path[key], self._by_stem[key]):
            originals = {self._files.originals.get(path, path) for path in paths}
            if len(originals) > 1:
                raise BadInputError(
                    f"{name!r} is the name of {len(originals)} files "
                    f"({', '.join(sorted(originals))}): write it with its suffix, in upper and "
                    "lower case as it is."
                )
            if paths:
                return paths
        return []

    def describe_absent(self, name: str, table: str, row: int) -> dict[str, str]:
        """Return {path: reason} of a name of the table that `find` does not find.

        It is empty where the file is there and cannot be used. The name of a DICOM file may be a
        patient's: its row stands in its place.
        """
        if _normalise(name) in self._unusable:
            return {}
        is_dicom = self._files.originals or PurePosixPath(name).suffix.lower() in DICOM_SUFFIXES
        shown = f"row {row} of {table}" if is_dicom and not is_picture(name) else name
        return {shown: f"listed in {table}, but not there"}


def _normalise(name: str) -> str:
    return str(PurePosixPath(unicodedata.normalize("NFC", name.replace("\\", "/")).casefold()))


def list_rows(
    files: RawFiles,
    table: str,
    rows: Iterable[ListedImage],
    others: Mapping[str, str] | None = None,
) -> Listing:
    """Return the images of a table with the files that they are, and the files that are left.

    Args:
        files: of the folder.
        table: its path.
        rows: images whose `path` and `masks` are names as the table has them, and whose texts may
            be words such as `NA`.
        others: {path: reason} of files that are neither images nor masks, and known.

    Raises BadInputError where two rows say different things of one image, or no image is there.
    """
    index = FileIndex(files)
    images: dict[str, ListedImage] = {}
    left = dict(others or {})
    absent: list[str] = []
    number = 0
    for number, row in enumerate(rows, 1):
        if not row.path:
            raise BadInputError(f"{table}: row {number} names no image.")
        paths = index.find(row.path)
        of_masks = {name: index.find(name) for name in row.masks if drop_unknown(name)}
        masks = tuple(path for found in of_masks.values() for path in found)
        for name, found in (of_masks | {row.path: paths}).items():
            if not found:
                absent.append(name)
                left |= index.describe_absent(name, table, number)
        known = {name: drop_unknown(text) for name, text in row.attributes.items()}
        for path in paths:
            image = replace(
                row,
                path=path,
                masks=masks,
                label=row.label.strip(),
                patient=drop_unknown(row.patient),
                site=drop_unknown(row.site),
                attributes={name: text for name, text in known.items() if text},
            )
            if images.setdefault(path, image) != image:
                raise BadInputError(
                    f"{table} has several rows of {row.path!r}, and they do not say the same: "
                    "leave one."
                )
    if absent and not images:
        raise BadInputError(
            f"{table} lists {number} images, but none of them is there ({absent[0]!r} is the "
            "first)."
        )
    used = {*images, *(mask for image in images.values() for mask in image.masks), table, *left}
    left |= {
        path: f"not listed in {table}" if is_picture(path) else NOT_AN_IMAGE
        for path in files
        if path not in used
    }
    return Listing(list(images.values()), list(left.items()))
