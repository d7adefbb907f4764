"""What came and is not yet answered, on disk: nothing of it is lost when the node dies.

    images/<name>                          an image that came
    results/<name>.<version>.<content>/    results that the archive does not have yet
    refused/<name>.<version>.<content>/    results that the archive refused
    failed/<name>                          images of which no result could be made
    unfinished/                            what is being written; gone at the next start
    tries/<name>                           how often an image was begun
    done.sqlite                            see pacs.records

A name is a hash, of the image's UID or its content. What is written is on the disk before it gets
its name, and each step takes a thing away only after the next one has it.
"""

import json
import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from filelock import FileLock, Timeout

from busi_pipeline.errors import BadInputError

_ABOUT = "about.json"
OTHER_CONTENT: Final = "image came again, with other content"
"""In the log, of an image that has results, or waits for some."""


class Arrived(NamedTuple):
    """Attributes: `content` of an image's file, the `moment` when it came."""

    content: bytes
    moment: datetime


class ResultKey(NamedTuple):
    """Attributes: `image`, its name; `version` of the model; `content`, a hash of the image's."""

    image: str
    version: str
    content: str

    @property
    def folder(self) -> str:
        """Name of the folder."""
        return ".".join(self)


class Results(NamedTuple):
    """Attributes: `objects` to send; `outcome` of the image."""

    objects: tuple[bytes, ...]
    outcome: str


