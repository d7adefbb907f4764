"""Do two images show the same frame? Local features, one affine map, and how well the speckle fits.

Speckle is the fingerprint of a frame: where one image lies on the other, it correlates in a
duplicate and does not in another frame, however alike the two look. Hashes of the whole picture
miss duplicates that were cropped or enlarged; features alone take the machine's lettering for a
match.
"""

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from sklearn.cluster import MiniBatchKMeans

from busi_pipeline.imaging.neighbours import Neighbours

# Lowe 2004 matches below 0.8 of the distance to the second best; speckle repeats itself less.
_RATIO = 0.85
# Half of OpenCV's default: dark images have features too.
_CONTRAST = 0.02
_REPROJECTION_PIXELS = 3.0
_TILE = 32
_BLUR = 6.0
# Below this standard deviation, in grey levels, a tile holds no speckle to compare.
_TEXTURE = (3.0, 1.5)
_WORDS = 64
_VOCABULARY_SAMPLE = 50_000


# Longest side and features of a glance, and features that must agree. On BUSI all of the 215 pairs
# of one frame have ten or more, and of 150 pairs drawn at random none has five.
_GLANCE, _GLANCE_INLIERS = (128, 100), 7


class Picture(NamedTuple):
    """An image as it is matched.

    Attributes:
        grey: uint8 (height, width), reduced to the size on which features are found.
        reduction: pixels of it for a pixel of the image.
        points: float32 (n, 2), x and y of its features in it.
        descriptors: float32 (n, 128), RootSIFT (Arandjelovic and Zisserman 2012).
    """

    grey: np.ndarray
    reduction: float
    points: np.ndarray
    descriptors: np.ndarray


def load_picture(path: Path) -> Picture:
    """Return what `np.savez` wrote of a picture's fields."""
    with np.load(path, allow_pickle=False) as kept:
        return Picture(kept["grey"], float(kept["reduction"]), kept["points"], kept["descriptors"])


class Alignment(NamedTuple):
    """How one image lies on another.

    Attributes:
        inliers: features that agree on the map.
        scale: by how much the second image, as it came, is enlarged on the first.
        overlap: share of the first that the second covers.
        correlation: median over tiles of what correlates in fine detail; 0 where nothing fits.
    """

    inliers: int
    scale: float
    overlap: float
    correlation: float


NO_ALIGNMENT = Alignment(0, 1.0, 0.0, 0.0)


