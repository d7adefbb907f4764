"""The cache: computed once, found only under its fingerprint, whole or not there at all."""

import multiprocessing
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from busi_pipeline.caching import arrays
from busi_pipeline.caching import cache as cache_module
from busi_pipeline.caching.arrays import StoredArray, StoredRows
from busi_pipeline.caching.cache import TABLE, Cache, write_whole
from busi_pipeline.caching.fingerprints import Fingerprint, Step, hash_values
from busi_pipeline.errors import BadInputError
from tests.factories import Squares

TABLE_NAME = Fingerprint("table", {"of": "tests"})


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture
def squares(cache: Cache) -> Squares:
    return Squares(cache)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every chunk of two rows becomes a part of its own."""
    monkeypatch.setattr(cache_module, "_BYTES_A_PART", 8)


def find_part(tmp_path: Path) -> Path:
    """Return the only file of rows."""
    (part,) = (p for p in tmp_path.rglob("*.npy") if not p.name.endswith(".keys.npy"))
    return part


def read(array: StoredArray) -> np.ndarray:
    return array.values[np.arange(len(array.values))]


# Arrays


def test_array_comes_with_its_index(squares: Squares) -> None:
    stored = squares.compute([3, 1, 2])
    np.testing.assert_array_equal(read(stored), [[3, 9], [1, 1], [2, 4]])
    np.testing.assert_array_equal(stored.values[2], [2, 4])
    assert (len(stored.values), stored.values.shape, stored.values.dtype) == (3, (3, 2), np.float16)
    assert list(stored.index["image_id"]) == ["003", "001", "002"]
    assert list(stored.keys) == ["3", "1", "2"]
    assert stored.metadata["note"] == "kept"
    assert stored.metadata["computed"] == 3
    np.testing.assert_array_equal(stored.find_rows(["002", "003"]), [2, 0])


def test_an_image_that_is_not_there_is_named(squares: Squares) -> None:
    with pytest.raises(BadInputError, match=r"'xyz' is not among the 2 prepared images") as caught:
        squares.compute([1, 2]).find_rows(["002", "xyz"])
    assert "\n" not in str(caught.value)


def test_rows_are_computed_once_and_shared(squares: Squares) -> None:
    squares.compute([1, 2, 3])
    other = squares.compute([4, 3, 3, 5, 4])
    assert squares.computed == [1, 2, 3, 4, 5]
    np.testing.assert_array_equal(read(other)[:, 1], [16, 9, 9, 25, 16])
    again = squares.compute([1, 2, 3])
    assert squares.computed == [1, 2, 3, 4, 5]
    assert (again.metadata["computed"], again.metadata["seconds_now"]) == (0, 0)
    assert again.metadata["seconds"] > 0


def test_other_fingerprints_do_not_share(squares: Squares) -> None:
    squares.compute([1, 2])
    squares.compute([1, 2], made_by="another step")
    assert squares.computed == [1, 2, 1, 2]


@pytest.mark.usefixtures("small_parts")
def test_a_stopped_computation_goes_on(squares: Squares) -> None:
    squares.breaks_after = 4
    with pytest.raises(RuntimeError, match="power cut"):
        squares.compute([1, 2, 3, 4, 5, 6])
    squares.breaks_after = None
    stored = squares.compute([1, 2, 3, 4, 5, 6])
    assert squares.computed == [1, 2, 3, 4, 5, 6]
    assert stored.metadata["computed"] == 2
    np.testing.assert_array_equal(read(stored)[:, 0], [1, 2, 3, 4, 5, 6])


@pytest.mark.parametrize("surplus", [-1, 1])
def test_a_wrong_number_of_rows_is_refused(cache: Cache, surplus: int) -> None:
    index = pd.DataFrame({"image_id": ["a", "b", "c"]})
    with pytest.raises(ValueError, match="asked for"):
        cache.compute_array(
            TABLE_NAME, index, list("abc"), "uint8", lambda _: [np.zeros((3 + surplus, 2))]
        )


def test_as_many_keys_as_rows_are_needed(cache: Cache) -> None:
    with pytest.raises(ValueError, match="2 rows in the index, 1 keys"):
        cache.compute_array(TABLE_NAME, pd.DataFrame({"image_id": "ab"}, [0, 1]), ["a"], "u1", list)


def test_a_part_without_its_keys_does_not_count(squares: Squares, tmp_path: Path) -> None:
    stored = squares.compute([1, 2])
    find_part(tmp_path).with_suffix(".keys.npy").unlink()
    with pytest.raises(BadInputError, match=r"2 rows of squares are no longer in the cache"):
        squares.cache.open_array(stored.fingerprint, stored.index, stored.keys, {})
    squares.compute([1, 2])
    assert squares.computed == [1, 2, 1, 2]


@pytest.mark.parametrize("damage", ["cut", "empty", "other length", "keys"])
def test_a_damaged_part_is_named_and_computed_again(
    squares: Squares, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    squares.compute([1, 2])
    part = find_part(tmp_path)
    if damage == "cut":
        part.write_bytes(part.read_bytes()[:-3])
    elif damage == "empty":
        part.write_bytes(b"")
    elif damage == "other length":
        np.save(part, np.zeros((1, 2), np.float16))
    else:
        part.with_suffix(".keys.npy").write_bytes(b"no array")
    stored = squares.compute([1, 2])
    np.testing.assert_array_equal(read(stored), [[1, 1], [2, 4]])
    assert f"the cached rows in {part} are damaged" in caplog.text
    caplog.clear()
    squares.compute([1, 2])
    assert squares.computed == [1, 2, 1, 2]
    assert "damaged" not in caplog.text


@pytest.mark.parametrize("missing", [True, False])
def test_a_part_that_goes_while_it_is_read_is_named(
    squares: Squares, tmp_path: Path, missing: bool
) -> None:
    stored = pickle.loads(pickle.dumps(squares.compute([1, 2]).values))
    part = find_part(tmp_path)
    if missing:
        part.unlink()
    else:
        part.write_bytes(part.read_bytes()[:-3])
    with pytest.raises(BadInputError, match="gone or damaged") as caught:
        stored[[0, 1]]
    assert str(part) in str(caught.value)
    assert "\n" not in str(caught.value)


# StoredRows


@pytest.mark.usefixtures("small_parts")
def test_rows_of_many_parts_are_read_in_order(
    squares: Squares, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrays, "_MAPPED_PARTS", 2)
    numbers = list(np.random.default_rng(0).permutation(30))
    values = squares.compute(numbers).values
    np.testing.assert_array_equal(values[[5, 29, 0, 5]][:, 0], [numbers[i] for i in (5, 29, 0, 5)])
    assert values[np.int64(7)][0] == numbers[7]


def _sum_rows(rows: StoredRows) -> tuple[tuple[int, ...], float]:
    return rows.shape, float(rows[range(len(rows))].sum())


def test_stored_rows_pickle_into_another_process(squares: Squares) -> None:
    values = squares.compute([1, 2, 3]).values
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_sum_rows, [values]) == ((3, 2), 20.0)


# Values


class Computation:
    """Gives a table that says which time it was computed; counts the times."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> pd.DataFrame:
        self.times += 1
        return pd.DataFrame({"image_id": ["a", "None"], "time": self.times, "p": [0.1, None]})


