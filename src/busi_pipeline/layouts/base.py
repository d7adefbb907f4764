"""What a layout is: it knows how one kind of folder names its images, labels, masks, patients."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import ClassVar, NamedTuple

from busi_pipeline.imaging.raw_files import RawFiles

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")

# What a table may say of an image beside its label, its patient, its masks and its box. Each is a
# column of the manifest.
ATTRIBUTES = ("device", "birads", "age", "density", "histology", "view", "overlay")

NOT_AN_IMAGE = f"not an image file; allowed: {list(IMAGE_SUFFIXES)}"
MASK_WITHOUT_IMAGE = "mask without image"
TWO_VALUED = "a two-valued picture, so a mask, and of no image"


class Box(NamedTuple):
    """Around a lesion, in pixels of the stored image; `x` and `y` are the upper left corner."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class ListedImage:
    """One image as its site lists it.

    Attributes:
        path: of the image, a key of the files.
        label: as the site writes it; `ingestion.class_names` maps it to a class.
        patient: "" where the site does not say.
        masks: paths of its lesion masks.
        box: around the lesion, where the site gives one.
        attributes: {name: text}, names of ATTRIBUTES; what is not known is left out.
        site: of the image, where a table lists several; else "" (the site that is read).
    """

    path: str
    label: str
    patient: str = ""
    masks: tuple[str, ...] = ()
    box: Box | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    site: str = ""


class Listing(NamedTuple):
    """What a folder holds.

    Attributes:
        images: those that are to be decoded.
        unused: [(path, reason)] of every other file; the reason is "" where nothing is wrong with
            it. A listed file that is not there has a row as well.
    """

    images: list[ListedImage]
    unused: list[tuple[str, str]]


class Layout(ABC):
    """One kind of folder. A new one is a subclass, and a line in `layouts.LAYOUTS`.

    Attributes:
        name: in `ingestion.layout`.
        looks_like: one sentence for messages: what lies where.
    """

    name: ClassVar[str]
    looks_like: ClassVar[str]

    @classmethod
    @abstractmethod
    def recognises(cls, paths: Collection[str], labels: Collection[str]) -> bool:
        """Return whether a folder of these files, after `strip_wrappers`, has this layout.

        Args:
            paths: relative to the folder.
            labels: classes and the keys of `ingestion.class_names`.
        """

    @classmethod
    @abstractmethod
    def read(cls, files: RawFiles, labels: Collection[str]) -> Listing:
        """List the images of a folder.

        Args:
            files: of the folder, by their paths from it.
            labels: classes and the keys of `ingestion.class_names`.

        Raises BadInputError, one line, where a table cannot be read or lacks a column.
        """

    @classmethod
    def separate_masks(
        cls, images: Sequence[ListedImage], two_valued: Collection[str], stop: bool
    ) -> Listing:
        """Take out listed pictures that are no images, now that their pixels are known.

        Args:
            images: as `read` lists them.
            two_valued: paths of those whose pixels are two-valued: masks, whatever they are named.
            stop: whether a picture that may be a drawing on another one stops the run.

        Raises BadInputError, one line, where it does.
        """
        return Listing(
            [image for image in images if image.path not in two_valued],
            [(image.path, TWO_VALUED) for image in images if image.path in two_valued],
        )


def is_picture(path: str) -> bool:
    """Return whether the name is that of a picture."""
    return PurePosixPath(path).suffix.lower() in IMAGE_SUFFIXES


def find_at_top(paths: Iterable[str], name: str) -> str | None:
    """Return the file of this name beside nothing but folders, whatever its case; None without."""
    return next((path for path in paths if path.casefold() == name.casefold()), None)


def has_folder(paths: Iterable[str], name: str) -> bool:
    """Return whether files lie in a folder of this name, whatever its case."""
    return any(path.casefold().startswith(f"{name.casefold()}/") for path in paths)
