"""A folder of images that wait for a reader."""

import hashlib
from pathlib import Path
from typing import NamedTuple

from natsort import natsorted, ns

from busi_pipeline.errors import BadInputError
from busi_pipeline.imaging.decoding import UnusableImageError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".dcm")


class Item(NamedTuple):
    """Attributes: `key` in addresses; `name` within the folder; `path`."""

    key: str
    name: str
    path: Path


class Worklist:
    """The folder; what is in it is looked up at each request."""

    def __init__(self, folder: Path):
        """Take the folder; raises BadInputError where there is none."""
        if not folder.is_dir():
            raise BadInputError(f"--worklist {folder} is no folder.")
        self._folder = folder.resolve()

    def list_items(self) -> list[Item]:
        """Return the images in the folder and in those inside it, in the order of their names.

        A link that leads out of the folder is left out.
        """
        items = []
        for path in self._folder.rglob("*"):
            name = path.relative_to(self._folder).as_posix()
            if path.suffix.lower() not in SUFFIXES or name.startswith(".") or "/." in name:
                continue
            real = path.resolve()
            if real.is_file() and real.is_relative_to(self._folder):
                items.append(Item(hashlib.sha256(name.encode()).hexdigest()[:24], name, real))
        return natsorted(items, key=lambda item: item.name, alg=ns.IGNORECASE)

    def find(self, key: str) -> Item | None:
        """Return an image by its key; None where it is not there (any more)."""
        return next((item for item in self.list_items() if item.key == key), None)


def read_item(item: Item, most: int) -> bytes:
    """Return the content of an image; raises UnusableImageError, one line."""
    try:
        if item.path.stat().st_size > most:
            raise UnusableImageError(f"it has more than {most} bytes")
        return item.path.read_bytes()
    except OSError as error:
        raise UnusableImageError(f"it cannot be read: {error.strerror or error}") from None
