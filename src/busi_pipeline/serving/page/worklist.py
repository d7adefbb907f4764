"""A folder of images that wait for a reader."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from natsort import natsorted, ns

from busi_pipeline.errors import BadInputError
from busi_pipeline.imaging.decoding import UnusableImageError
from busi_pipeline.imaging.dicom import START_LENGTH, is_dicom
from busi_pipeline.layouts import IMAGE_SUFFIXES


class Item(NamedTuple):
    """Attributes: `key` in addresses; `name` within the folder; `path`.

    A file that was written anew has another key: its name can be the next patient's.
    """

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

        DICOM files need no suffix. Links, hidden files and what cannot be read are left out.
        """
        return natsorted(self._find_all(), key=lambda item: item.name, alg=ns.IGNORECASE)

    def find(self, key: str) -> Item | None:
        """Return an image by its key; None where it is not there (any more)."""
        return next((item for item in self._find_all() if item.key == key), None)

    def _find_all(self) -> Iterator[Item]:
        for folder, folders, files in os.walk(self._folder):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for file in files:
                path = Path(folder, file)
                if file.startswith(".") or not _is_image(path):
                    continue
                name = path.relative_to(self._folder).as_posix()
                try:
                    seen = path.lstat()
                except OSError:  # it is gone
                    continue
                described = f"{seen.st_mtime_ns} {seen.st_size} {name}"
                yield Item(hashlib.sha256(described.encode()).hexdigest()[:24], name, path)


def _is_image(path: Path) -> bool:
    try:
        if path.is_symlink() or not path.is_file():
            return False
        if path.suffix.lower() in IMAGE_SUFFIXES:
            return True
        with path.open("rb") as file:
            return is_dicom(file.read(START_LENGTH))
    except OSError:
        return False


def read_item(item: Item, most: int) -> bytes:
    """Return the content of an image; raises UnusableImageError, one line.

    Args:
        item: of the worklist.
        most: bytes that it may have.
    """
    try:
        file = os.open(item.path, os.O_RDONLY | os.O_NOFOLLOW)
        with os.fdopen(file, "rb") as opened:
            content = opened.read(most + 1)
    except OSError as error:
        raise UnusableImageError(f"it cannot be read: {error.strerror or error}") from None
    if len(content) > most:
        raise UnusableImageError(f"it has more than {most} bytes")
    return content
