"""The lesion masks beside the images: `<image>_mask.png`, `<image>_mask_1.png` and so on."""

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import PurePosixPath

import numpy as np
from PIL import Image

from busi_pipeline.imaging.decoding import decode_image

_MASK = re.compile(r"^(?P<stem>.+)_mask(_\d+)?$", re.IGNORECASE)


def find_owner(path: str) -> tuple[str, str] | None:
    """Return folder and stem of the image this file is a mask of; None where it is no mask."""
    pure = PurePosixPath(path)
    match = _MASK.match(pure.stem)
    return (str(pure.parent), match["stem"]) if match else None


def list_masks(paths: Iterable[str]) -> dict[str, list[str]]:
    """Return {image_id: its masks}, of images that have any."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        if owner := find_owner(path):
            found["/".join(owner)].append(path)
    return dict(found)


def hash_masks(raw_images: Mapping[str, Callable[[], bytes]], paths: Iterable[str]) -> str:
    """Return the SHA-256 over the files."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(hashlib.sha256(raw_images[path]()).digest())
    return digest.hexdigest()


def load_mask(
    raw_images: Mapping[str, Callable[[], bytes]], paths: Iterable[str], size: int
) -> np.ndarray:
    """Return uint8 (size, size), 1 where any of the masks is set; stretched as the images are."""
    union = np.zeros((size, size), dtype=np.uint8)
    for path in paths:
        grey = Image.fromarray(decode_image(raw_images[path]()).pixels).convert("L")
        small = grey.resize((size, size), Image.Resampling.NEAREST)
        union |= (np.asarray(small) > 127).astype(np.uint8)
    return union
