"""Where files lie: on this machine, or in object storage, as `s3://bucket/folder`.

Both are paths with the methods of pathlib. In object storage a file is there whole or not at all,
and nothing can be renamed, locked or mapped: what needs that works on a copy.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from busi_pipeline.errors import BadInputError

if TYPE_CHECKING:
    from upath import UPath

    Place: TypeAlias = Path | UPath
else:
    Place = Path  # UPath is imported where there is object storage
# Copies that stay until this process ends.
_kept: list[tempfile.TemporaryDirectory[str]] = []
_PREFIX = "busi_pipeline-"


def trust_no_listing() -> None:
    """Let every file system of this process ask anew what is there: other processes write, too."""
    import fsspec

    for protocol in ("s3", "s3a", "gs", "gcs", "abfs", "az"):
        fsspec.config.conf.setdefault(protocol, {}).setdefault("use_listings_cache", False)


def find_place(address: str | Place) -> Place:
    """Return the path of an address: a folder or file of this machine, or `<protocol>://...`."""
    text = str(address)
    if "://" not in text:
        return Path(text)
    from upath import UPath  # not in an environment that only predicts

    return UPath(text)


def is_remote(place: Place) -> bool:
    """Return whether a place is in object storage."""
    return not isinstance(place, Path)


def describe(place: Place) -> tuple[int, int]:
    """Return when a file was changed (nanoseconds since 1970) and how many bytes it has."""
    state = place.stat()
    return int(state.st_mtime_ns), int(state.st_size)


@contextmanager
def fetch(place: Place) -> Iterator[Path]:
    """Give a file or folder on this machine: itself, or a copy that is removed at the end."""
    if isinstance(place, Path):
        yield place
        return
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as folder:
        copy = _copy(place, Path(folder))
        try:
            yield copy
        except BadInputError as error:
            raise BadInputError(error.message.replace(str(copy), str(place))) from error


def fetch_and_keep(place: Place) -> Path:
    """Return a file or folder on this machine: itself, or a copy that stays until the end."""
    if isinstance(place, Path):
        return place
    _kept.append(tempfile.TemporaryDirectory(prefix=_PREFIX))
    return _copy(place, Path(_kept[-1].name))


def _copy(place: "UPath", folder: Path) -> Path:
    """Copy a file or folder, where it is there."""
    copy = folder / place.name
    if place.is_file():
        place.fs.get_file(place.path, str(copy))
    else:
        copy.mkdir()
        for path in place.fs.find(place.path):
            own = copy / path[len(place.path) :].lstrip("/")
            own.parent.mkdir(parents=True, exist_ok=True)
            place.fs.get_file(path, str(own))
    return copy


@contextmanager
def replace_folder(place: Place, last: str) -> Iterator[Path]:
    """Give a folder of this machine to write to, whose files take the place of others so named.

    Args:
        place: on this machine, it is written to itself.
        last: the file by which others see that the folder is complete: it goes first and comes
            last.
    """
    if isinstance(place, Path):
        yield place
        return
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as folder:
        made = Path(folder) / place.name
        made.mkdir()
        yield made
        (place / last).unlink(missing_ok=True)
        names = [path.relative_to(made).as_posix() for path in made.rglob("*") if path.is_file()]
        for name in sorted(names, key=lambda own: (own == last, own)):
            place.fs.put_file(str(made / name), (place / name).path)
