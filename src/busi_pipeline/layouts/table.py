"""Any folder of images with a table that lists them: the layout for data of one's own."""

import logging
import re
from collections.abc import Collection
from pathlib import PurePosixPath

from busi_pipeline.errors import BadInputError
from busi_pipeline.imaging.raw_files import RawFiles

from .base import ATTRIBUTES, Layout, ListedImage, Listing, find_at_top
from .tables import list_rows, parse_box, read_table

logger = logging.getLogger(__name__)

_TABLE = "images.csv"
_OPTIONAL = ("patient", "site", "mask", "box", *ATTRIBUTES)


class Table(Layout):
    """`images.csv` names each image by its path in the folder, its label and what is known of it.

    Several masks of one image stand in one cell, with `;` between them. An image may be a DICOM
    file: then its row holds for all of its frames that are read.
    """

    name = "table"
    looks_like = (
        "images.csv with the columns image (its path in the folder) and label, and where known "
        f"{', '.join(_OPTIONAL)}"
    )

    @classmethod
    def recognises(cls, paths: Collection[str], labels: Collection[str]) -> bool:
        """See Layout."""
        return find_at_top(paths, _TABLE) is not None

    @classmethod
    def read(cls, files: RawFiles, labels: Collection[str]) -> Listing:
        """See Layout. Raises BadInputError for a path that leads out of the folder, too."""
        path = find_at_top(files, _TABLE) or _TABLE
        table = read_table(files, path, ("image", "label"), _OPTIONAL)
        ignored = [str(name) for name in table if name not in ("image", "label", *_OPTIONAL)]
        if ignored:
            logger.info("%s: columns that are not used: %s", path, ", ".join(ignored))
        return list_rows(
            files,
            path,
            (
                ListedImage(
                    path=_check_path(row["image"], path),
                    label=row["label"],
                    patient=row["patient"],
                    masks=tuple(_check_path(name.strip(), path) for name in row["mask"].split(";")),
                    box=parse_box(row["box"], path),
                    attributes={name: row[name] for name in ATTRIBUTES},
                    site=row["site"],
                )
                for row in table.to_dict("records")
            ),
        )


def _check_path(name: str, table: str) -> str:
    slashed = name.replace("\\", "/")
    is_absolute = slashed.startswith("/") or re.match("[A-Za-z]:", slashed)
    if is_absolute or ".." in PurePosixPath(slashed).parts:
        raise BadInputError(
            f"{table} names {name!r}: paths must be relative to the folder of the table, and "
            "within it."
        )
    return name
