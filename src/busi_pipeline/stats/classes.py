"""The classes of a data set: their names, their order, and which of them are positive."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from busi_pipeline.errors import BadInputError

_SCORES = (
    "images",
    "correct",
    "accuracy",
    "balanced_accuracy",
    "macro_f1",
    "macro_auc",
    "loss",
    "loss_smoothed",
    "positive",
    "calibration",
    "flag",
)
_TINY = 1e-12
RESERVED_NAMES = frozenset(name + end for name in _SCORES for end in ("", "_ci_low", "_ci_high"))


@dataclass(frozen=True)
class Classes:
    """Two or more classes, of which one or more, but not all, are positive.

    Attributes:
        names: in the order of a model's probabilities.
        positive: those that a reader must not overlook, such as `malignant`.
        lesion_free: those whose images show no lesion, such as `normal`; other names that are given
            for it are left out.

    Raises BadInputError for fewer than two names, names that are no text, doubled or keys of the
    metrics (RESERVED_NAMES), and for positive classes that are none, all or no classes.
    """

    names: tuple[str, ...]
    positive: tuple[str, ...]
    lesion_free: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for field, value in (
            ("classes", self.names),
            ("positive_classes", self.positive),
            ("lesion_free_classes", self.lesion_free),
        ):
            if isinstance(value, str) or not isinstance(value, Sequence):
                raise BadInputError(f"{field} must be a list of class names; got {value!r}.")
        object.__setattr__(self, "names", tuple(self.names))
        object.__setattr__(self, "positive", tuple(self.positive))
        shown = tuple(name for name in self.names if name in self.lesion_free)
        object.__setattr__(self, "lesion_free", shown)
        for name in (*self.names, *self.positive):
            if not isinstance(name, str) or not name.strip():
                raise BadInputError(
                    f"a class name must be a text that is not empty; got {name!r}. "
                    "Names such as `null`, `no` or `1` need quotes in YAML."
                )
        if len(self.names) < 2:
            raise BadInputError(f"classes must have two or more names; got {list(self.names)}.")
        _refuse_doubles("classes", self.names)
        _refuse_doubles("positive_classes", self.positive)
        reserved = [name for name in self.names if name in RESERVED_NAMES]
        if reserved:
            raise BadInputError(
                f"classes must not be named {', '.join(map(repr, reserved))}: the metrics use this "
                "as a key. Rename the class and its image folder."
            )
        unknown = [name for name in self.positive if name not in self.names]
        if unknown or not 0 < len(self.positive) < len(self.names):
            raise BadInputError(
                f"positive_classes must be one or more of {list(self.names)}, and not all of them; "
                f"got {list(self.positive)}."
            )
        if both := set(self.positive) & set(self.lesion_free):
            raise BadInputError(
                f"lesion_free_classes are of images without a lesion; {', '.join(sorted(both))} is "
                "one of positive_classes, too. Take it out of one of them."
            )

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def index(self, name: str) -> int:
        """Return the column of a class in a model's probabilities; BadInputError if unknown."""
        if name not in self.names:
            raise BadInputError(f"unknown class {name!r}; the classes are {list(self.names)}.")
        return self.names.index(name)

    @property
    def positive_name(self) -> str:
        """`malignant`; of several `malignant or suspicious`."""
        return _list_names(self.positive, "or")

    @property
    def negative_name(self) -> str:
        """`non-malignant`; of several `neither malignant nor suspicious`."""
        if len(self.positive) == 1:
            return f"non-{self.positive[0]}"
        return f"neither {_list_names(self.positive, 'nor')}"

    def positions(self, labels: pd.Series) -> np.ndarray:
        """Return int64 (n,), the column of each label's class; BadInputError for other labels."""
        found = pd.Index(self.names).get_indexer(pd.Index(labels)).astype(np.int64)
        if (found < 0).any():
            unknown = sorted({repr(label) for label in np.asarray(labels)[found < 0]})
            raise BadInputError(
                f"unknown label {', '.join(unknown[:3])}; the classes are {list(self.names)}. "
                "Correct `classes` in the parameters, or run the stage that made the table again."
            )
        return found

    def is_positive(self, labels: pd.Series) -> np.ndarray:
        """Return bool (n,): is the label a positive class? BadInputError for other labels."""
        return np.isin(self.positions(labels), self._positive_positions)

    def positive_score(self, probabilities: np.ndarray) -> np.ndarray:
        """Return float (n,), the probability of any positive class, at most 1.

        Args:
            probabilities: float (n, classes).
        """
        return np.minimum(probabilities[:, self._positive_positions].sum(axis=1), 1.0)

    def has_lesion(self, labels: pd.Series) -> np.ndarray:
        """Return bool (n,): is the label a class whose images show a lesion?"""
        return ~np.isin(self.positions(labels), [self.names.index(n) for n in self.lesion_free])

    def given_lesion(self, probabilities: np.ndarray) -> np.ndarray:
        """Return float64 (n, classes): the probabilities of images known to show a lesion.

        Those of `lesion_free` are 0, and the others share what is left as they did.

        Args:
            probabilities: float (n, classes).
        """
        shares = np.array(probabilities, dtype=np.float64)
        shares[:, [self.names.index(name) for name in self.lesion_free]] = 0
        return shares / np.maximum(shares.sum(axis=1, keepdims=True), _TINY)

    @property
    def _positive_positions(self) -> list[int]:
        return [self.names.index(name) for name in self.positive]


def _refuse_doubles(field: str, names: Sequence[str]) -> None:
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise BadInputError(f"{field} must name each class once; doubled: {', '.join(doubled)}.")


def _list_names(names: Sequence[str], word: str) -> str:
    if len(names) == 1:
        return names[0]
    return f"{', '.join(names[:-1])} {word} {names[-1]}"
