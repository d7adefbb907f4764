"""The cache in object storage, for which fsspec's `memory://` stands here."""

import pickle
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from upath import UPath

from busi_pipeline.caching import cache as cache_module
from busi_pipeline.caching.cache import TABLE, Cache
from busi_pipeline.caching.fingerprints import Fingerprint
from busi_pipeline.caching.places import fetch, find_place, is_remote, replace_folder
from busi_pipeline.caching.whole_files import write_whole
from busi_pipeline.errors import BadInputError
from tests.factories import Squares

NAME = Fingerprint("table", {"of": "tests"})


@pytest.fixture
def storage() -> UPath:
    place = find_place(f"memory://{uuid.uuid4().hex}")
    assert isinstance(place, UPath)
    return place


@pytest.fixture
def squares(storage: UPath) -> Squares:
    return Squares(Cache(storage / "cache"))


def find_parts(storage: UPath) -> list[UPath]:
    """Return the files of rows."""
    found = (UPath(f"memory://{path}") for path in storage.fs.find(storage.path))
    return [own for own in found if own.name.endswith(".npy") and ".keys" not in own.name]


def spy(monkeypatch: pytest.MonkeyPatch, storage: UPath, name: str) -> list[tuple[Any, ...]]:
    """Note the arguments with which the file system is asked."""
    asked: list[tuple[Any, ...]] = []
    ask = getattr(storage.fs, name)

    def note(*arguments: Any, **options: Any) -> Any:
        asked.append(arguments)
        return ask(*arguments, **options)

    monkeypatch.setattr(storage.fs, name, note)
    return asked


def test_an_address_is_a_place_of_its_kind(tmp_path: Path) -> None:
    assert find_place(str(tmp_path)) == tmp_path
    assert not is_remote(find_place("data/cache"))
    assert is_remote(find_place("memory://bucket/data"))
    assert str(find_place("s3://bucket/data") / "a.csv") == "s3://bucket/data/a.csv"


def test_rows_are_computed_once_and_come_back(squares: Squares, storage: UPath) -> None:
    for _ in range(2):
        stored = squares.compute([3, 1, 2])
        np.testing.assert_array_equal(stored.values[np.array([2, 0])], [[2, 4], [3, 9]])
        np.testing.assert_array_equal(stored.values[1], [1, 1])
        assert stored.values.shape == (3, 2)
    assert stored.metadata["computed"] == 0
    again = pickle.loads(pickle.dumps(stored.values))
    np.testing.assert_array_equal(again[0], [3, 9])
    assert len(find_parts(storage)) == 1


def test_a_row_is_fetched_by_its_range_and_once(
    squares: Squares, storage: UPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neighbours come in one range; what is here already is not asked for."""
    squares.compute([*range(9)])
    values = squares.compute([*range(9)]).values
    asked = spy(monkeypatch, storage, "cat_ranges")
    values[np.array([1, 2, 3, 7])]
    values[2]
    values[np.array([3, 4, 7])]
    lengths = [
        [end - start for start, end in zip(starts, ends, strict=True)] for _, starts, ends in asked
    ]
    of_row = 2 * np.dtype(np.float16).itemsize
    assert lengths == [[3 * of_row, of_row], [of_row]]


def test_a_part_is_listed_without_its_rows(
    squares: Squares, storage: UPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    squares.compute([*range(9)])
    asked = spy(monkeypatch, storage, "cat_ranges")
    squares.compute([*range(9)])
    assert asked == []


def test_a_damaged_row_is_named_when_it_is_read(squares: Squares, storage: UPath) -> None:
    squares.compute([3, 1, 2])
    (part,) = find_parts(storage)
    content = bytearray(part.read_bytes())
    content[-1] ^= 1
    part.write_bytes(bytes(content))
    values = squares.compute([3, 1, 2]).values
    np.testing.assert_array_equal(values[0], [3, 9])
    with pytest.raises(
        BadInputError, match=rf"the rows in {part} of the cache are gone or damaged"
    ):
        values[2]


def test_a_row_that_is_gone_is_named(squares: Squares, storage: UPath) -> None:
    values = squares.compute([3, 1, 2]).values
    (part,) = find_parts(storage)
    part.unlink()
    with pytest.raises(BadInputError, match="gone or damaged"):
        values[2]


def test_values_come_back_whole_or_not_at_all(storage: UPath) -> None:
    cache = Cache(storage / "cache")
    table = pd.DataFrame({"a": [1, 2]})
    assert cache.find(NAME, TABLE) is None
    cache.store(NAME, table, TABLE)
    found = cache.find(NAME, TABLE)
    assert found is not None
    pd.testing.assert_frame_equal(found, table)
    other = pd.DataFrame({"a": [5]})
    cache.store(NAME, other, TABLE)  # another process that had not seen the first
    found = cache.find(NAME, TABLE)
    assert found is not None
    pd.testing.assert_frame_equal(found, other)


def test_a_damaged_value_counts_as_absent(storage: UPath, caplog: pytest.LogCaptureFixture) -> None:
    cache = Cache(storage / "cache")
    cache.store(NAME, pd.DataFrame({"a": [1, 2]}), TABLE)
    (path,) = (own for own in storage.fs.find(storage.path) if own.endswith("table.parquet"))
    storage.fs.pipe_file(path, storage.fs.cat_file(path)[:-1])
    assert cache.find(NAME, TABLE) is None
    assert "is damaged" in caplog.text
    assert cache.get_or_compute(NAME, lambda: pd.DataFrame({"a": [3]}), TABLE)["a"].tolist() == [3]
    assert cache.find(NAME, TABLE) is not None


def test_a_value_whose_writer_was_killed_is_not_there(
    storage: UPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Cache(storage / "cache")
    monkeypatch.setattr(cache_module, "_CONTENTS", "never written")
    cache.store(NAME, pd.DataFrame({"a": [1]}), TABLE)
    monkeypatch.undo()
    assert cache.find(NAME, TABLE) is None


def test_a_file_takes_its_name_when_it_is_complete(storage: UPath) -> None:
    place = storage / "folder/a.txt"
    with write_whole(place) as file:
        file.write(b"before")
        assert not place.exists()
    with suppress(InterruptedError), write_whole(place) as file:
        file.write(b"half")
        raise InterruptedError
    assert place.read_bytes() == b"before"


def test_a_folder_is_complete_with_its_last_file(
    storage: UPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = storage / "model"
    (folder / "z.json").parent.mkdir(parents=True, exist_ok=True)
    (folder / "other.txt").write_text("of another stage")
    put = spy(monkeypatch, storage, "put_file")
    with replace_folder(folder, "a.json") as made:
        for name in ("a.json", "b.bin"):
            (made / name).write_text(name)
    assert [Path(own[1]).name for own in put] == ["b.bin", "a.json"]
    assert (folder / "other.txt").read_text() == "of another stage"
    with fetch(folder) as copy:
        assert sorted(own.name for own in copy.iterdir()) == ["a.json", "b.bin", "other.txt"]
    assert not copy.exists()


def test_what_is_refused_of_a_copy_names_its_place(storage: UPath) -> None:
    (storage / "a.txt").write_text("")
    with (
        pytest.raises(BadInputError, match=f"^{storage / 'a.txt'} is empty$"),
        fetch(storage / "a.txt") as copy,
    ):
        raise BadInputError(f"{copy} is empty")
