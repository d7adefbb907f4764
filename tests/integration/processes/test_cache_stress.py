"""Four processes on one cache: no error, and never a wrong row."""

import multiprocessing
from pathlib import Path

from tests.integration.processes.stress import ROUNDS, work

PROCESSES = 4


def test_four_processes_share_one_cache(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:
        checked = pool.starmap(work, [(tmp_path, seed) for seed in range(PROCESSES)])
    assert checked == [3 * ROUNDS] * PROCESSES
    assert not list(tmp_path.rglob("*.unfinished"))
