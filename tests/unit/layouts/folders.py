"""Small folders of each layout, and what is to be read of them."""

import io
from collections.abc import Callable
from typing import NamedTuple

import pandas as pd

from busi_pipeline.imaging.raw_files import RawFiles
from tests.factories import as_raw_images, make_mask, make_png

LABELS = ("benign", "malignant", "normal")


class Folder(NamedTuple):
    """What a layout is tested with.

    Attributes:
        files: {path: bytes}.
        table: that lists them, or that names patients.
        images: {path: (label, patient, masks)}.
        attributes: of the first image.
    """

    files: dict[str, bytes]
    table: str
    images: dict[str, tuple[str, str, tuple[str, ...]]]
    attributes: dict[str, str]

    def replace_table(self, content: bytes) -> RawFiles:
        """Return the files with another table."""
        return as_raw_files(self.files | {self.table: content})


def as_raw_files(files: dict[str, bytes]) -> RawFiles:
    """Return {path: bytes} as a site's files."""
    return RawFiles(as_raw_images(files))


def _make_class_folders() -> Folder:
    files = {
        "benign/b (1).png": make_png(1),
        "benign/b (1)_mask.png": make_mask(),
        "benign/b (1)_mask_1.png": make_mask(),
        "benign/b (10).png": make_png(2),
        "Malignant/m 1.PNG": make_png(3),
        "Malignant/masks/M 1.png": make_mask(),
        "groups.csv": b"image_id,group\nbenign/b (1),p1\nmalignant/m 1,p2\n",
    }
    return Folder(
        files,
        "groups.csv",
        {
            "benign/b (1).png": (
                "benign",
                "p1",
                ("benign/b (1)_mask.png", "benign/b (1)_mask_1.png"),
            ),
            "benign/b (10).png": ("benign", "", ()),
            "Malignant/m 1.PNG": ("Malignant", "p2", ("Malignant/masks/M 1.png",)),
        },
        {},
    )


def _make_bus_bra() -> Folder:
    table = (
        "ID,Case,Histology,Pathology,BIRADS,Device,Width,Height,Side,BBOX\n"
        'bus_0001-l,1,fibroadenoma,benign,3,GE Logiq 7,45,40,left,"[1,2,3,4]"\n'
        'bus_0001-r,1,NA,malignant,5,GE Logiq 7,45,40,right,"[5,6,7,8]"\n'
    )
    files = {
        "Images/bus_0001-l.png": make_png(1),
        "Images/bus_0001-r.png": make_png(2),
        "Masks/mask_0001-l.png": make_mask(),
        "Masks/mask_0001-r.png": make_mask(),
        "bus_data.csv": table.encode(),
    }
    return Folder(
        files,
        "bus_data.csv",
        {
            "Images/bus_0001-l.png": ("benign", "1", ("Masks/mask_0001-l.png",)),
            "Images/bus_0001-r.png": ("malignant", "1", ("Masks/mask_0001-r.png",)),
        },
        {"device": "GE Logiq 7", "birads": "3", "histology": "fibroadenoma", "view": "left"},
    )


def make_workbook(rows: list[dict[str, object]]) -> bytes:
    """Return an XLSX file of these rows."""
    buffer = io.BytesIO()
    pd.DataFrame(rows).to_excel(buffer, index=False)
    return buffer.getvalue()


def _make_breast() -> Folder:
    first = {
        "CaseID": 1,
        "Image_filename": "case001.png",
        "Mask_tumor_filename": "case001_tumor.png",
        "Mask_other_filename": "case001_other1.png",
        "Pixel_size": 0.007,
        "Age": 57,
        "Tissue_composition": "heterogeneous",
        "BIRADS": "4a",
        "Diagnosis": "Fibroadenoma",
        "Classification": "benign",
    }
    second = first | {
        "CaseID": 2,
        "Image_filename": "case002.png",
        "Mask_tumor_filename": None,
        "Mask_other_filename": None,
        "Age": "not available",
        "Classification": "normal",
    }
    files = {
        "case001.png": make_png(1),
        "case001_tumor.png": make_mask(),
        "case001_other1.png": make_mask(),
        "case002.png": make_png(2),
        "clinical data.xlsx": make_workbook([first, second]),
    }
    return Folder(
        files,
        "clinical data.xlsx",
        {
            "case001.png": ("benign", "1", ("case001_tumor.png",)),
            "case002.png": ("normal", "2", ()),
        },
        {"age": "57", "density": "heterogeneous", "birads": "4a", "histology": "Fibroadenoma"},
    )


def _make_bus_uclm() -> Folder:
    table = (
        "\ufeffImage;Label;Doppler;Marks;Combined\n"
        "ALWI_000.png;Benign;Yes;yes;No\nALWI_001;Malignant;No;Yes;No\nBETA_000;Normal;No;No;Yes\n"
    )
    files = {
        "images/ALWI_000.png": make_png(1),
        "images/ALWI_001.png": make_png(2),
        "images/BETA_000.png": make_png(3),
        "masks/ALWI_000.png": make_mask(colour=(0, 255, 0)),
        "masks/ALWI_001.png": make_mask(colour=(255, 0, 0)),
        "masks/BETA_000.png": make_mask(colour=(0, 0, 0)),
        "INFO.csv": table.encode(),
    }
    return Folder(
        files,
        "INFO.csv",
        {
            "images/ALWI_000.png": ("Benign", "ALWI", ("masks/ALWI_000.png",)),
            "images/ALWI_001.png": ("Malignant", "ALWI", ("masks/ALWI_001.png",)),
            "images/BETA_000.png": ("Normal", "BETA", ("masks/BETA_000.png",)),
        },
        {"overlay": "doppler, marks"},
    )


def _make_table() -> Folder:
    table = (
        "Image,Label,Patient,Device,Mask,Box,Age,BIRADS,Density,Histology,View,Overlay,Ward\n"
        'scans/a.png,benign,007,GE,scans/a_1.png;scans/a_2.png,"[1,2,3,4]",57,3,c,cyst,left,marks,5\n'
        "scans\\b.png,malignant,None,,,,,,,,,,6\n"
    )
    files = {
        "scans/a.png": make_png(1),
        "scans/a_1.png": make_mask(),
        "scans/a_2.png": make_mask(),
        "scans/b.png": make_png(2),
        "images.csv": table.encode(),
    }
    return Folder(
        files,
        "images.csv",
        {
            "scans/a.png": ("benign", "007", ("scans/a_1.png", "scans/a_2.png")),
            "scans/b.png": ("malignant", "", ()),
        },
        {
            "device": "GE",
            "age": "57",
            "birads": "3",
            "density": "c",
            "histology": "cyst",
            "view": "left",
            "overlay": "marks",
        },
    )


FOLDERS: dict[str, Callable[[], Folder]] = {
    "class_folders": _make_class_folders,
    "bus_bra": _make_bus_bra,
    "breast": _make_breast,
    "bus_uclm": _make_bus_uclm,
    "table": _make_table,
}