@pytest.fixture
def computation(cache: Cache) -> Computation:
    """A computation whose result is in the cache."""
    computation = Computation()
    cache.get_or_compute(TABLE_NAME, computation, TABLE)
    return computation


def test_a_value_is_computed_once(cache: Cache, computation: Computation) -> None:
    found = cache.get_or_compute(TABLE_NAME, computation, TABLE)
    assert computation.times == 1
    pd.testing.assert_frame_equal(found, Computation()())


def test_a_value_of_another_fingerprint_is_not_found(
    cache: Cache, computation: Computation
) -> None:
    others = [Fingerprint("other", TABLE_NAME.values), Fingerprint("table", {"of": "others"})]
    assert [cache.find(other, TABLE) for other in others] == [None, None]
    assert cache.find(TABLE_NAME, TABLE) is not None


def test_an_empty_table_is_found(cache: Cache) -> None:
    empty = pd.DataFrame(columns=["image_a", "score"])
    cache.store(TABLE_NAME, empty, TABLE)
    found = cache.find(TABLE_NAME, TABLE)
    assert found is not None
    assert list(found.columns) == ["image_a", "score"]


@pytest.mark.parametrize("damage", ["changed", "cut", "gone", "more", "contents", "no contents"])
def test_a_damaged_value_is_computed_again(
    cache: Cache,
    computation: Computation,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    damage: str,
) -> None:
    (table,) = tmp_path.rglob("table.parquet")
    contents = table.with_name("contents.json")
    match damage:
        case "changed":
            content = bytearray(table.read_bytes())
            content[len(content) // 2] ^= 1
            table.write_bytes(content)
        case "cut":
            table.write_bytes(table.read_bytes()[:50])
        case "gone":
            table.unlink()
        case "more":
            table.with_name("other.txt").write_text("not of this value")
        case "contents":
            contents.write_text("{")
        case "no contents":
            contents.unlink()
    found = cache.get_or_compute(TABLE_NAME, computation, TABLE)
    assert computation.times == 2
    assert found["time"].tolist() == [2, 2]
    assert f"table: the cached value in {table.parent} is damaged" in caplog.text
    caplog.clear()
    assert cache.get_or_compute(TABLE_NAME, computation, TABLE)["time"].tolist() == [2, 2]
    assert "damaged" not in caplog.text


def test_the_first_of_two_values_stays(cache: Cache, computation: Computation) -> None:
    cache.store(TABLE_NAME, computation(), TABLE)
    found = cache.find(TABLE_NAME, TABLE)
    assert found is not None
    assert found["time"].tolist() == [1, 1]


def test_the_rest_of_a_deleted_value_is_replaced(cache: Cache, tmp_path: Path) -> None:
    """As when another process deletes it between the look-up and the computation's end."""
    place = tmp_path / "cache/table" / TABLE_NAME.digest[:32]
    place.mkdir(parents=True)
    (place / "table.parquet").write_text("rest")
    cache.store(TABLE_NAME, Computation()(), TABLE)
    found = cache.find(TABLE_NAME, TABLE)
    assert found is not None
    assert found["time"].tolist() == [1, 1]


def test_a_value_that_could_not_be_written_leaves_nothing(cache: Cache, tmp_path: Path) -> None:
    with pytest.raises(AttributeError):
        cache.store(TABLE_NAME, "no table", TABLE)  # type: ignore[arg-type]
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("before")
    with write_whole(path) as file:
        file.write(b"after")
        file.flush()
        assert path.read_text() == "before"
    assert path.read_text() == "after"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_was_not_completed_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("before")

    def write() -> None:
        with write_whole(path) as file:
            file.write(b"af")
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        write()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


# Fingerprints


def test_order_of_keys_does_not_matter_and_values_do() -> None:
    assert hash_values({"a": 1, "b": [2, 3]}) == hash_values({"b": [2, 3], "a": 1})
    assert hash_values({"a": 1, "b": [2, 3]}) != hash_values({"a": 1, "b": [3, 2]})


@pytest.mark.parametrize(
    "step",
    [
        Step("other", 1, (), ("numpy",)),
        Step("step", 2, (), ("numpy",)),
        Step("step", 1, (), ("numpy", "pandas")),
    ],
)
def test_name_version_and_libraries_of_a_step_decide(step: Step) -> None:
    before = Step("step", 1, (), ("numpy",)).fingerprint(size=3)
    assert step.fingerprint(size=3).digest != before.digest


def test_where_the_code_of_a_step_stands_does_not_decide() -> None:
    first, moved = (Step("step", 1, (code,), ()).fingerprint(size=3) for code in ("a:b", "c:d"))
    assert first.digest == moved.digest


def test_another_version_of_a_library_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    step: Any = Step("step", 1, (), ("numpy",))
    before = step.fingerprint().digest
    monkeypatch.setattr("busi_pipeline.caching.fingerprints.version", lambda _: "0.0")
    assert step.fingerprint().digest != before


def test_a_variable_that_changes_a_library_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    trained = Step("step", 1, (), ("numpy", "tensorflow"))
    other = Step("step", 1, (), ("numpy",))
    monkeypatch.delenv("TF_DETERMINISTIC_OPS", raising=False)
    before, of_other = trained.fingerprint(), other.fingerprint()
    monkeypatch.setenv("TF_DETERMINISTIC_OPS", "1")
    assert trained.fingerprint().values["variables"] == {"TF_DETERMINISTIC_OPS": "1"}
    assert trained.fingerprint().digest != before.digest
    assert other.fingerprint() == of_other
    monkeypatch.setenv("TF_DETERMINISTIC_OPS", "")
    assert trained.fingerprint() == before
