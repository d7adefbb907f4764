"""The files of one site, or of several, as whatever reads them sees them."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

ReadBytes = Callable[[], bytes]


@dataclass(frozen=True)
class RawFiles(Mapping[str, ReadBytes]):
    """{path: function that reads the bytes}, and what is known of files beside their bytes.

    A path is relative to the folder of the site, with `/` between its parts. A frame of a DICOM
    file is a file of its own here: its bytes are a PNG of its pixels, and its path holds a
    pseudonym in the place of every name that could be a patient's.

    Attributes:
        readers: {path: function that reads the bytes}.
        unusable: {path: reason} of what lies in the folder and cannot be read as a file: a pipe, a
            link to nothing, a name that is not UTF-8.
        attributes: {path: {name: value}} from DICOM headers: `patient` (a pseudonym), `device`,
            `age`, `view`, `pixel_spacing_mm`, `frame`.
        originals: {path: path of the DICOM file} of frames. It stays in memory.
    """

    readers: Mapping[str, ReadBytes]
    unusable: Mapping[str, str] = field(default_factory=dict)
    attributes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    originals: Mapping[str, str] = field(default_factory=dict)

    def __getitem__(self, path: str) -> ReadBytes:
        return self.readers[path]

    def __iter__(self) -> Iterator[str]:
        return iter(self.readers)

    def __len__(self) -> int:
        return len(self.readers)


def as_raw_files(files: Mapping[str, ReadBytes]) -> RawFiles:
    """Return the mapping itself, or one of paths and functions alone as RawFiles."""
    return files if isinstance(files, RawFiles) else RawFiles(files)
