"""Lesion masks: how files name them, what they look like, how they are brought to a size."""

import hashlib
import json
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import PurePosixPath
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd
from PIL import Image

from busi_pipeline.imaging.decoding import UInt8Array, decode_image

MASK_FOLDERS = frozenset(
    ("mask", "masks", "segmentation", "segmentations", "annotation", "annotations")
)
_IMAGE_FOLDERS = frozenset(("image", "images"))
# `x_mask`, `x-mask`, and `x_mask_1`, `x_mask (2)`, `x_mask - Copy`: what follows is a numbering.
_SUFFIXED = re.compile(r"(?P<stem>.+)[ _.-]masks?(?P<rest>|[\W\d_].*)", re.DOTALL)
_PREFIXED = re.compile(r"masks?[ _.-](?P<stem>.+)", re.DOTALL)

# Of a picture's range of values: how far JPEG's noise takes a mask from its two values. Of 2,272
# images of BUSI and BUS-BRA none has more than 0.84 of its pixels so near. Masks have 0.98 or more:
# as they are, as grey JPEG files of quality 30 and 128 pixels a side, as red ones of quality 50 and
# their own size.
_NEAR, _NEAREST = 1 / 8, 8
_TWO_VALUED_SHARE = 0.98


class PictureName(NamedTuple):
    """By what a picture and its masks know each other; lower case, in Unicode's composed form.

    Attributes:
        folder: without folders that hold masks or images alone.
        stem: the name without suffix.
    """

    folder: str
    stem: str


def name_picture(path: str) -> PictureName:
    """Return folder and stem of a file: `Benign/Masks/A.png` is (`benign`, `a`)."""
    pure = PurePosixPath(unicodedata.normalize("NFC", path).casefold())
    alone = MASK_FOLDERS | _IMAGE_FOLDERS
    first, *below = pure.parent.parts or ("",)
    return PictureName("/".join([first, *(p for p in below if p not in alone)]), pure.stem)


def find_owners(path: str) -> list[PictureName]:
    """Return which images the name of a file makes it a mask of, the likeliest first.

    A mask ends or begins with `mask`, or lies in a folder of masks. Empty where it does not.
    """
    folder, stem = name_picture(path)
    stems = []
    suffixed, prefixed = _SUFFIXED.fullmatch(stem), _PREFIXED.fullmatch(stem)
    if suffixed and is_numbering(suffixed["rest"]):
        stems.append(suffixed["stem"])
    if prefixed:
        stems.append(prefixed["stem"])
    if is_in_mask_folder(path):
        stems.insert(0, stem)
    return [PictureName(folder, found) for found in stems]


def is_in_mask_folder(path: str) -> bool:
    """Return whether a file lies in a folder of masks, below another folder."""
    return not MASK_FOLDERS.isdisjoint(part.casefold() for part in PurePosixPath(path).parts[1:-1])


def is_numbering(text: str) -> bool:
    """Return whether what a name has more than another one only counts: ` (2)`, `_1`, ` - Copy`."""
    return not any(map(str.isalpha, text.casefold().replace("copy", "")))


def find_nearest_name(name: PictureName, others: Collection[PictureName]) -> PictureName | None:
    """Return the one of `others` that `name` is, or extends before or after a separator.

    Of several, the longest; None where two are equally long.
    """
    folder, stem = name
    gaps = [i for i, character in enumerate(stem) if not character.isalnum()]
    parts = {stem, *(stem[:i] for i in gaps), *(stem[i + 1 :] for i in gaps)}
    found = sorted((p for p in parts if PictureName(folder, p) in others), key=len, reverse=True)
    if not found or (len(found) > 1 and len(found[0]) == len(found[1])):
        return None
    return PictureName(folder, found[0])


def is_two_valued(pixels: UInt8Array) -> bool:
    """Return whether nearly all pixels of uint8 (h, w, 3) are near the lowest or highest value.

    So they are in a mask, in colour or grey, as a JPEG file, too, and in no ultrasound image. A
    pixel's value is that of its brightest channel.
    """
    red, green, blue = (pixels[..., channel] for channel in range(3))
    brightest = np.maximum(np.maximum(red, green), blue)
    lowest, highest = int(brightest.min()), int(brightest.max())
    reach = max(_NEAREST, round((highest - lowest) * _NEAR))
    near = (brightest <= lowest + reach) | (brightest >= highest - reach)
    return bool(near.mean() >= _TWO_VALUED_SHARE)


def hash_masks(raw_images: Mapping[str, Callable[[], bytes]], paths: Iterable[str]) -> str:
    """Return the SHA-256 over the files."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(hashlib.sha256(raw_images[path]()).digest())
    return digest.hexdigest()


class DrawnLesion(NamedTuple):
    """What a manifest says of where the lesion of an image was drawn.

    Attributes:
        masks: paths of its masks.
        box: x, y, width and height in pixels of the image; None where there is none.
    """

    masks: list[str]
    box: list[int] | None


def list_drawn_lesions(manifest: pd.DataFrame) -> list[DrawnLesion]:
    """Return what the columns `mask_paths` and `box` say of each image."""
    return [
        DrawnLesion(json.loads(masks), [int(number) for number in str(box).split()] or None)
        for masks, box in zip(manifest["mask_paths"], manifest["box"], strict=True)
    ]


def draw_lesion(
    raw_images: Mapping[str, Callable[[], bytes]],
    lesion: DrawnLesion,
    shape: tuple[int, int],
) -> np.ndarray | None:
    """Return uint8 (height, width) of the image, 1 where any of its masks is set.

    Where there is no mask, an ellipse fills the box. Without mask and box nobody said whether there
    is a lesion: None.

    Args:
        raw_images: {path: function that reads the bytes}.
        lesion: of the image.
        shape: height and width of the image.
    """
    if lesion.masks:
        return _join_masks(raw_images, lesion.masks, (shape[1], shape[0]))
    if lesion.box is None:
        return None
    x, y, width, height = lesion.box
    drawn = np.zeros(shape, dtype=np.uint8)
    centre, axes = (x + width // 2, y + height // 2), (width // 2, height // 2)
    return cv2.ellipse(drawn, centre, axes, 0, 0, 360, 1, -1)


def load_mask(
    raw_images: Mapping[str, Callable[[], bytes]], paths: Iterable[str], size: int
) -> np.ndarray:
    """Return uint8 (size, size), 1 where any of the masks is set; stretched as the images are.

    A pixel is set where a channel is above 127: red is as good as white. A mask of 0 and 1 alone
    is set where it is 1.
    """
    return _join_masks(raw_images, paths, (size, size))


def _join_masks(
    raw_images: Mapping[str, Callable[[], bytes]], paths: Iterable[str], size: tuple[int, int]
) -> np.ndarray:
    """Return uint8 (height, width) of `size` (width, height), 1 where any of the masks is set."""
    union = np.zeros((size[1], size[0]), dtype=np.uint8)
    for path in paths:
        brightest = decode_image(raw_images[path]()).pixels.max(axis=2)
        resized = Image.fromarray(brightest).resize(size, Image.Resampling.NEAREST)
        union |= (np.asarray(resized) > (127 if brightest.max() > 1 else 0)).astype(np.uint8)
    return union