class Spool:
    """Images and results of one node."""

    def __init__(self, folder: Path):
        """Make the folders; raises BadInputError where another node uses them, or none can be."""
        self.folder = folder
        self._images, self._results = folder / "images", folder / "results"
        self._refused, self._failed = folder / "refused", folder / "failed"
        self._unfinished, self._tries = folder / "unfinished", folder / "tries"
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = FileLock(folder / "lock", timeout=0)
            self._lock.acquire()
            shutil.rmtree(self._unfinished, ignore_errors=True)
            for own in (self._images, self._results, self._refused, self._failed):
                own.mkdir(exist_ok=True, mode=0o700)
            for own in (self._unfinished, self._tries):
                own.mkdir(exist_ok=True, mode=0o700)
        except Timeout:
            raise BadInputError(
                f"another node uses --spool {folder}: name another folder, or stop it."
            ) from None
        except OSError as error:
            raise BadInputError(
                f"--spool {folder} cannot be used: {error.strerror or error}."
            ) from None

    def close(self) -> None:
        """Let another node use the folder."""
        self._lock.release()

    @property
    def free_bytes(self) -> int:
        """Of the disk."""
        return shutil.disk_usage(self.folder).free

    # Images

    def keep_image(self, name: str, content: bytes) -> bool:
        """Keep an image durably; return False, and keep the first, where one has this name."""
        unfinished = self._unfinished / uuid.uuid4().hex
        try:
            _write(unfinished, content)
            os.link(unfinished, self._images / name)
        except FileExistsError:
            return False
        finally:
            unfinished.unlink(missing_ok=True)
        _sync_folder(self._images)
        return True

    def list_images(self) -> list[str]:
        """Return the names of images that wait, the first that came first."""
        return [path.name for path in _sort(self._images)]

    def read_image(self, name: str) -> Arrived | None:
        """Return an image; None where there is none."""
        try:
            path = self._images / name
            seconds = int(path.stat().st_mtime)
            return Arrived(path.read_bytes(), datetime.fromtimestamp(seconds, UTC))
        except FileNotFoundError:
            return None

    def count_try(self, name: str) -> int:
        """Count that an image is computed, and return how often it was begun, this time included.

        An image that ends the process would otherwise end each one that comes after.
        """
        path = self._tries / name
        tries = 1
        with suppress(OSError, ValueError):
            tries = int(path.read_text()) + 1
        path.write_text(str(tries))
        return tries

    def forget_tries(self, name: str) -> None:
        """Count from 0 again: that an image was not finished was no fault of its own."""
        (self._tries / name).unlink(missing_ok=True)

    def drop_image(self, name: str) -> None:
        """Take an image away."""
        (self._images / name).unlink(missing_ok=True)
        (self._tries / name).unlink(missing_ok=True)
        _sync_folder(self._images)

    def set_aside(self, name: str) -> None:
        """Keep an image that gives no result where it holds up nobody."""
        os.replace(self._images / name, self._failed / name)
        (self._tries / name).unlink(missing_ok=True)
        _sync_folder(self._failed)
        _sync_folder(self._images)

    def holds_image(self, name: str) -> bool:
        """Return whether an image waits, was set aside, or has results that wait."""
        return (
            (self._images / name).exists()
            or (self._failed / name).exists()
            or any(self._results.glob(f"{name}.*"))
        )

    # Results

    def keep_results(self, key: ResultKey, objects: Mapping[str, bytes], outcome: str) -> None:
        """Keep results durably, all or none; those that are there already stay."""
        self._keep_folder(self._results, key, objects, outcome)

    def _keep_folder(
        self, folder: Path, key: ResultKey, objects: Mapping[str, bytes], outcome: str
    ) -> None:
        if (folder / key.folder).exists():
            return
        unfinished = self._unfinished / uuid.uuid4().hex
        try:
            unfinished.mkdir(mode=0o700)
            for name, own in objects.items():
                _write(unfinished / name, own)
            about = {"objects": list(objects), "outcome": outcome}
            _write(unfinished / _ABOUT, json.dumps(about).encode())
            _sync_folder(unfinished)
            os.rename(unfinished, folder / key.folder)
        except BaseException:
            # The disk may be full because of it.
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
        _sync_folder(folder)

    def find_outcomes(self, image: str, version: str) -> dict[str, str]:
        """Return {content: outcome} of an image's results that wait, or were refused.

        The outcome of damaged ones is "".
        """
        outcomes = {}
        for own in (self._results, self._refused):
            for path in own.glob(f"{image}.{version}.*"):
                try:
                    outcome = str(_read_about(path)["outcome"])
                except FileNotFoundError:  # sent just now
                    continue
                except (OSError, KeyError, TypeError, ValueError):  # damaged
                    outcome = ""
                outcomes[path.name.rpartition(".")[2]] = outcome
        return outcomes

    def list_results(self) -> list[ResultKey]:
        """Return the keys of results that wait, the first that were made first."""
        names = (path.name.split(".") for path in _sort(self._results))
        return [ResultKey(*parts) for parts in names if len(parts) == len(ResultKey._fields)]

    def read_results(self, key: ResultKey) -> Results:
        """Return results."""
        folder = self._results / key.folder
        about = _read_about(folder)
        objects = tuple((folder / name).read_bytes() for name in about["objects"])
        return Results(objects, about["outcome"])

    def drop_results(self, key: ResultKey) -> None:
        """Take results away."""
        unfinished = self._unfinished / uuid.uuid4().hex
        os.rename(self._results / key.folder, unfinished)
        _sync_folder(self._results)
        shutil.rmtree(unfinished, ignore_errors=True)

    def refuse_results(self, key: ResultKey, places: Sequence[int] | None = None) -> None:
        """Keep results that the archive refused where they hold up nobody.

        Args:
            key: of the results.
            places: of the objects that it refused, from 0; None for all, damaged ones included.
        """
        shutil.rmtree(self._refused / key.folder, ignore_errors=True)
        if places is None:
            os.rename(self._results / key.folder, self._refused / key.folder)
            _sync_folder(self._refused)
            _sync_folder(self._results)
            return
        results = self.read_results(key)
        names = _read_about(self._results / key.folder)["objects"]
        refused = {names[place]: results.objects[place] for place in places}
        self._keep_folder(self._refused, key, refused, results.outcome)
        self.drop_results(key)


def _read_about(folder: Path) -> dict[str, Any]:
    about: dict[str, Any] = json.loads((folder / _ABOUT).read_bytes())
    return about


def _write(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        os.chmod(file.fileno(), 0o600)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Bring names to the disk, too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sort(folder: Path) -> list[Path]:
    return sorted(folder.iterdir(), key=lambda path: (path.stat().st_mtime_ns, path.name))
