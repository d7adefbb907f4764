"""Measure what may explain a failure: size of the lesion, annotations, brightness."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from busi_pipeline.caching.cache import TABLE, Cache
from busi_pipeline.caching.fingerprints import Step, hash_values
from busi_pipeline.imaging.annotation_search import find_burned_in_annotations
from busi_pipeline.imaging.decoding import decode_image
from busi_pipeline.imaging.masks import hash_masks, load_mask
from busi_pipeline.progress import track

RawImages = Mapping[str, Callable[[], bytes]]
_MASK_SIZE = 256

IMAGE_PROPERTIES = Step(
    "image_properties",
    1,
    ("busi_pipeline.pipelines.external_validation.properties:_measure_all",),
    ("numpy", "pillow"),
)


def measure_properties(raw_images: RawImages, manifest: pd.DataFrame, cache: Cache) -> pd.DataFrame:
    """Return one row an image of the manifest, in its order.

    `image_id`; `brightness` and `contrast` (mean and standard deviation of grey, 0 to 255);
    `lesion_share` (of the image's area), `lesion_at_border` (0 or 1) and `lesion_mm` (longest side
    of the lesion's box; nan without a pixel spacing), all nan where neither mask nor box is there;
    `annotated` (callipers or text are found) and `colour`, 0 or 1.
    """
    masks = [json.loads(paths) for paths in manifest["mask_paths"]]
    columns = ["image_id", "byte_sha256", "box", "height", "width", "pixel_spacing_mm"]
    fingerprint = IMAGE_PROPERTIES.fingerprint(
        images=hash_values(manifest[columns].astype(str).to_numpy().tolist()),
        masks=hash_values([hash_masks(raw_images, paths) for paths in masks]),
    )
    measured = cache.get_or_compute(
        fingerprint, lambda: _measure_all(raw_images, manifest, masks), TABLE
    )
    annotations = find_burned_in_annotations(raw_images, manifest, cache)
    annotated = annotations["callipers"].astype(bool) | annotations["text"].astype(bool)
    return measured.assign(
        annotated=annotated.astype(int).to_numpy(),
        colour=manifest["colour_overlay"].astype(bool).astype(int).to_numpy(),
    )


def _measure_all(
    raw_images: RawImages, manifest: pd.DataFrame, masks: list[list[str]]
) -> pd.DataFrame:
    rows = []
    images = track(manifest.to_dict("records"), "properties of images", "image")
    for image, paths in zip(images, masks, strict=True):
        grey = decode_image(raw_images[image["path"]]()).pixels.mean(axis=2)
        rows.append(
            {
                "image_id": image["image_id"],
                "brightness": float(grey.mean()),
                "contrast": float(grey.std()),
                **_measure_lesion(raw_images, image, paths),
            }
        )
    return pd.DataFrame(rows)


def _measure_lesion(
    raw_images: RawImages, image: Mapping[Any, Any], paths: list[str]
) -> dict[str, float]:
    """Measure the mask; the box where there is no mask, or an empty one."""
    unknown = dict.fromkeys(("lesion_share", "lesion_at_border", "lesion_mm"), np.nan)
    spacing = float(pd.to_numeric(image["pixel_spacing_mm"] or np.nan, errors="coerce"))
    mask = load_mask(raw_images, paths, _MASK_SIZE).astype(bool)
    if mask.any():
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        top, bottom, left, right = (
            edge / _MASK_SIZE for edge in (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1)
        )
        share = float(mask.mean())
    elif image["box"]:
        x, y, width, height = (float(number) for number in str(image["box"]).split())
        left, right = x / image["width"], (x + width) / image["width"]
        top, bottom = y / image["height"], (y + height) / image["height"]
        share = (right - left) * (bottom - top) * np.pi / 4  # of an ellipse in the box
    else:
        return unknown
    sides = (right - left) * image["width"], (bottom - top) * image["height"]
    at_border = min(left, top) <= 0 or max(right, bottom) >= 1
    return {
        "lesion_share": share,
        "lesion_at_border": float(at_border),
        "lesion_mm": max(sides) * spacing,
    }
