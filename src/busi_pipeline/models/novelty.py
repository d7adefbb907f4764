"""Is an image like those that a model learned from? By what its network sees in it.

The features of the images learned from lie near a space of few dimensions, spanned by their
principal components. How far an image lies outside of it is its distance: the residual of Wang,
Li, Feng and Zhang 2022, "ViM: out-of-distribution with virtual-logit matching". A turned or
inverted scan is made of the same stuff; so a linear rule separates the images learned from and the
same ones turned, after Hendrycks, Mazeika and Dietterich 2019, "Deep anomaly detection with
outlier exposure".

Where an image lies within the space says which images it is like: a copy of one, cut or annotated
anew, lies beside it.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

UNLIMITED = 1e9
"""A limit that nothing exceeds, as JSON knows it."""
_TINY = 1e-6
_FOLDS = 5
_PENALTY = 1e-4
# What float16 holds with room to spare.
_STORED = np.float16


class Reference(NamedTuple):
    """What is known of the images that a model learned from.

    Attributes:
        mean, scale: float32 (channels,), of their features.
        axes: float32 (components, channels), of length one, orthogonal, of standardised features.
        spread: float32 (components,), of the images learned from along the axes.
        turned: float32 (channels + 1,): weights and offset of the rule that knows turned images.
        looks: float32 (images, components), where they lie along the axes; see `describe`.
        groups: str (images,): images of one group show one scan, or one patient.
        distances: float32 (images,): of each, by what the other groups have.
        turned_scores: float32 (images,): the same, by the rule that other groups made.
        similarities: float32 (images,): of each to the most similar image of another group.
    """

    mean: np.ndarray
    scale: np.ndarray
    axes: np.ndarray
    spread: np.ndarray
    turned: np.ndarray
    looks: np.ndarray
    groups: np.ndarray
    distances: np.ndarray
    turned_scores: np.ndarray
    similarities: np.ndarray

    def measure_distance(self, features: np.ndarray) -> np.ndarray:
        """Return float32 (n,), 0 and more, of features float (n, channels).

        1 is what an image would have that shares nothing with those learned from but the range of
        each channel.
        """
        return _measure_residual(self._standardise(features), self.axes)

    def measure_turned(self, features: np.ndarray) -> np.ndarray:
        """Return float32 (n,): above 0 where an image looks turned or inverted."""
        return _apply(self.turned, self._standardise(features))

    def describe(self, features: np.ndarray) -> np.ndarray:
        """Return float32 (n, components), of length one: the product of two is their similarity."""
        return _describe(self._standardise(features), self.axes, self.spread)

    def _standardise(self, features: np.ndarray) -> np.ndarray:
        return ((features - self.mean) / self.scale).astype(np.float32)

    def save(self, path: Path) -> None:
        """Write the reference; large arrays in half precision."""
        halved = {name: getattr(self, name).astype(_STORED) for name in ("axes", "looks")}
        texts = {"groups": self.groups.astype(str)}
        np.savez_compressed(path, **(self._asdict() | halved | texts))


def load_reference(path: Path) -> Reference:
    """Return what `Reference.save` wrote."""
    with np.load(path, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in Reference._fields}
    return Reference(
        **{n: a.astype(np.float32) if a.dtype == _STORED else a for n, a in arrays.items()}
    )


def build_reference(
    features: np.ndarray,
    groups: np.ndarray,
    turned_features: np.ndarray,
    turned_groups: np.ndarray,
    components: int,
) -> Reference:
    """Return the reference of images.

    Args:
        features: float (images, channels).
        groups: (images,): what one group has says nothing of how unusual another image of it is.
        turned_features, turned_groups: of some of the images, turned and inverted.
        components: dimensions of the space; a third of the images at most.
    """
    mean = features.mean(axis=0).astype(np.float32)
    scale = np.maximum(features.std(axis=0), _TINY).astype(np.float32)
    values, turned = ((a - mean) / scale for a in (features, turned_features))
    groups = np.asarray(groups).astype(str)
    distances, scores = np.zeros((2, len(values)), np.float32)
    for rows in _list_folds(groups):
        others = np.ones(len(values), bool)
        others[rows] = False
        turned_others = ~np.isin(turned_groups.astype(str), groups[rows])
        axes = _find_axes(values[others], components)
        distances[rows] = _measure_residual(values[rows], axes)
        rule = _learn_turned(values[others], turned[turned_others])
        scores[rows] = _apply(rule, values[rows])
    # As they will be read from the file.
    axes = _find_axes(values, components).astype(_STORED).astype(np.float32)
    spread = np.maximum((values @ axes.T).std(axis=0), _TINY).astype(np.float32)
    looks = _describe(values, axes, spread).astype(_STORED).astype(np.float32)
    alike = looks @ looks.T
    alike[groups[:, None] == groups[None, :]] = -1
    return Reference(
        mean,
        scale,
        axes,
        spread,
        _learn_turned(values, turned),
        looks,
        groups,
        distances,
        scores,
        alike.max(axis=1),
    )


def choose_limit(values: np.ndarray, refused: float) -> float:
    """Return what this share of new images like those of the values exceeds, at most.

    By the conformal rule, see stats.operating_point.choose_threshold_by_rule; UNLIMITED where there
    are too few values for the share.
    """
    n = len(values)
    rank = int(np.ceil((1 - refused) * (n + 1)))
    return UNLIMITED if rank > n else float(np.sort(values)[rank - 1])


def turn_images(shown: np.ndarray) -> Iterator[np.ndarray]:
    """Yield square images turned by a quarter, a half and three quarters, upside down, inverted.

    Args:
        shown: uint8 (..., size, size, 3).
    """
    for quarters in (1, 2, 3):
        yield np.rot90(shown, quarters, axes=(-3, -2))
    yield np.flip(shown, axis=-3)
    yield 255 - shown


def _list_folds(groups: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the positions of each of some folds, groups whole."""
    names, numbers = np.unique(groups, return_inverse=True)
    for fold in range(min(_FOLDS, len(names))):
        yield np.flatnonzero(numbers % _FOLDS == fold)


def _find_axes(values: np.ndarray, components: int) -> np.ndarray:
    """Return float32 (components, channels), the principal axes of standardised features."""
    kept = max(1, min(components, len(values) // 3))
    return np.linalg.svd(values.astype(np.float32), full_matrices=False)[2][:kept]


def _measure_residual(values: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Return float32 (n,), the root mean square of what lies outside of the axes."""
    inside = values @ axes.T
    squares = (values**2).sum(axis=1) - (inside**2).sum(axis=1)
    return np.sqrt(np.maximum(0, squares) / values.shape[1]).astype(np.float32)


def _learn_turned(values: np.ndarray, turned: np.ndarray) -> np.ndarray:
    """Return float32 (channels + 1,), weights and offset of a linear rule: above 0 is turned."""
    from sklearn.linear_model import LogisticRegression

    rule = LogisticRegression(C=_PENALTY, class_weight="balanced", max_iter=2000)
    rule.fit(np.concatenate([values, turned]), np.arange(len(values) + len(turned)) >= len(values))
    return np.append(rule.coef_[0], rule.intercept_).astype(np.float32)


def _apply(rule: np.ndarray, values: np.ndarray) -> np.ndarray:
    return (values @ rule[:-1] + rule[-1]).astype(np.float32)


def _describe(values: np.ndarray, axes: np.ndarray, spread: np.ndarray) -> np.ndarray:
    places = values @ axes.T / spread
    length = np.linalg.norm(places, axis=1, keepdims=True)
    return (places / np.maximum(length, _TINY)).astype(np.float32)
