"""Lesion occlusion: every image gets a box, in its own grey; nothing else changes."""

from pathlib import Path

import numpy as np
import pytest

from busi_pipeline.caching.arrays import StoredArray
from busi_pipeline.caching.cache import Cache
from busi_pipeline.errors import BadInputError
from busi_pipeline.imaging.occlusion import find_bounding_box, occlude_lesions
from tests.factories import store_array

IDS = ["a", "b", "c"]


@pytest.fixture
def images(rng: np.random.Generator) -> StoredArray:
    return store_array(IDS, rng.integers(0, 256, (3, 40, 40, 3), dtype=np.uint8))


@pytest.fixture
def masks() -> StoredArray:
    """Lesions in the first two images, none in the third; in another order than the images."""
    values = np.zeros((3, 40, 40), dtype=np.uint8)
    values[2, 10:20, 10:20] = 1
    values[0, 30:38, 2:12] = 1
    return store_array(["b", "c", "a"], values)


def find_box(before: np.ndarray, after: np.ndarray) -> tuple[int, int, int, int]:
    """Return top, bottom, left, right of what changed."""
    rows, columns = np.nonzero((before != after).any(axis=-1))
    return rows.min(), rows.max() + 1, columns.min(), columns.max() + 1


def test_the_lesion_is_occluded_in_every_window(
    images: StoredArray, masks: StoredArray, tmp_path: Path
) -> None:
    windows = [0, 0, 0, 1, 1, 1]
    near = np.concatenate([masks.values, np.zeros_like(masks.values)])
    near[3:, 18:22, 18:22] = 1
    both = np.concatenate([images.values] * 2)
    occluded = occlude_lesions(
        store_array(IDS * 2, both, window=windows),
        store_array(["b", "c", "a"] * 2, near, window=windows),
        Cache(tmp_path),
    )
    boxes = [find_box(both[i], occluded.values[i]) for i in range(6)]
    assert boxes[0] == (9, 21, 9, 21)
    assert boxes[3:] == [(18, 22, 18, 22)] * 3
    assert occluded.windows == 2


def test_a_box_is_a_tenth_wider_each_way() -> None:
    lesion = np.zeros((40, 40), dtype=np.uint8)
    lesion[10:20, 10:30] = 1
    assert find_bounding_box(lesion) == (9, 21, 8, 32)
    lesion[:] = 1
    assert find_bounding_box(lesion) == (0, 40, 0, 40)
    assert find_bounding_box(np.zeros((5, 5))) is None


def test_every_image_gets_a_box_in_its_mean_grey(
    images: StoredArray, masks: StoredArray, tmp_path: Path
) -> None:
    before = np.array(images.values)
    occluded = occlude_lesions(images, masks, Cache(tmp_path))
    after = occluded.values[[0, 1, 2]]
    np.testing.assert_array_equal(images.values, before)
    boxes = [find_box(before[i], after[i]) for i in range(3)]
    assert boxes[0] == (9, 21, 9, 21)
    assert boxes[1] == (29, 39, 1, 13)
    assert boxes[2] in boxes[:2], "an image without a lesion gets the box of another"
    for i, (top, bottom, left, right) in enumerate(boxes):
        assert (after[i, top:bottom, left:right] == np.round(before[i].mean())).all()
    assert list(occluded.index["image_id"]) == IDS


def test_another_mask_makes_another_row(
    images: StoredArray, masks: StoredArray, tmp_path: Path
) -> None:
    cache = Cache(tmp_path)
    occlude_lesions(images, masks, cache)
    masks.values[2, 10:20, 10:25] = 1  # type: ignore[index]  # an array here
    again = occlude_lesions(images, masks, cache)
    assert again.metadata["computed"] in (1, 2), "that image, and the one that borrows its box"


def test_no_mask_at_all_is_a_bad_input(images: StoredArray, tmp_path: Path) -> None:
    empty = store_array(IDS, np.zeros((3, 40, 40), dtype=np.uint8))
    with pytest.raises(BadInputError, match="no image has a lesion mask"):
        occlude_lesions(images, empty, Cache(tmp_path))
