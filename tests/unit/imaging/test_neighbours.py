"""The nearest of many vectors: by an index as of all of them, but for a few."""

import numpy as np
import pytest

from busi_pipeline.errors import BadInputError
from busi_pipeline.imaging import neighbours
from busi_pipeline.imaging.neighbours import Neighbours

COUNT, DIMENSIONS = 600, 64


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    """Every second vector is like the one before it."""
    rng = np.random.default_rng(0)
    topics = rng.normal(size=(20, DIMENSIONS))
    made = topics[rng.integers(0, 20, COUNT)] + rng.normal(size=(COUNT, DIMENSIONS))
    made[1::2] = made[::2] + 0.3 * rng.normal(size=(COUNT // 2, DIMENSIONS))
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)


def test_all_are_looked_at_where_none_may_be_missed(vectors: np.ndarray) -> None:
    found = Neighbours(vectors, approximate=False).find(vectors, 8)
    np.testing.assert_array_equal(found, np.argsort(-vectors @ vectors.T, axis=1)[:, :8])


def test_the_index_finds_nearly_the_same(
    vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "_AT_ONCE", 250)
    exact = Neighbours(vectors, approximate=False).find(vectors, 8)
    found = Neighbours(vectors, approximate=True).find(vectors, 8)
    assert found.shape == exact.shape
    np.testing.assert_array_equal(found[:, 0], np.arange(COUNT))
    hits = [len(set(one) & set(other)) / 8 for one, other in zip(found, exact, strict=True)]
    assert np.mean(hits) > 0.95
    partners = np.arange(COUNT) ^ 1
    assert (found == partners[:, None]).any(axis=1).all()


def test_the_index_is_the_same_each_time(vectors: np.ndarray) -> None:
    first, second = (Neighbours(vectors, approximate=True).find(vectors, 8) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_more_than_there_are_is_all(vectors: np.ndarray) -> None:
    for approximate in (False, True):
        found = Neighbours(vectors[:5], approximate).find(vectors[:2], 30)
        assert found.shape == (2, 5)


def test_without_its_library_one_line_says_what_to_do(
    vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "find_spec", lambda _: None)
    with pytest.raises(BadInputError, match=r"600 images are more than .*exact_up_to.*\[scale\]"):
        Neighbours(vectors, approximate=True)
