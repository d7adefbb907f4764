"""A folder a class, as BUSI has it (Al-Dhabyani et al. 2020, Data in Brief 28:104863)."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from busi_pipeline.errors import BadInputError
from busi_pipeline.imaging.masks import (
    PictureName,
    find_nearest_name,
    find_owners,
    is_numbering,
    name_picture,
)
from busi_pipeline.imaging.raw_files import RawFiles

from .base import (
    MASK_WITHOUT_IMAGE,
    NOT_AN_IMAGE,
    TWO_VALUED,
    Layout,
    ListedImage,
    Listing,
    find_at_top,
    is_picture,
)
from .labels import normalise_label
from .tables import FileIndex, drop_unknown, read_table

_GROUPS = "groups.csv"


class ClassFolders(Layout):
    """`benign/x.png` with `benign/x_mask.png`; `groups.csv` beside the folders names patients.

    Nothing lists the images, so what is an image and what is a mask shows in names and in pixels.
    """

    name = "class_folders"
    looks_like = "a folder a class, named as in `classes` or `ingestion.class_names`"

    @classmethod
    def recognises(cls, paths: Collection[str], labels: Collection[str]) -> bool:
        """See Layout."""
        known = {normalise_label(label) for label in labels}
        return any(normalise_label(_find_label(path)) in known for path in paths)

    @classmethod
    def read(cls, files: RawFiles, labels: Collection[str]) -> Listing:
        """See Layout. The label of an image is the name of its folder, even if it is no class."""
        groups = find_at_top(files, _GROUPS)
        images, masks, unused = [], [], []
        for path in files:
            if path == groups:
                continue
            if not _find_label(path):
                unused.append((path, f"not in a class folder; class folders: {list(labels)}"))
            elif not is_picture(path):
                unused.append((path, NOT_AN_IMAGE))
            elif find_owners(path):
                masks.append(path)
            else:
                images.append(path)
        owned, ownerless = _find_owned(masks, images)
        unused += [(path, MASK_WITHOUT_IMAGE) for path in ownerless]
        patients: dict[str, str] = {}
        if groups is not None:
            patients, absent = _read_patients(files, groups)
            unused += absent.items()
        listed = [
            ListedImage(path, _find_label(path), patients.get(path, ""), tuple(owned[path]))
            for path in images
        ]
        return Listing(listed, unused)

    @classmethod
    def separate_masks(
        cls, images: Sequence[ListedImage], two_valued: Collection[str], stop: bool
    ) -> Listing:
        """See Layout. A two-valued picture becomes the mask of the image whose name it extends."""
        kept = [image for image in images if image.path not in two_valued]
        paths = defaultdict(list)
        for image in kept:
            paths[name_picture(image.path)].append(image.path)
        if stop:
            _refuse_drawings(paths)
        owned: defaultdict[str, list[str]] = defaultdict(list)
        unused = []
        for mask in (image.path for image in images if image.path in two_valued):
            owner = find_nearest_name(name_picture(mask), paths)
            for path in paths[owner] if owner else ():
                owned[path].append(mask)
            if owner is None:
                unused.append((mask, TWO_VALUED))
        joined = [replace(image, masks=(*image.masks, *owned[image.path])) for image in kept]
        return Listing(joined, unused)


def _find_label(path: str) -> str:
    """Return the folder at the top; "" where there is none."""
    first, *below = PurePosixPath(path).parts
    return first if below else ""


def _find_owned(
    masks: Iterable[str], images: Iterable[str]
) -> tuple[defaultdict[str, list[str]], list[str]]:
    """Return {image: its masks}, by names alone, and the masks of no image."""
    named: defaultdict[PictureName, list[str]] = defaultdict(list)
    for path in images:
        named[name_picture(path)].append(path)
    owned: defaultdict[str, list[str]] = defaultdict(list)
    ownerless = []
    for mask in masks:
        owner = next((name for name in find_owners(mask) if name in named), None)
        for path in named[owner] if owner else ():
            owned[path].append(mask)
        if owner is None:
            ownerless.append(mask)
    return owned, ownerless


def _refuse_drawings(paths: Mapping[PictureName, list[str]]) -> None:
    """Raise BadInputError where the name of a picture extends another one's by more than a number.

    Args:
        paths: of pictures that are not two-valued, by their names.
    """
    extended = {}
    for name, of_name in paths.items():
        for end in (i for i, character in enumerate(name.stem) if not character.isalnum()):
            shorter = PictureName(name.folder, name.stem[:end])
            if shorter in paths and not is_numbering(name.stem[end:]):
                extended[of_name[0]] = paths[shorter][0]
    if extended:
        drawing, image = next(iter(extended.items()))
        raise BadInputError(
            f"{drawing} may be a drawing on {image}, or its mask, and no image of its own "
            f"({len(extended)} such files). Take such files out of the folder, name masks as in "
            "x_mask.png, or, where they are images, set ingestion.extended_names: image."
        )


def _read_patients(files: RawFiles, groups: str) -> tuple[dict[str, str], dict[str, str]]:
    """Return {path: patient} of what `groups.csv` names, and {path: reason} of what is not there.

    Raises BadInputError where columns are missing, a file has two groups, or no name is there.
    """
    table = read_table(files, groups, ("group",), ("path", "image_id"))
    index = FileIndex(files)
    patients: dict[str, str] = {}
    absent: dict[str, str] = {}
    for number, (path, image_id, group) in enumerate(
        table[["path", "image_id", "group"]].itertuples(index=False), 1
    ):
        found = index.find(path or image_id)
        patient = drop_unknown(group)
        for file in found:
            if patients.setdefault(file, patient) != patient:
                raise BadInputError(
                    f"{groups} puts {file} into two groups, {patients[file]!r} and {patient!r}: "
                    "leave one."
                )
        if not found:
            absent |= index.describe_absent(path or image_id, groups, number)
    if absent and not patients:
        raise BadInputError(
            f"{groups} names no file that is there ({next(iter(absent))!r}, for one): "
            "its column image_id (or path) must hold names such as "
            f"{next(filter(is_picture, files), 'benign/scan_1.png')!r}."
        )
    return patients, absent
