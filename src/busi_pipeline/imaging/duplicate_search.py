"""Find images that show the same frame."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from busi_pipeline.caching.cache import TABLE, Cache
from busi_pipeline.caching.fingerprints import Step, hash_values
from busi_pipeline.imaging.decoding import decode_image
from busi_pipeline.progress import track

if TYPE_CHECKING:
    from busi_pipeline.imaging.duplicate_matching import Alignment, Picture

logger = logging.getLogger(__name__)

PAIR_COLUMNS = [
    "image_a",
    "image_b",
    "label_a",
    "label_b",
    "kind",
    "same_frame",
    "score",
    "flipped",
    "scale",
    "overlap",
    "inliers",
]
# Pictures held at once, under a megabyte each.
_HELD = 2048
_LEARNED_FROM = 2000
# Comparisons handed to the threads at once.
_BLOCK = 10_000
_NEIGHBOUR = "neighbouring frame"

RawImages = Mapping[str, Callable[[], bytes]]


class SearchSettings(Protocol):
    """How duplicates are searched; `config.schemas.DeduplicationSettings` fits."""

    @property
    def longest_side(self) -> int: ...

    @property
    def keypoints(self) -> int: ...

    @property
    def exact_up_to(self) -> int: ...

    @property
    def candidates(self) -> int: ...

    @property
    def flipped_candidates(self) -> int: ...

    @property
    def min_inliers(self) -> int: ...

    @property
    def min_shared(self) -> float: ...

    @property
    def same_frame(self) -> float: ...

    @property
    def neighbouring_frame(self) -> float: ...


DUPLICATES = Step(
    "duplicates",
    3,
    ("busi_pipeline.imaging.duplicate_search:_search",),
    ("numpy", "opencv-python-headless", "pillow", "scikit-learn", "scipy"),
)
_DECIDING = (
    "longest_side",
    "keypoints",
    "candidates",
    "flipped_candidates",
    "min_inliers",
    "min_shared",
    "same_frame",
    "neighbouring_frame",
)


def find_duplicate_pairs(
    raw_images: RawImages, manifest: pd.DataFrame, settings: SearchSettings, cache: Cache
) -> pd.DataFrame:
    """Find the pairs of images that show one frame, and neighbouring frames of one scan.

    Args:
        raw_images: {path: function that reads the bytes}.
        manifest: one row an image.
        settings: `longest_side` (pixels) and `keypoints` of the pictures that are matched;
            `candidates` and `flipped_candidates`, how many likely partners of each image and of
            its horizontal flip are compared, `exact_up_to`, of how many images all are looked at
            for that; `min_inliers`; `min_shared`, the share of the smaller
            image that both show; `same_frame` and `neighbouring_frame`, from which correlation on
            a pair is one.
        cache: where the table is taken from, if it was computed before.

    The table has PAIR_COLUMNS, one row a pair. `score` is the correlation of fine detail once one
    image is laid on the other (1 for identical ones). `kind` is `identical file`,
    `identical pixels`, `re-annotated` (same region, something drawn or removed), `re-cropped`,
    `zoomed` or `neighbouring frame`; all but the last have `same_frame`. `flipped` says whether
    one had to be flipped. `scale` enlarges b to a; `overlap` is the share of a that b covers.
    """
    indexed = {"indexed": True} if len(manifest) > settings.exact_up_to else {}
    fingerprint = DUPLICATES.fingerprint(
        settings={name: getattr(settings, name) for name in _DECIDING} | indexed,
        images=hash_values(manifest[["image_id", "label", "byte_sha256"]].to_numpy().tolist()),
    )
    return cache.get_or_compute(fingerprint, lambda: _search(raw_images, manifest, settings), TABLE)


def label_components(links: Iterable[tuple[int, int]], count: int) -> np.ndarray:
    """Return int (count,): a number for each of `count` things, the same where links connect."""
    ends = np.array(list(links), dtype=int).reshape(-1, 2)
    graph = coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(count, count))
    return connected_components(graph, directed=False)[1]


def _search(
    raw_images: RawImages, manifest: pd.DataFrame, settings: SearchSettings
) -> pd.DataFrame:
    with TemporaryDirectory(prefix="pictures_") as folder:
        picture = _describe_once(raw_images, manifest, settings, Path(folder))
        return _search_with(picture, manifest, settings, Path(folder))


def _describe_once(
    raw_images: RawImages, manifest: pd.DataFrame, settings: SearchSettings, folder: Path
) -> "Callable[[int], Picture]":
    """Return what gives the picture at a position of the manifest.

    An image is compared with some forty others anywhere in the manifest. Where memory does not hold
    all pictures, they are read back from the folder, many times faster than described anew. Threads
    may ask for pictures at once, but not for one picture before it was given for the first time.
    """
    from busi_pipeline.imaging import duplicate_matching as matching

    @lru_cache(_HELD)
    def picture(position: int) -> "Picture":
        kept = folder / f"{position}.npz"
        if kept.exists():
            return matching.load_picture(kept)
        pixels = decode_image(raw_images[manifest["path"].iloc[position]]()).pixels
        described = matching.describe_picture(pixels, settings.longest_side, settings.keypoints)
        if len(manifest) > _HELD:
            np.savez(kept, **described._asdict())
        return described

    return picture


def _search_with(
    picture: "Callable[[int], Picture]",
    manifest: pd.DataFrame,
    settings: SearchSettings,
    folder: Path,
) -> pd.DataFrame:
    from busi_pipeline.imaging import duplicate_matching as matching
    from busi_pipeline.imaging.neighbours import Neighbours

    def align(pair: tuple[int, int, bool]) -> "Alignment":
        first, second = picture(pair[0]), picture(pair[1])
        if pair[2]:
            second = matching.flip_picture(second)
        return matching.align_pictures(first, second, settings.min_inliers, settings.min_shared)

    def align_all(pairs: Iterable[tuple[int, int, bool]], what: str) -> None:
        new = sorted(set(pairs) - set(found))
        aligned = track(_map_in_threads(align, new), what, "pair", total=len(new))
        found.update(
            (pair, one)
            for pair, one in zip(new, aligned, strict=True)
            if one.correlation >= settings.neighbouring_frame or pair[:2] in identical
        )

    identical = dict(_find_identical(manifest))
    count = len(manifest)
    some = np.random.default_rng(0).permutation(count)[:_LEARNED_FROM]
    with ThreadPoolExecutor() as pool:
        summary = matching.learn_summary(list(pool.map(picture, some.tolist())), seed=0)

        def summarise(position: int) -> tuple[np.ndarray, np.ndarray]:
            plain = picture(position)
            return summary.apply(plain), summary.apply(matching.flip_picture(plain))

        summaries = pool.map(summarise, range(count))
        plain, turned = _make_room(folder, count, summary.dimensions)
        for i, vectors in enumerate(track(summaries, "images described", "image", total=count)):
            plain[i], turned[i] = vectors
    found: dict[tuple[int, int, bool], Alignment] = {}
    neighbours = Neighbours(plain, approximate=count > settings.exact_up_to)
    likely = matching.find_candidates(plain, neighbours, settings.candidates)
    align_all(((i, j, False) for i, j in likely), "likely duplicates compared")
    likely = matching.find_candidates(turned, neighbours, settings.flipped_candidates)
    align_all(((i, j, True) for i, j in likely), "likely flipped images compared")
    # Images that share a duplicate are compared, too: no list of likely partners is complete.
    linked = {
        (i, j)
        for (i, j, flipped), one in found.items()
        if not flipped or one.correlation >= settings.same_frame
    }
    connected = _complete(linked | set(identical), count)
    align_all(((i, j, False) for i, j in connected), "duplicates of duplicates compared")
    return _tabulate(manifest, found, identical, settings)


def _make_room(folder: Path, count: int, dimensions: int) -> np.ndarray:
    """Return float32 (2, count, dimensions), in a file where memory may not hold it."""
    shape = (2, count, dimensions)
    if count <= _HELD:
        return np.empty(shape, np.float32)
    return np.lib.format.open_memmap(folder / "summaries.npy", "w+", np.float32, shape)


def _map_in_threads(
    align: "Callable[[tuple[int, int, bool]], Alignment]", pairs: list[tuple[int, int, bool]]
) -> "Iterator[Alignment]":
    """Yield in order; OpenCV lets go of the lock. What waits in the pool costs memory: a block."""
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(pairs), _BLOCK):
            yield from pool.map(align, pairs[start : start + _BLOCK])


def _find_identical(manifest: pd.DataFrame) -> Iterator[tuple[tuple[int, int], str]]:
    """Yield pairs of positions whose files, or else whose pixels, are the same."""
    positions = manifest.reset_index(drop=True)
    for column, kind in (("pixel_sha256", "identical pixels"), ("byte_sha256", "identical file")):
        for rows in positions.groupby(column, sort=False).indices.values():
            yield from ((pair, kind) for pair in combinations(np.asarray(rows).tolist(), 2))


def _complete(links: Iterable[tuple[int, int]], count: int) -> list[tuple[int, int]]:
    """Return all pairs within what the links connect."""
    components = pd.Series(label_components(links, count))
    groups = components.groupby(components).indices.values()
    return [pair for rows in groups for pair in combinations(np.asarray(rows).tolist(), 2)]


def _tabulate(
    manifest: pd.DataFrame,
    found: "Mapping[tuple[int, int, bool], Alignment]",
    identical: Mapping[tuple[int, int], str],
    settings: SearchSettings,
) -> pd.DataFrame:
    best: dict[tuple[int, int], tuple[bool, Alignment]] = {}
    for (i, j, flipped), alignment in found.items():
        kept = best.get((i, j))
        if kept is None or alignment.correlation > kept[1].correlation:
            best[i, j] = (flipped, alignment)
    rows = []
    for (i, j), (flipped, alignment) in sorted(best.items()):
        kind = identical.get((i, j)) or _name_kind(alignment, settings)
        if kind is None or (flipped and kind == _NEIGHBOUR):
            continue
        same = (i, j) in identical
        a, b = manifest.iloc[i], manifest.iloc[j]
        rows.append(
            {
                "image_a": a["image_id"],
                "image_b": b["image_id"],
                "label_a": a["label"],
                "label_b": b["label"],
                "kind": kind,
                "same_frame": kind != _NEIGHBOUR,
                "score": 1.0 if same else round(alignment.correlation, 3),
                "flipped": flipped and not same,
                "scale": 1.0 if same else round(alignment.scale, 3),
                "overlap": 1.0 if same else round(alignment.overlap, 3),
                "inliers": alignment.inliers,
            }
        )
    table = pd.DataFrame(rows, columns=PAIR_COLUMNS)
    kinds = table["kind"].value_counts().to_dict()
    logger.info("%d pairs of images belong together: %s", len(table), kinds)
    return table


def _name_kind(alignment: "Alignment", settings: SearchSettings) -> str | None:
    if alignment.correlation < settings.neighbouring_frame:
        return None
    if alignment.correlation < settings.same_frame:
        return _NEIGHBOUR
    if abs(alignment.scale - 1) > 0.02:
        return "zoomed"
    return "re-cropped" if alignment.overlap < 0.99 else "re-annotated"
