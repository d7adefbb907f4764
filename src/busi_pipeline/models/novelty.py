"""Is an image like those that a model learned from? Distance to its nearest neighbours.

Source: Sun et al. 2022, "Out-of-distribution detection with deep nearest neighbors": the features
of the network, brought to length one, and the distance to the k-th nearest of the images that were
learned from. Features are standardised before, since those of one backbone differ in scale.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

_TINY = 1e-6


class Reference(NamedTuple):
    """What is known of the images that a model learned from.

    Attributes:
        mean, scale: float32 (channels,), of their features.
        vectors: float32 (images, channels): standardised, of length one.
        neighbours: which neighbour's distance counts.
        distances: float32 (images,): how far each of them is from the others, of other groups.
        groups: str (images,): images of one group show one scan, or one patient.
    """

    mean: np.ndarray
    scale: np.ndarray
    vectors: np.ndarray
    neighbours: int
    distances: np.ndarray
    groups: np.ndarray

    def measure_distance(self, features: np.ndarray) -> np.ndarray:
        """Return float32 (n,), 0 to 2, of features float (n, channels)."""
        near = _standardise(features, self.mean, self.scale) @ self.vectors.T
        return _take_neighbour(near, self.neighbours)

    def choose_limit(self, refused: float) -> float:
        """Return the distance that this share of new images like the reference exceeds, at most.

        By the conformal rule, see stats.operating_point.choose_threshold_by_rule; 2, which nothing
        exceeds, where there are too few images for the share.
        """
        n = len(self.distances)
        rank = int(np.ceil((1 - refused) * (n + 1)))
        return 2.0 if rank > n else float(np.sort(self.distances)[rank - 1])

    def save(self, path: Path) -> None:
        """Write the reference; vectors in half precision."""
        np.savez_compressed(
            path,
            mean=self.mean,
            scale=self.scale,
            vectors=self.vectors.astype(np.float16),
            neighbours=self.neighbours,
            distances=self.distances,
            groups=self.groups.astype(str),
        )


def load_reference(path: Path) -> Reference:
    """Return what `Reference.save` wrote."""
    with np.load(path, allow_pickle=False) as stored:
        return Reference(
            stored["mean"],
            stored["scale"],
            _scale_to_one(stored["vectors"]),
            int(stored["neighbours"]),
            stored["distances"],
            stored["groups"],
        )


def build_reference(features: np.ndarray, groups: np.ndarray, neighbours: int) -> Reference:
    """Return the reference of images.

    Args:
        features: float (images, channels).
        groups: (images,): images of one group are no neighbours of each other.
        neighbours: which neighbour's distance counts; fewer where there are fewer images.
    """
    mean = features.mean(axis=0).astype(np.float32)
    scale = np.maximum(features.std(axis=0), _TINY).astype(np.float32)
    # As they will be read from the file.
    vectors = _scale_to_one(_standardise(features, mean, scale).astype(np.float16))
    near = vectors @ vectors.T
    near[groups[:, None] == groups[None, :]] = -1
    neighbours = max(1, min(neighbours, len(features) - 1))
    return Reference(
        mean, scale, vectors, neighbours, _take_neighbour(near, neighbours), np.asarray(groups)
    )


def _standardise(features: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return _scale_to_one((features - mean) / scale)


def _scale_to_one(values: np.ndarray) -> np.ndarray:
    values = values.astype(np.float32)
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return values / np.maximum(length, _TINY)


def _take_neighbour(near: np.ndarray, neighbours: int) -> np.ndarray:
    """Return the distance of vectors of length one, of the k-th highest product in each row."""
    kth = np.partition(near, -neighbours, axis=1)[:, -neighbours]
    return np.sqrt(np.maximum(0, 2 - 2 * kth)).astype(np.float32)
