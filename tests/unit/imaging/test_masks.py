"""Lesion masks: found beside their images, joined, brought to the network's size."""

import numpy as np
import pytest
from PIL import Image

from busi_pipeline.imaging.masks import find_owner, hash_masks, list_masks, load_mask
from tests.factories import as_raw_images, encode_image


@pytest.mark.parametrize(
    ("path", "owner"),
    [
        ("benign/benign (1)_mask.png", ("benign", "benign (1)")),
        ("benign/benign (1)_mask_2.png", ("benign", "benign (1)")),
        ("benign/benign (1)_MASK.png", ("benign", "benign (1)")),
        ("benign/benign (1).png", None),
        ("benign/_mask.png", None),
        ("benign/unmasked.png", None),
    ],
)
def test_a_mask_names_its_image(path: str, owner: tuple[str, str] | None) -> None:
    assert find_owner(path) == owner


def test_masks_are_listed_by_image() -> None:
    paths = ["a/1.png", "a/1_mask.png", "a/1_mask_1.png", "b/1.png", "b/2_mask.png"]
    assert list_masks(paths) == {"a/1": ["a/1_mask.png", "a/1_mask_1.png"], "b/2": ["b/2_mask.png"]}


def paint_mask(rows: slice, columns: slice) -> bytes:
    mask = np.zeros((60, 80), dtype=np.uint8)
    mask[rows, columns] = 255
    return encode_image(Image.fromarray(mask))


def test_masks_of_one_image_are_joined() -> None:
    raw = as_raw_images(
        {"m": paint_mask(np.s_[:30], np.s_[:40]), "m_1": paint_mask(np.s_[30:], np.s_[40:])}
    )
    mask = load_mask(raw, ["m", "m_1"], 20)
    assert (mask.shape, mask.dtype) == ((20, 20), np.uint8)
    np.testing.assert_array_equal(mask[:10, :10], 1)
    np.testing.assert_array_equal(mask[10:, 10:], 1)
    assert mask.mean() == 0.5


def test_an_image_without_mask_is_zero() -> None:
    assert load_mask({}, [], 20).sum() == 0


def test_the_hash_follows_bytes_and_order() -> None:
    raw = as_raw_images({"a": b"1", "b": b"2", "c": b"1"})
    assert hash_masks(raw, ["a", "b"]) == hash_masks(raw, ["c", "b"])
    assert len({hash_masks(raw, paths) for paths in (["a"], ["a", "b"], ["b", "a"], [])}) == 4
