"""Lesion occlusion: images whose lesion cannot be seen."""

import hashlib
from collections.abc import Iterator

import numpy as np

from busi_pipeline.caching.arrays import WINDOW, StoredArray
from busi_pipeline.caching.cache import Cache
from busi_pipeline.caching.fingerprints import Step, hash_values
from busi_pipeline.errors import BadInputError
from busi_pipeline.progress import track

_WIDER = 0.1


OCCLUSION = Step("occluded_images", 1, ("busi_pipeline.imaging.occlusion:_occlude",), ("numpy",))


def occlude_lesions(images: StoredArray, masks: StoredArray, cache: Cache) -> StoredArray:
    """Return uint8 (n, size, size, 3): the images with a grey box over every lesion.

    The box is the lesion's bounding box, a tenth wider each way, in the mean grey of the image. An
    image without a lesion gets the box of another image, so that a box alone gives nothing away.

    Args:
        images: uint8 (n, size, size, 3).
        masks: uint8 (n, size, size) of the same images.
        cache: of the occluded images.

    Raises BadInputError where no image has a mask.
    """
    boxes = _list_boxes(masks, images)

    def compute(positions: np.ndarray) -> Iterator[np.ndarray]:
        for position in track(positions.tolist(), "images with occluded lesions", "image"):
            yield _occlude(np.array(images.values[position]), boxes[position])[None]

    return cache.compute_array(
        OCCLUSION.fingerprint(images=images.fingerprint.digest),
        images.index,
        [hash_values([key, *box]) for key, box in zip(images.keys, boxes, strict=True)],
        "uint8",
        compute,
    )


def _occlude(pixels: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    top, bottom, left, right = box
    pixels[top:bottom, left:right] = np.round(pixels.mean())
    return pixels


def _list_boxes(masks: StoredArray, images: StoredArray) -> list[tuple[int, int, int, int]]:
    """Return top, bottom, left, right of the box in each row of the images, in pixels."""
    image_ids = images.index["image_id"]
    rows = masks.find_rows(image_ids, images.index.get(WINDOW, 0))
    own = [find_bounding_box(np.asarray(masks.values[row])) for row in rows]
    lenders = [box for box in own if box]
    if not lenders:
        raise BadInputError(
            "no image has a lesion mask (<image>_mask.png beside it): there is nothing to occlude."
        )
    boxes = []
    for image_id, box in zip(image_ids, own, strict=True):
        digest = hashlib.sha256(image_id.encode()).digest()
        boxes.append(box or lenders[int.from_bytes(digest[:8], "big") % len(lenders)])
    return boxes


def find_bounding_box(lesion: np.ndarray) -> tuple[int, int, int, int] | None:
    """Return top, bottom, left, right of the box over a lesion (h, w); None where there is none."""
    if not lesion.any():
        return None
    ends = []
    for axis in (1, 0):
        inside = np.flatnonzero(lesion.any(axis=axis))
        wider = round(_WIDER * (inside[-1] - inside[0] + 1))
        ends += [max(0, int(inside[0]) - wider), min(len(lesion), int(inside[-1]) + wider + 1)]
    return ends[0], ends[1], ends[2], ends[3]
