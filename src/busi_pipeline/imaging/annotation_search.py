"""Find burned-in annotations, once a data set."""

from collections.abc import Callable, Mapping

import pandas as pd

from busi_pipeline.caching.cache import TABLE, Cache
from busi_pipeline.caching.fingerprints import Step, hash_values
from busi_pipeline.imaging.burned_in_annotations import Annotation, find_cross, find_text
from busi_pipeline.imaging.decoding import decode_image
from busi_pipeline.progress import track

BURNED_IN_ANNOTATIONS = Step(
    "burned_in_annotations",
    1,
    ("busi_pipeline.imaging.annotation_search:_search",),
    ("opencv-python-headless", "pillow", "numpy"),
)


def find_burned_in_annotations(
    raw_images: Mapping[str, Callable[[], bytes]], manifest: pd.DataFrame, cache: Cache
) -> pd.DataFrame:
    """Find the images that carry callipers, text or colour.

    The table's columns: `image_id`, `label`, the bools `callipers`, `text` and `colour`, and for
    callipers and text the one that was found: `<kind>_left`, `_top`, `_width`, `_height` (pixels)
    and `_score`, or nothing.
    """
    images = hash_values(manifest[["image_id", "label", "byte_sha256"]].to_numpy().tolist())
    fingerprint = BURNED_IN_ANNOTATIONS.fingerprint(images=images)
    return cache.get_or_compute(fingerprint, lambda: _search(raw_images, manifest), TABLE)


def _search(raw_images: Mapping[str, Callable[[], bytes]], manifest: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for image in track(manifest.to_dict("records"), "burned-in annotations", "image"):
        grey = decode_image(raw_images[image["path"]]()).pixels.max(axis=2)
        row = {"image_id": image["image_id"], "label": image["label"]}
        row["colour"] = bool(image["colour_overlay"])
        for kind, find in (("callipers", find_cross), ("text", find_text)):
            found = find(grey)
            row[kind] = found is not None
            row |= {f"{kind}_{key}": getattr(found, key, None) for key in Annotation._fields}
        rows.append(row)
    return pd.DataFrame(rows)