def describe_picture(pixels: np.ndarray, longest_side: int, keypoints: int) -> Picture:
    """Reduce uint8 (height, width, 3) RGB to grey of at most `longest_side` and find features."""
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    factor = min(1.0, longest_side / max(grey.shape))
    if factor < 1:
        grey = cv2.resize(grey, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    detector = cv2.SIFT.create(nfeatures=keypoints, contrastThreshold=_CONTRAST)
    found, descriptors = detector.detectAndCompute(grey, None)
    if descriptors is None:
        return Picture(grey, factor, np.zeros((0, 2), np.float32), np.zeros((0, 128), np.float32))
    points = np.array([point.pt for point in found], dtype=np.float32)
    shares = descriptors / np.maximum(descriptors.sum(axis=1, keepdims=True), 1e-7)
    return Picture(grey, factor, points, np.sqrt(shares).astype(np.float32))


def flip_picture(picture: Picture) -> Picture:
    """Return what `describe_picture` gives for the horizontal flip, without a new search.

    In a horizontal flip a feature's patch is turned over: its four rows of cells come in the
    opposite order, and its eight directions run the other way round.
    """
    points = picture.points.copy()
    points[:, 0] = picture.grey.shape[1] - 1 - points[:, 0]
    cells = picture.descriptors.reshape(-1, 4, 4, 8)[:, ::-1]
    turned = cells[..., -np.arange(8) % 8].reshape(-1, 128)
    return Picture(np.ascontiguousarray(picture.grey[:, ::-1]), picture.reduction, points, turned)


def learn_summary(pictures: list[Picture], seed: int) -> "Summary":
    """Learn a vocabulary from pictures, all or some; raises ValueError without features.

    Args:
        pictures: of the set.
        seed: of the vocabulary.
    """
    rng = np.random.default_rng(seed)
    everything = np.concatenate([picture.descriptors for picture in pictures])
    if not len(everything):
        raise ValueError("no picture has a feature to be matched by")
    sample = everything[rng.permutation(len(everything))[:_VOCABULARY_SAMPLE]]
    words = MiniBatchKMeans(
        min(_WORDS, len(sample)), n_init=3, batch_size=4096, random_state=seed
    ).fit(sample)
    return Summary(words)


class Summary(NamedTuple):
    """Turns a picture into a vector; the vectors of duplicates lie close.

    VLAD: for each word of a vocabulary, where the features next to it lie on average (Jegou et al.
    2010; normalised by word and by square root, Arandjelovic and Zisserman 2013). A duplicate keeps
    most of its features, however it was cropped. Fewer numbers, by principal components, would lose
    duplicates among pictures that these were not learned from (docs/explanation/duplicates.md).
    """

    words: MiniBatchKMeans

    @property
    def dimensions(self) -> int:
        """Length of a vector."""
        return int(self.words.cluster_centers_.size)

    def apply(self, picture: Picture) -> np.ndarray:
        """Return float32 (dimensions,), of length 1."""
        return _aggregate(picture, self.words).astype(np.float32)


def _aggregate(picture: Picture, words: MiniBatchKMeans) -> np.ndarray:
    centres = words.cluster_centers_
    vector = np.zeros_like(centres)
    if len(picture.descriptors):
        nearest = words.predict(picture.descriptors)
        np.add.at(vector, nearest, picture.descriptors - centres[nearest])
    vector /= np.maximum(np.linalg.norm(vector, axis=1, keepdims=True), 1e-9)
    flat = vector.ravel()
    flat = np.sign(flat) * np.sqrt(np.abs(flat))
    return flat / max(np.linalg.norm(flat), 1e-9)


def find_candidates(
    queries: np.ndarray, neighbours: Neighbours, count: int
) -> list[tuple[int, int]]:
    """Return the pairs (i, j), i < j, in which one is among the `count` nearest of the other.

    Args:
        queries: float32 (n, dimensions): the summaries themselves, or those of flipped images.
        neighbours: of the summaries.
        count: how many.
    """
    found = neighbours.find(queries, count + 1)
    pairs = {
        (min(i, j), max(i, j))
        for i, row in enumerate(found.tolist())
        for j in row
        if i != j and j >= 0
    }
    return sorted(pairs)


def align_pictures(
    first: Picture, second: Picture, min_inliers: int, min_shared: float
) -> Alignment:
    """Lay the second picture on the first and compare them in fine detail.

    Features are matched both ways (Lowe's ratio), RANSAC finds the affine map most of them agree
    on, and the pictures are compared tile by tile without what is coarse: Pearson's correlation of
    each tile that holds speckle in both, of which the median counts. A few tiles with callipers or
    lettering move it little.

    Nothing fits where the two share less than `min_shared` of the smaller one: a frame that was
    cropped lies in the other nearly whole, while machines write the same ruler or menu beside
    different frames.
    """
    fitted = _fit(first, second, min_inliers)
    if fitted is None:
        return NO_ALIGNMENT
    transform, inliers = fitted
    longer, shorter = np.linalg.svd(transform[:, :2], compute_uv=False)
    scale = float(np.sqrt(longer * shorter))
    if np.linalg.det(transform[:, :2]) <= 0 or longer > 1.6 * shorter or not 0.3 < scale < 3.4:
        return NO_ALIGNMENT
    overlap, correlation = _compare_detail(first.grey, second.grey, transform, scale)
    shared = overlap * first.grey.size / min(first.grey.size, second.grey.size * scale**2)
    if shared < min_shared:
        return NO_ALIGNMENT
    as_they_came = scale * second.reduction / first.reduction
    return Alignment(inliers, as_they_came, overlap, correlation)


def glance_at(pixels: np.ndarray) -> Picture:
    """Return a picture for `may_be_one_frame`, several times faster than one to be aligned."""
    return describe_picture(pixels, *_GLANCE)


def may_be_one_frame(first: Picture, second: Picture) -> bool:
    """Return whether two pictures may show one frame, so that aligning them is worth its time."""
    return _fit(first, second, _GLANCE_INLIERS) is not None


def _fit(first: Picture, second: Picture, min_inliers: int) -> tuple[np.ndarray, int] | None:
    """Return the affine map that most features agree on, and how many; None below the minimum."""
    matches = _match(first.descriptors, second.descriptors)
    if len(matches) < min_inliers:
        return None
    transform, agree = cv2.estimateAffine2D(
        second.points[matches[:, 1]],
        first.points[matches[:, 0]],
        method=cv2.RANSAC,
        ransacReprojThreshold=_REPROJECTION_PIXELS,
        maxIters=500,
        confidence=0.999,
    )
    if transform is None or agree.sum() < min_inliers:
        return None
    return transform, int(agree.sum())


def _match(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return int (n, 2): rows that are each other's best match, and clearly so."""
    if not len(first) or len(second) < 2:
        return np.zeros((0, 2), dtype=int)
    likeness = first @ second.T  # of unit vectors
    best, other = likeness.argmax(axis=1), np.partition(likeness, -2, axis=1)[:, -2]
    rows = np.arange(len(first))
    distances = np.sqrt(np.maximum(2 - 2 * np.stack([likeness[rows, best], other]), 0))
    mutual = likeness.argmax(axis=0)[best] == rows
    kept = mutual & (distances[0] < _RATIO * distances[1])
    return np.stack([rows[kept], best[kept]], axis=1)


def _compare_detail(
    first: np.ndarray, second: np.ndarray, transform: np.ndarray, scale: float
) -> tuple[float, float]:
    """Return the share of the first image that is covered, and the median correlation."""
    height, width = first.shape
    size = (width, height)
    flags = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    laid = cv2.warpAffine(second, transform, size, flags=flags)
    covered = cv2.warpAffine(np.full(second.shape, 255, np.uint8), transform, size) > 250
    detail = [_remove_coarse(image) for image in (first, laid)]
    correlations = []
    for top in range(0, height - _TILE + 1, _TILE):
        for left in range(0, width - _TILE + 1, _TILE):
            tile = slice(top, top + _TILE), slice(left, left + _TILE)
            if not covered[tile].all():
                continue
            one, other = (part[tile] for part in detail)
            if one.std() >= _TEXTURE[0] and other.std() >= _TEXTURE[1]:
                correlations.append(np.corrcoef(one.ravel(), other.ravel())[0, 1])
    if not correlations:
        return float(covered.mean()), 0.0
    return float(covered.mean()), float(np.median(correlations))


def _remove_coarse(image: np.ndarray) -> np.ndarray:
    values = image.astype(np.float32)
    return values - cv2.GaussianBlur(values, (0, 0), _BLUR)
