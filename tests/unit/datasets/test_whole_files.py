"""What a dataset writes is there whole, or what was there before is."""

import os
import subprocess
import sys
from pathlib import Path

import fsspec
import matplotlib.pyplot as plt
import pandas as pd
import pytest
from kedro.io import DatasetError
from kedro_datasets.json import JSONDataset
from kedro_datasets.pandas import CSVDataset, ParquetDataset

from busi_pipeline.caching.whole_files import name_unfinished, remove_abandoned, replace_whole
from busi_pipeline.datasets.plot import PlotDataset
from busi_pipeline.datasets.whole_file_system import write_files_whole

write_files_whole()
TABLE = pd.DataFrame({"a": [1, 2]})
KINDS = {
    "json": (JSONDataset, "r.json", {"a": 1}),
    "csv": (CSVDataset, "t.csv", TABLE),
    "parquet": (ParquetDataset, "t.parquet", TABLE),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_saved_is_loaded(tmp_path: Path, kind: str) -> None:
    make, name, value = KINDS[kind]
    dataset = make(
        filepath=str(tmp_path / "new" / name), save_args={"index": False} if kind == "csv" else None
    )
    dataset.save(value)
    dataset.save(value)
    loaded = dataset.load()
    assert loaded.equals(value) if isinstance(value, pd.DataFrame) else loaded == value
    assert [path.name for path in (tmp_path / "new").iterdir()] == [name]


def test_a_writing_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    dataset = JSONDataset(filepath=str(tmp_path / "r.json"))
    dataset.save({"a": 1})
    with pytest.raises(DatasetError):
        dataset.save({"a": 2, "b": [1] * 5000, "c": object()})
    assert dataset.load() == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]


def test_a_file_that_is_written_in_an_except_clause_counts(tmp_path: Path) -> None:
    dataset = JSONDataset(filepath=str(tmp_path / "r.json"))
    try:
        raise ValueError("an earlier one")
    except ValueError:
        dataset.save({"a": 1})
    assert dataset.load() == {"a": 1}


FULL = {
    "while it writes": "JSONDataset(filepath=sys.argv[1]).save({'a': list(range(100_000))})",
    "as it closes": "with fsspec.open(sys.argv[1], 'wb') as file: file.write(bytes(3000))",
}


@pytest.mark.parametrize("moment", FULL)
def test_a_full_disk_leaves_what_was_there(tmp_path: Path, moment: str) -> None:
    """A limit on the size of files stands for the disk."""
    (tmp_path / "r.json").write_text('{"a": 1}')
    code = (
        "import fsspec, resource, sys, signal\n"
        "from kedro_datasets.json import JSONDataset\n"
        "from busi_pipeline.datasets.whole_file_system import write_files_whole\n"
        "write_files_whole()\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
        f"{FULL[moment]}\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "r.json")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "File too large" in done.stderr
    assert (tmp_path / "r.json").read_text() == '{"a": 1}'
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("moment", ["open", "half"])
def test_a_killed_process_leaves_what_was_there(tmp_path: Path, moment: str) -> None:
    (tmp_path / "r.json").write_text('{"a": 1}')
    written = "file.write(b'[1, 2'); file.flush(); " if moment == "half" else ""
    code = (
        "import os, sys, fsspec\n"
        "from busi_pipeline.datasets.whole_file_system import write_files_whole\n"
        "write_files_whole()\n"
        "file = fsspec.filesystem('file').open(sys.argv[1], 'wb')\n"
        f"{written}os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "r.json")], check=False)
    assert (tmp_path / "r.json").read_text() == '{"a": 1}'
    assert len(list(tmp_path.iterdir())) == 2
    assert remove_abandoned(tmp_path) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]


def test_what_this_process_writes_is_not_removed(tmp_path: Path) -> None:
    own = name_unfinished(tmp_path / "network.keras")
    assert own.suffix == ".keras"
    own.touch()
    of_others = tmp_path / own.name.replace(f"-{os.getpid()}-", "-1-")
    elsewhere = tmp_path / f"x.another-99999999-{'0' * 32}.unfinished"
    for path in (of_others, elsewhere):
        path.touch()
    assert remove_abandoned(tmp_path) == 0, "process 1 is there, another machine cannot be asked"
    assert own.exists()


def test_a_plot_that_fails_leaves_the_one_before(tmp_path: Path) -> None:
    dataset = PlotDataset(filepath=str(tmp_path / "p.png"))
    dataset.save(plt.figure())
    before = (tmp_path / "p.png").read_bytes()
    figure = plt.figure()
    figure.text(0, 0, "$\\frac{1$")
    with pytest.raises(Exception, match="frac"):
        dataset.save(figure)
    assert (tmp_path / "p.png").read_bytes() == before
    plt.close("all")


def test_a_file_is_replaced_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "network.keras"
    with replace_whole(path) as unfinished:
        unfinished.write_bytes(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new"
    with pytest.raises(KeyError), replace_whole(path) as unfinished:  # noqa: PT012
        unfinished.write_bytes(b"newer")
        raise KeyError
    assert path.read_bytes() == b"new"
    assert len(list(path.parent.iterdir())) == 1


def test_appending_and_reading_are_as_they_were(tmp_path: Path) -> None:
    files = fsspec.filesystem("file")
    with files.open(str(tmp_path / "a"), "w") as file:
        file.write("one")
    with files.open(str(tmp_path / "a"), "a") as file:
        file.write(" two")
    with files.open(str(tmp_path / "a")) as file:
        assert file.read() == b"one two"
