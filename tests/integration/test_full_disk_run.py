"""A full or read-only disk ends a run with one line; with room, it is as if it never was."""

import shutil
import subprocess
import sys

import pytest

from tests.factories import PROJECT
from tests.integration.projects import run_driver

NAMESPACE = ("unshare", "--map-root-user", "--mount")


def _can_mount() -> bool:
    if shutil.which(NAMESPACE[0]) is None:
        return False
    tried = [*NAMESPACE, "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(PROJECT / "data")]
    return subprocess.run(tried, check=False, capture_output=True).returncode == 0


@pytest.mark.skipif(not _can_mount(), reason="this user cannot mount disks: a Linux of one's own")
def test_no_room_and_no_rights_are_one_line_and_lose_nothing() -> None:
    """Two disks that are too small, and three times one that is read-only."""
    printed = run_driver(*NAMESPACE, sys.executable, "-m", "tests.disks", "--sizes", "2")
    assert "2 full disks, 3 read-only ones" in printed
