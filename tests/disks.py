"""Runs on a disk that is full, or that cannot be written to: one line, and nothing is lost.

    unshare --map-root-user --mount python -m tests.disks [--sizes 8] [--pipeline NAME]

A small project lies on a disk of its own, in memory. Disks of several sizes are too small for the
run, which has to end with one line; then there is room, and the same command has to give the
results of a run that had room from the start. In the same way the disk, and the folder `data`
alone, are read-only for a run. Linux lets a user mount disks in a namespace of their own, which
`unshare` makes; what is mounted there is gone with it.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.soak import (
    LONGEST,
    PIPELINES,
    NotAsExpectedError,
    check_project,
    create_template,
    read_results,
    run_undisturbed,
    start_run,
    wait_for,
)

_ROOM = 500_000_000  # bytes


@contextmanager
def mount_disk(folder: Path, size: int) -> Iterator[Path]:
    """Mount an empty disk of so many bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    _run("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder))
    try:
        yield folder
    finally:
        _run("umount", "--lazy", str(folder))


def change_disk(folder: Path, option: str) -> None:
    """Mount a disk anew: `ro`, `rw`, or `size=`."""
    _run("mount", "-o", f"remount,{option}", str(folder))


@contextmanager
def make_read_only(folder: Path) -> Iterator[None]:
    """Let a folder, with all that is below it, be one that cannot be written to."""
    _run("mount", "--bind", str(folder), str(folder))
    _run("mount", "-o", "remount,bind,ro", str(folder))
    try:
        yield
    finally:
        _run("umount", "--lazy", str(folder))


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


def measure_use(folder: Path) -> int:
    """Return the bytes in use on the disk of a folder."""
    found = os.statvfs(folder)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


def run_into_it(project: Path, pipeline: str, expected: str) -> str:
    """Begin a run that cannot be done, and return the line with which it ends.

    Args:
        project: its folder.
        pipeline: its name.
        expected: what the line must have in it; a regular expression.
    """
    log = Path(tempfile.gettempdir()) / f"disks-{os.getpid()}.log"  # not on the disk
    process = start_run(project, pipeline, log)
    status = wait_for(process, LONGEST)
    text = log.read_text()
    log.unlink()
    last = text.rstrip().rpartition("\n")[2]
    if not status:
        raise NotAsExpectedError("the run did not fail")
    if "Traceback" in text or not last.startswith("Error: ") or not re.search(expected, last, re.I):
        raise NotAsExpectedError(f"not the one line that was expected:\n{text}")
    return last


def fill_disks(folder: Path, template: Path, pipeline: str, count: int) -> int:
    """Run on so many disks that are too small; return on how many it was as expected."""
    disk = folder / "disk"
    with mount_disk(disk, _ROOM):
        project = _copy(template, disk)
        begun_with = measure_use(disk)
        run_undisturbed(project, pipeline)
        expected, ended_with = read_results(project), measure_use(disk)
    for number in range(count):
        size = begun_with + (ended_with - begun_with) * (number + 1) // (count + 2)
        with mount_disk(disk, size):
            project = _copy(template, disk)
            line = run_into_it(project, pipeline, "no room")
            print(f"{size / 1e6:.1f} MB: {line}", flush=True)
            change_disk(disk, f"size={_ROOM}")
            run_undisturbed(project, pipeline)
            check_project(project, expected)
    return count


def lock_disks(folder: Path, template: Path, pipeline: str) -> int:
    """Run where nothing can be written, before and after a first run; return how often."""
    disk = folder / "disk"
    with mount_disk(disk, _ROOM):
        project = _copy(template, disk)
        change_disk(disk, "ro")
        print(f"the disk: {run_into_it(project, pipeline, 'read-only|readonly')}", flush=True)
        change_disk(disk, "rw")
        with make_read_only(project / "data"):
            print(f"data: {run_into_it(project, pipeline, 'read-only|readonly')}", flush=True)
        run_undisturbed(project, pipeline)
        expected = read_results(project)
        change_disk(disk, "ro")
        print(f"afterwards: {run_into_it(project, pipeline, 'read-only|readonly')}", flush=True)
        change_disk(disk, "rw")
        run_undisturbed(project, pipeline)
        check_project(project, expected)
    return 3


def _copy(template: Path, disk: Path) -> Path:
    return Path(shutil.copytree(template, disk / "project"))


def main(arguments: list[str]) -> int:
    """Return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, default=8, help="disks that are too small")
    parser.add_argument("--pipeline", default=PIPELINES[0])
    asked = parser.parse_args(arguments)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="disks-") as name:
        folder = Path(name)
        template = create_template(folder / "template")
        try:
            locked = lock_disks(folder, template, asked.pipeline)
            full = fill_disks(folder, template, asked.pipeline, asked.sizes)
        except NotAsExpectedError as failure:
            print(f"failed: {failure}")
            return 1
    seconds = time.monotonic() - begun
    print(f"{full} full disks, {locked} read-only ones, in {seconds / 60:.0f} minutes")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
