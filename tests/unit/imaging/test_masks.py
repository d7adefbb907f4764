"""Lesion masks: told from images, joined, brought to the network's size."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from busi_pipeline.imaging.decoding import decode_image
from busi_pipeline.imaging.masks import find_owners, hash_masks, is_two_valued, load_mask
from busi_pipeline.synthetic import simulate_scan
from tests.factories import as_raw_images, encode_image


@pytest.mark.parametrize(
    ("path", "owners"),
    [
        ("benign/benign (1)_mask.png", [("benign", "benign (1)")]),
        ("benign/benign (1)_mask_2.png", [("benign", "benign (1)")]),
        ("Benign/benign (1)_MASK.png", [("benign", "benign (1)")]),
        ("benign/Masks/x_mask.png", [("benign", "x_mask"), ("benign", "x")]),
        ("masks/mask_x.png", [("masks", "x")]),
        ("benign/benign (1).png", []),
        ("benign/_mask.png", []),
        ("benign/unmasked.png", []),
        ("benign/x_mask_" + "1" * 60 + "x.png", []),
    ],
)
def test_a_mask_names_its_image(path: str, owners: list[tuple[str, str]]) -> None:
    assert find_owners(path) == owners


# Two-valued


def draw_mask(low: int = 0, high: int = 255, size: int = 300) -> Image.Image:
    y, x = np.mgrid[:size, :size] / size
    inside = ((x - 0.45) / 0.25) ** 2 + ((y - 0.5) / 0.2) ** 2 < 1
    return Image.fromarray(np.where(inside, high, low).astype(np.uint8))


def compress(image: Image.Image) -> Image.Image:
    return Image.open(io.BytesIO(encode_image(image, "JPEG", quality=50)))


def colour(image: Image.Image) -> Image.Image:
    """Return the mask in red, and in blue above its middle."""
    red = np.zeros((300, 300, 3), dtype=np.uint8)
    red[..., 0] = image
    red[:150] = red[:150, :, ::-1]
    return Image.fromarray(red)


@pytest.mark.parametrize(
    "change",
    [
        lambda mask: mask,
        compress,
        colour,
        lambda mask: compress(colour(mask)),
        lambda mask: mask.convert("1"),
        lambda mask: mask.resize((150, 150), Image.Resampling.BILINEAR),
        lambda mask: mask.point(lambda value: value // 255),
        lambda mask: mask.point(lambda value: 255 - value),
        lambda mask: Image.new("L", mask.size, 0),
        lambda mask: compress(Image.new("RGB", mask.size, (40, 40, 40))),
    ],
)
def test_masks_are_two_valued(change: Callable[[Image.Image], Image.Image]) -> None:
    content = encode_image(change(draw_mask()))
    assert is_two_valued(decode_image(content).pixels)


@pytest.mark.parametrize("label", ["benign", "malignant", "normal"])
@pytest.mark.parametrize("brightness", [1, 0.3])
def test_images_are_not_two_valued(label: str, brightness: float) -> None:
    scan = Image.fromarray(simulate_scan(label, 120, 150, np.random.default_rng(1)).image)
    dim = scan.point(lambda value: int(value * brightness))
    assert not is_two_valued(decode_image(encode_image(dim)).pixels)


def test_a_drawing_on_an_image_is_not_two_valued() -> None:
    scan = simulate_scan("benign", 120, 150, np.random.default_rng(1)).image
    drawn = np.stack([scan] * 3, axis=-1)
    drawn[30:80, 40:90] = (255, 0, 0)
    assert not is_two_valued(drawn)


# Loading


def paint_mask(rows: slice, columns: slice, value: int | tuple[int, ...] = 255) -> bytes:
    mask = np.zeros((60, 80) if isinstance(value, int) else (60, 80, 3), dtype=np.uint8)
    mask[rows, columns] = value
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


@pytest.mark.parametrize(
    ("value", "share"),
    [(255, 0.25), (128, 0.25), (127, 0), (1, 0.25), ((255, 0, 0), 0.25), ((0, 0, 200), 0.25)],
)
def test_any_bright_channel_is_inside(value: int | tuple[int, ...], share: float) -> None:
    raw = as_raw_images({"m": paint_mask(np.s_[:30], np.s_[:40], value)})
    assert load_mask(raw, ["m"], 20).mean() == share


def test_an_image_without_mask_is_zero() -> None:
    assert load_mask({}, [], 20).sum() == 0


def test_the_hash_follows_bytes_and_order() -> None:
    raw = as_raw_images({"a": b"1", "b": b"2", "c": b"1"})
    assert hash_masks(raw, ["a", "b"]) == hash_masks(raw, ["c", "b"])
    assert len({hash_masks(raw, paths) for paths in (["a"], ["a", "b"], ["b", "a"], [])}) == 4
