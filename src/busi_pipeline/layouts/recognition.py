"""Find out how a folder is laid out, and where in it the layout begins."""

from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches
from typing import NamedTuple, TypeVar

from busi_pipeline.errors import BadInputError
from busi_pipeline.imaging.raw_files import RawFiles

from .base import Layout
from .labels import normalise_label

T = TypeVar("T")
_SHOWN = 6


class Recognised(NamedTuple):
    """A folder whose layout is known.

    Attributes:
        layout: how it is laid out.
        files: as the layout sees them.
        folder: where they lie within the folder of the site; "" where nothing was stripped.
    """

    layout: type[Layout]
    files: RawFiles
    folder: str


def recognise_layout(
    files: RawFiles, layouts: Mapping[str, type[Layout]], labels: Collection[str]
) -> Recognised:
    """Return the first layout that recognises the files, or those within their only folder.

    Args:
        files: of a site.
        layouts: those that may be, in the order in which they are tried.
        labels: classes and the keys of `ingestion.class_names`.

    Raises BadInputError where none does.
    """
    folder, within = "", files
    while True:
        places = _list_places(within)
        for layout in layouts.values():
            if layout.recognises(places, labels):
                return Recognised(layout, within, folder)
        name = find_wrapper(places)
        if name is None:
            break
        folder, within = f"{folder}/{name}".lstrip("/"), go_below(within, name)
    # The path of a DICOM frame has no folders but those of classes, wherever its file lies.
    for layout in layouts.values():
        if layout.recognises(files.keys(), labels):
            return Recognised(layout, files, "")
    raise BadInputError(_describe_failure(_list_places(files), layouts.values(), labels))


def find_wrapper(paths: Iterable[str]) -> str | None:
    """Return the folder at the top if there is just one; a zip file often unpacks into some."""
    folders = {path.split("/", 1)[0] for path in paths if "/" in path}
    return folders.pop() if len(folders) == 1 else None


def go_below(files: RawFiles, folder: str) -> RawFiles:
    """Return the files below a folder, by their paths from there.

    A frame of a DICOM file there comes along, even if its own path does not have the folder.
    """
    start = f"{folder}/"

    def cut(values: Mapping[str, T]) -> dict[str, T]:
        return {
            path.removeprefix(start): value
            for path, value in values.items()
            if files.originals.get(path, path).startswith(start)
        }

    originals = {path: name.removeprefix(start) for path, name in cut(files.originals).items()}
    return RawFiles(cut(files.readers), cut(files.unusable), cut(files.attributes), originals)


def _list_places(files: RawFiles) -> list[str]:
    """Return where each file lies; of a frame, its DICOM file."""
    return [files.originals.get(path, path) for path in files]


def _describe_failure(
    places: Collection[str], layouts: Iterable[type[Layout]], labels: Collection[str]
) -> str:
    found = sorted({path.split("/", 1)[0] + "/" * ("/" in path) for path in places})
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    looks = "; ".join(f"{layout.name}: {layout.looks_like}" for layout in layouts)
    return (
        f"the folder has not the layout that was expected. It holds {', '.join(found[:_SHOWN])}"
        f"{more}. Expected is one of: {looks}. ingestion.layout names one."
        f"{_hint_class_names(places, labels)}"
    )


def _hint_class_names(places: Iterable[str], labels: Collection[str]) -> str:
    """Say that folders may be classes under other names; "" where none is like a class."""
    folders = {part for path in places for part in path.split("/")[:-1]}
    known = {normalise_label(label): label for label in labels}
    near = {
        name: known[match]
        for name in sorted(folders)
        if normalise_label(name) not in known
        for match in get_close_matches(normalise_label(name), known, n=1)
    }
    if not near:
        return ""
    pairs = ", ".join(f"{name}: {label}" for name, label in near.items())
    return f" If its folders are classes: did you mean ingestion.class_names: {{{pairs}}}?"
