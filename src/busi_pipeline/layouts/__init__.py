"""Readers of folders: how one kind of data set names its images, labels, masks and patients."""

from .base import (
    ATTRIBUTES,
    IMAGE_SUFFIXES,
    MASK_WITHOUT_IMAGE,
    TWO_VALUED,
    Box,
    Layout,
    ListedImage,
    Listing,
    is_picture,
)
from .breast import Breast
from .bus_bra import BusBra
from .bus_uclm import BusUclm
from .class_folders import ClassFolders
from .labels import match_label, normalise_label
from .recognition import Recognised, go_below, recognise_layout
from .table import Table

# In the order in which they are tried; class folders, which ask for least, come last.
LAYOUTS: dict[str, type[Layout]] = {
    layout.name: layout for layout in (BusBra, Breast, BusUclm, Table, ClassFolders)
}

__all__ = [
    "ATTRIBUTES",
    "IMAGE_SUFFIXES",
    "LAYOUTS",
    "MASK_WITHOUT_IMAGE",
    "TWO_VALUED",
    "Box",
    "Layout",
    "ListedImage",
    "Listing",
    "Recognised",
    "go_below",
    "is_picture",
    "match_label",
    "normalise_label",
    "recognise_layout",
]
