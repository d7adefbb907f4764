"""The cache: a folder of values, each under the fingerprint of all that decides it.

The contract, the same for arrays, tables and trainings:

- a value is found only under the very fingerprint it was stored by, so it is never stale;
- it is written beside its place and renamed into it, so it is there whole or not at all;
- nothing that is there is ever changed, so several processes may read and write at once;
- a value that was damaged is computed again, and the log says so;
- deleting all or part of the folder costs only the time to compute again.

In object storage, a folder cannot be renamed. There the files of a value lie under a name of their
own, and `contents.json`, which comes last, says where. Rows are checked when they are read.
"""

import io
import json
import logging
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar
from zlib import crc32

import numpy as np
import pandas as pd

from busi_pipeline.caching.arrays import StoredArray, StoredRows
from busi_pipeline.caching.fingerprints import Fingerprint, hash_file
from busi_pipeline.caching.places import Place, fetch, is_remote
from busi_pipeline.caching.whole_files import name_unfinished, write_whole
from busi_pipeline.errors import BadInputError

if TYPE_CHECKING:
    from upath import UPath

logger = logging.getLogger(__name__)
T = TypeVar("T")

_KEY_TYPE = np.dtype([("key", "S64"), ("seconds", "f4"), ("crc32", "u4")])
# Parts whose rows are what was written: {file: when it was changed, its bytes}. They are read once
# a process for this; a disk that turns a bit is found at the next run.
_whole_parts: dict[Path, tuple[int, int]] = {}
# Of a part: small enough to lose when a run is stopped, large enough to be few.
_BYTES_A_PART = 32 * 2**20
_ROWS_A_PART = 1024
_CONTENTS = "contents.json"
# To put a value in its place, while other processes remove a damaged one from it.
_ATTEMPTS = 5


class Codec(NamedTuple, Generic[T]):
    """How a value becomes files of a folder (`write(value, folder)`), and comes back (`read`)."""

    write: Callable[[T, Path], None]
    read: Callable[[Path], T]


TABLE: Codec[pd.DataFrame] = Codec(
    lambda table, folder: table.to_parquet(folder / "table.parquet"),
    lambda folder: pd.read_parquet(folder / "table.parquet"),
)


class Cache:
    """Values under their fingerprints; see the module for what holds of them.

    Args:
        folder: made when something is stored.
    """

    def __init__(self, folder: Place):
        self._folder = folder

    @property
    def folder(self) -> Place:
        """Where it lies."""
        return self._folder

    def get_or_compute(
        self, fingerprint: Fingerprint, compute: Callable[[], T], codec: Codec[T]
    ) -> T:
        """Return the value of this fingerprint; compute and store it where it is not there."""
        found = self.find(fingerprint, codec)
        if found is not None:
            logger.info("%s: nothing it depends on changed; taken from the cache", fingerprint.step)
            return found
        value = compute()
        self.store(fingerprint, value, codec)
        return value

    def find(self, fingerprint: Fingerprint, codec: Codec[T]) -> T | None:
        """Return the value of this fingerprint, or None; a damaged one is removed."""
        place = self._locate(fingerprint)
        if not isinstance(place, Path):
            return _find_remote(place, fingerprint, codec)
        if not place.is_dir():
            return None
        try:
            if _is_whole(place):
                return codec.read(place)
        except FileNotFoundError:
            pass  # another process removes it at this moment
        logger.warning("%s: the cached value in %s is damaged", fingerprint.step, place)
        _remove(place)
        return None

    def store(self, fingerprint: Fingerprint, value: T, codec: Codec[T]) -> None:
        """Store a value; where another process was first, its value stays."""
        place = self._locate(fingerprint)
        if not isinstance(place, Path):
            _store_remote(place, fingerprint, value, codec)
            return
        unfinished = name_unfinished(place)
        unfinished.mkdir(parents=True)
        try:
            codec.write(value, unfinished)
            contents = {"fingerprint": fingerprint.describe(), "files": _hash_files(unfinished)}
            (unfinished / _CONTENTS).write_text(json.dumps(contents, indent=2))
            _put(unfinished, place)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    def compute_array(
        self,
        fingerprint: Fingerprint,
        index: pd.DataFrame,
        keys: Sequence[str],
        dtype: str,
        compute: Callable[[np.ndarray], Iterable[np.ndarray]],
        metadata: dict[str, Any] | None = None,
    ) -> StoredArray:
        """Return an array, of which only the rows are computed that are not there.

        Rows are written as they come, so memory does not grow with their number, and a run that is
        stopped goes on where it was.

        Args:
            fingerprint: whatever decides all rows alike.
            index: one row per row of the array; at least a column `image_id`.
            keys: one per row, the hash of what this row is made of.
            dtype: of the array.
            compute: takes the positions (int64, ascending) of the rows that are missing; yields
                arrays (n, ...) that, one after the other, are those rows. Not called for none.
            metadata: what is to be kept beside the array, JSON-like.
        """
        if not len(index) == len(keys) > 0:
            raise ValueError(
                f"{fingerprint.step}: {len(index)} rows in the index, {len(keys)} keys; as many "
                "keys as rows are needed, and at least one"
            )
        rows = _Rows(self._locate(fingerprint), fingerprint)
        first = dict(zip(reversed(keys), reversed(range(len(keys))), strict=True))
        known = rows.find(first)
        missing = np.array(sorted(first[key] for key in first if key not in known), dtype=np.int64)
        begun = time.perf_counter()
        if len(missing):
            rows.add(keys, missing, dtype, compute)
            known = rows.find(first)
        costs = {
            "seconds": float(sum(known[key].seconds for key in first)),
            "seconds_now": time.perf_counter() - begun if len(missing) else 0.0,
            "computed": len(missing),
        }
        logger.info(
            "%s: %d rows, %d computed, %d from the cache",
            fingerprint.step,
            len(index),
            len(missing),
            len(first) - len(missing),
        )
        values = _read_rows(known, keys)
        return StoredArray(index, values, list(keys), fingerprint, (metadata or {}) | costs)

    def open_array(
        self,
        fingerprint: Fingerprint,
        index: pd.DataFrame,
        keys: Sequence[str],
        metadata: dict[str, Any],
    ) -> StoredArray:
        """Return an array all of whose rows are there; raises BadInputError where one is not."""
        known = _Rows(self._locate(fingerprint), fingerprint).find(keys)
        if missing := len(set(keys) - set(known)):
            raise BadInputError(
                f"{missing} rows of {fingerprint.step} are no longer in the cache {self._folder}: "
                "run the pipeline again without --from-nodes, which computes them."
            )
        return StoredArray(index, _read_rows(known, keys), list(keys), fingerprint, metadata)

    def _locate(self, fingerprint: Fingerprint) -> Place:
        return self._folder / fingerprint.step / fingerprint.digest[:32]


