"""Find images that show the same frame."""

from collections.abc import Callable, Mapping

import pandas as pd

from busi_pipeline.caching.cache import Cache
from busi_pipeline.config.schemas import DeduplicationSettings
from busi_pipeline.imaging.duplicate_search import find_duplicate_pairs


def find_duplicates(
    raw_images: Mapping[str, Callable[[], bytes]],
    manifest: pd.DataFrame,
    deduplication: DeduplicationSettings,
    cache: Cache,
) -> pd.DataFrame:
    """Return the pairs of images that belong together; see imaging.duplicate_search."""
    return find_duplicate_pairs(raw_images, manifest, deduplication, cache)
