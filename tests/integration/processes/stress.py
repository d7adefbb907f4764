"""What each of several processes does to one cache at once; every value can be checked."""

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from busi_pipeline.caching.arrays import StoredArray
from busi_pipeline.caching.cache import TABLE, Cache
from busi_pipeline.caching.fingerprints import Fingerprint, hash_values
from busi_pipeline.datasets.cached_array import CachedArrayDataset

ROUNDS = 40
CONTENTS = 6


def make_row(key: str) -> np.ndarray:
    """Return the only right row of a key: float32 (8,)."""
    return np.frombuffer(bytes.fromhex(key[:64]), dtype=np.uint8)[:8].astype(np.float32)


def make_content(number: int) -> tuple[pd.DataFrame, list[str]]:
    """Return index and keys of one of the arrays that are saved in turn; some rows are shared."""
    ids = [f"{number}/{row}" for row in range(5 + number)]
    keys = [hash_values([number % 2, row]) for row in range(len(ids))]
    return pd.DataFrame({"image_id": ids, "key": keys}), keys


def fill(cache: Cache, number: int) -> StoredArray:
    """Return an array through the cache, whose missing rows are computed."""
    index, keys = make_content(number)

    def compute(positions: np.ndarray) -> Iterator[np.ndarray]:
        for position in positions:
            yield make_row(keys[position])[None]

    return cache.compute_array(Fingerprint("rows", {}), index, keys, "float32", compute)


def check(array: StoredArray) -> None:
    """Raise AssertionError where index, keys and rows are not of one array."""
    expected_index, expected_keys = make_content(int(array.index["image_id"][0].split("/")[0]))
    assert array.index.to_dict("list") == expected_index.to_dict("list"), "index of another array"
    assert list(array.keys) == expected_keys, "keys of another array"
    rows = array.values[np.arange(len(expected_keys))]
    assert (rows == np.stack([make_row(key) for key in expected_keys])).all(), "wrong rows"


def work(folder: Path, seed: int) -> int:
    """Save, load, fill, store and find at random; return how many values were checked."""
    rng = random.Random(seed)
    cache = Cache(folder / "cache")
    dataset = CachedArrayDataset(str(folder / "array.json"), str(folder / "cache"))
    checked = 0
    for _ in range(ROUNDS):
        array = fill(cache, rng.randrange(CONTENTS))
        check(array)
        dataset.save(array)
        check(dataset.load())
        number = rng.randrange(CONTENTS)
        fingerprint = Fingerprint("table", {"number": number})
        expected = make_content(number)[0]
        found = cache.get_or_compute(fingerprint, expected.copy, TABLE)
        assert found.to_dict("list") == expected.to_dict("list"), "another table"
        if rng.random() < 0.2:
            damage(folder, fingerprint, rng)
        checked += 3
    return checked


def damage(folder: Path, fingerprint: Fingerprint, rng: random.Random) -> None:
    """Delete a file of a stored value, as somebody who empties the cache does file by file."""
    name = rng.choice(["table.parquet", "contents.json"])
    file = folder / "cache" / fingerprint.step / fingerprint.digest[:32] / name
    file.unlink(missing_ok=True)