class _Place(NamedTuple):
    """Where a row lies, the seconds it took, and its CRC-32."""

    part: Place
    row: int
    seconds: float
    crc32: int


class _Rows:
    """Rows of one fingerprint, each under its key, in files that are added and never changed.

    `<part>.npy` holds rows and `<part>.keys.npy` their keys, the seconds each took and a checksum
    of each. A part counts once its keys are there, and they are written last.
    """

    def __init__(self, folder: Place, fingerprint: Fingerprint):
        self._folder, self._fingerprint = folder, fingerprint

    def find(self, keys: Iterable[str]) -> dict[str, _Place]:
        """Return where each key's row lies, for the keys there are."""
        wanted = set(keys)
        found = {}
        parts: dict[str, Place] = {part.name: part for part in self._folder.glob("*.npy")}
        for name, listing in sorted(parts.items()):
            part = parts.get(name.replace(".keys.npy", ".npy"))
            if not name.endswith(".keys.npy") or part is None:
                continue
            rows = self._list(listing, part)
            for row, (key, seconds, checksum) in enumerate(rows):
                if key.decode() in wanted:
                    found[key.decode()] = _Place(part, row, seconds, checksum)
        return found

    def _list(self, listing: Place, part: Place) -> list[tuple[bytes, float, int]]:
        """Return key, seconds and checksum of each row; none of a damaged part, which is removed.

        A listing of an earlier version, without checksums, counts as damaged.
        """
        try:
            rows = np.load(io.BytesIO(listing.read_bytes()))
            if rows.dtype == _KEY_TYPE and _is_part_whole(part, rows["crc32"]):
                return rows.tolist()
        except (ValueError, EOFError, OSError) as error:
            if isinstance(error, FileNotFoundError):
                return []
        logger.warning(
            "%s: the cached rows in %s are damaged, or of an earlier version: they are computed "
            "again",
            *(self._fingerprint.step, part),
        )
        listing.unlink(missing_ok=True)
        part.unlink(missing_ok=True)
        return []

    def add(
        self,
        keys: Sequence[str],
        positions: np.ndarray,
        dtype: str,
        compute: Callable[[np.ndarray], Iterable[np.ndarray]],
    ) -> None:
        """Compute the rows at these positions and keep them.

        Raises ValueError where more or fewer rows come than positions were given.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        self._write("fingerprint.json", json.dumps(self._fingerprint.describe(), indent=2).encode())
        chunks: list[np.ndarray] = []
        listing: list[tuple[bytes, float, int]] = []
        written = 0
        begun = time.perf_counter()
        for chunk in compute(positions):
            start = written + len(listing)
            if start + len(chunk) > len(positions):
                raise ValueError(f"more rows came than were asked for ({len(positions)})")
            seconds = (time.perf_counter() - begun) / max(1, len(chunk))
            chunks.append(np.asarray(chunk, dtype=dtype))
            listing += [
                (keys[position].encode(), seconds, checksum)
                for position, checksum in zip(
                    positions[start : start + len(chunk)], _sum_rows(chunks[-1]), strict=True
                )
            ]
            if len(listing) >= _ROWS_A_PART or sum(c.nbytes for c in chunks) >= _BYTES_A_PART:
                self._write_part(np.concatenate(chunks), listing)
                written += len(listing)
                chunks, listing = [], []
            begun = time.perf_counter()
        if listing:
            self._write_part(np.concatenate(chunks), listing)
            written += len(listing)
        if written != len(positions):
            raise ValueError(f"{written} rows came, {len(positions)} were asked for")

    def _write_part(self, rows: np.ndarray, listing: list[tuple[bytes, float, int]]) -> None:
        name = uuid.uuid4().hex
        self._write(f"{name}.npy", rows)
        self._write(f"{name}.keys.npy", np.array(listing, dtype=_KEY_TYPE))

    def _write(self, name: str, content: np.ndarray | bytes) -> None:
        with write_whole(self._folder / name) as file:
            if isinstance(content, bytes):
                file.write(content)
            else:
                np.save(file, content)


def _read_rows(known: dict[str, _Place], keys: Sequence[str]) -> StoredRows:
    parts = sorted({place.part for place in known.values()})
    number = {part: i for i, part in enumerate(parts)}
    places = np.array([(number[known[key].part], known[key].row) for key in keys], dtype=np.int64)
    if not any(map(is_remote, parts)):
        return StoredRows(parts, places)
    sums: list[dict[int, int]] = [{} for _ in parts]
    for place in known.values():
        sums[number[place.part]][place.row] = place.crc32
    return StoredRows(parts, places, sums)


def _sum_rows(rows: np.ndarray) -> list[int]:
    """Return a checksum of the bytes of each row."""
    return [
        crc32(np.ascontiguousarray(rows[i : i + 1]).view(np.uint8).data) for i in range(len(rows))
    ]


def _is_part_whole(part: Place, sums: np.ndarray) -> bool:
    """Whether the rows of a part are those that were written; in object storage, reading says."""
    if not isinstance(part, Path):
        return True
    state = part.stat()
    seen = (state.st_mtime_ns, state.st_size)
    if _whole_parts.get(part) == seen:
        return True
    is_whole = _sum_rows(np.load(part, mmap_mode="r")) == sums.tolist()
    if is_whole:
        _whole_parts[part] = seen
    return is_whole


def _is_whole(place: Path) -> bool:
    """Whether the files of a value are those it was stored with.

    Raises FileNotFoundError where it is being removed.
    """
    try:
        contents = json.loads((place / _CONTENTS).read_text())
        return contents["files"] == _hash_files(place)
    except (ValueError, KeyError, TypeError):
        return False


def _find_remote(place: "UPath", fingerprint: Fingerprint, codec: Codec[T]) -> T | None:
    """Return a value in object storage, or None; a damaged one counts as absent from then on."""
    try:
        contents = json.loads((place / _CONTENTS).read_text())
        with fetch(place / contents["folder"]) as folder:
            if contents["files"] == _hash_files(folder):
                return codec.read(folder)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        pass
    logger.warning("%s: the cached value in %s is damaged", fingerprint.step, place)
    (place / _CONTENTS).unlink(missing_ok=True)
    return None


def _store_remote(place: "UPath", fingerprint: Fingerprint, value: T, codec: Codec[T]) -> None:
    """Store a value in object storage; of two processes that do, the last one's stays."""
    name = uuid.uuid4().hex
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        codec.write(value, folder)
        files = _hash_files(folder)
        for file in files:
            place.fs.put_file(str(folder / file), (place / name / file).path)
    contents = {"fingerprint": fingerprint.describe(), "files": files, "folder": name}
    (place / _CONTENTS).write_text(json.dumps(contents, indent=2))


def _put(unfinished: Path, place: Path) -> None:
    """Rename the folder of a value, unless a whole one is there already."""
    for attempt in range(_ATTEMPTS):
        try:
            unfinished.rename(place)
            return
        except OSError:
            if (place / _CONTENTS).is_file():
                return
            if attempt == _ATTEMPTS - 1:
                raise
            _remove(place)  # what is left of a value that was partly deleted


def _remove(place: Path) -> None:
    """Remove a value: at once for those who look for it, then its files."""
    removed = place.with_name(f"{uuid.uuid4().hex}.removed")
    with suppress(FileNotFoundError):  # another process was first
        place.rename(removed)
    shutil.rmtree(removed, ignore_errors=True)


def _hash_files(folder: Path) -> dict[str, str]:
    """Return {name: SHA-256} of the files of a value."""
    hashes = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != _CONTENTS:
            hashes[path.relative_to(folder).as_posix()] = hash_file(path)
    return hashes
