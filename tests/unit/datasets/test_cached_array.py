"""Arrays of the catalog: what is saved comes back, and index and keys belong to one array."""

import json
from pathlib import Path

import numpy as np
import pytest
from kedro.io import DatasetError

from busi_pipeline.caching.arrays import StoredArray
from busi_pipeline.datasets.cached_array import CachedArrayDataset, CacheDataset
from busi_pipeline.errors import BadInputError, find_bad_input
from tests.factories import Squares


@pytest.fixture
def squares(tmp_path: Path) -> Squares:
    return Squares(CacheDataset(str(tmp_path / "cache")).load())


@pytest.fixture
def dataset(tmp_path: Path) -> CachedArrayDataset:
    return CachedArrayDataset(str(tmp_path / "a.json"), {"path": str(tmp_path / "cache")})


def assert_same(stored: StoredArray, expected: StoredArray) -> None:
    assert stored.index.to_dict("list") == expected.index.to_dict("list")
    assert list(stored.keys) == list(expected.keys)
    assert stored.fingerprint.digest == expected.fingerprint.digest
    rows = np.arange(len(expected.keys))
    np.testing.assert_array_equal(stored.values[rows], expected.values[rows])


def test_an_array_comes_back(squares: Squares, dataset: CachedArrayDataset) -> None:
    saved = squares.compute([3, 1, 2])
    dataset.save(saved)
    stored = dataset.load()
    assert_same(stored, saved)
    assert stored.metadata == saved.metadata
    assert stored.metadata["note"] == "kept"


def test_the_last_array_that_was_saved_counts(
    squares: Squares, dataset: CachedArrayDataset
) -> None:
    for numbers in ([1, 2, 3], [7, 8]):
        saved = squares.compute(numbers)
        dataset.save(saved)
        assert_same(dataset.load(), saved)


def test_index_and_keys_never_mix(
    squares: Squares, dataset: CachedArrayDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Saving that is cut off anywhere leaves the array before as it was."""
    before = squares.compute([1, 2, 3])
    dataset.save(before)
    broken = squares.compute([4, 5])
    monkeypatch.setitem(broken.metadata, "note", object())  # JSON cannot hold it
    with pytest.raises(DatasetError):
        dataset.save(broken)
    assert_same(dataset.load(), before)


def test_an_array_that_was_not_saved_is_named(dataset: CachedArrayDataset) -> None:
    assert not dataset.exists()
    with pytest.raises(DatasetError, match="run the stage that writes it first"):
        dataset.load()


def test_rows_that_were_deleted_are_a_bad_input(
    squares: Squares, dataset: CachedArrayDataset, tmp_path: Path
) -> None:
    dataset.save(squares.compute([1, 2]))
    for file in (tmp_path / "cache").rglob("*.npy"):
        file.unlink()
    with pytest.raises(DatasetError) as caught:
        dataset.load()
    error = find_bad_input(caught.value)
    assert isinstance(error, BadInputError)
    assert "2 rows of squares are no longer in the cache" in str(error)


def test_the_file_names_the_fingerprint(
    squares: Squares, dataset: CachedArrayDataset, tmp_path: Path
) -> None:
    dataset.save(squares.compute([1], made_by="somebody"))
    saved = json.loads((tmp_path / "a.json").read_text())
    assert saved["fingerprint"] == {"step": "squares", "values": {"made_by": "somebody"}}


def test_the_cache_itself_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="nodes store values in it"):
        CacheDataset(str(tmp_path)).save("anything")  # type: ignore[arg-type]
