"""BrEaST (Pawłowska et al. 2024, Scientific Data)."""

import re
from collections.abc import Collection
from pathlib import PurePosixPath

import pandas as pd

from busi_pipeline.errors import BadInputError
from busi_pipeline.imaging.raw_files import RawFiles

from .base import Layout, ListedImage, Listing
from .tables import drop_unknown, list_rows, read_table

_IMAGE = re.compile(r"case\d+\.\w+", re.IGNORECASE)
_COLUMNS = ("CaseID", "Image_filename", "Mask_tumor_filename", "Classification")
_OPTIONAL = ("Mask_other_filename", "Age", "Tissue_composition", "BIRADS", "Diagnosis")


class Breast(Layout):
    """`case001.png`, `case001_tumor.png`, `case001_other1.png`, and a workbook that lists them.

    The pictures lie beside the workbook, or in a folder there. Masks of other things than the
    tumour are known and not used.
    """

    name = "breast"
    looks_like = "case001.png, case001_tumor.png and so on, and an .xlsx file that lists them"

    @classmethod
    def recognises(cls, paths: Collection[str], labels: Collection[str]) -> bool:
        """See Layout."""
        return bool(_list_workbooks(paths)) and _find_folder(paths) is not None

    @classmethod
    def read(cls, files: RawFiles, labels: Collection[str]) -> Listing:
        """See Layout."""
        path, table = _read_workbook(files)
        folder = _find_folder(files) or ""
        rows = table.to_dict("records")
        others = {
            f"{folder}{name}": ""
            for row in rows
            for name in re.split(r"[;,&\s]+", drop_unknown(row["Mask_other_filename"]))
        }
        return list_rows(
            files,
            path,
            (
                ListedImage(
                    path=folder + row["Image_filename"],
                    label=row["Classification"],
                    patient=row["CaseID"],
                    masks=(folder + name,)
                    if (name := drop_unknown(row["Mask_tumor_filename"]))
                    else (),
                    attributes={
                        "age": row["Age"],
                        "density": row["Tissue_composition"],
                        "birads": row["BIRADS"],
                        "histology": row["Diagnosis"],
                    },
                )
                for row in rows
            ),
            {name: "" for name in files if name in others},
        )


def _list_workbooks(paths: Collection[str]) -> list[str]:
    """Return the workbooks at the top, without what Excel leaves of an open one (`~$x.xlsx`)."""
    names = (path for path in paths if "/" not in path and path.lower().endswith(".xlsx"))
    return sorted(name for name in names if not name.startswith("~$"))


def _find_folder(paths: Collection[str]) -> str | None:
    """Return the folder of the images, with `/` at its end; "" for the top, None without images."""
    found = min(
        (path for path in paths if _IMAGE.fullmatch(PurePosixPath(path).name)), default=None
    )
    return None if found is None else found[: len(found) - len(PurePosixPath(found).name)]


def _read_workbook(files: RawFiles) -> tuple[str, pd.DataFrame]:
    """Return the first workbook that has the columns; raises BadInputError where none has."""
    refused = BadInputError("there is no .xlsx file that lists the images.")
    for path in _list_workbooks(files):
        try:
            return path, read_table(files, path, _COLUMNS, _OPTIONAL)
        except BadInputError as error:
            refused = error
    raise refused
