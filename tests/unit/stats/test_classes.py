"""Classes: any names in any number, one or more of them positive."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from busi_pipeline.errors import BadInputError
from busi_pipeline.stats.classes import Classes

MakeClasses = Callable[[str], Classes]


def test_one_positive_class_is_called_by_its_name(make_classes: MakeClasses) -> None:
    classes = make_classes("three")
    assert classes.positive_name == "malignant"
    assert classes.negative_name == "non-malignant"
    assert list(classes) == ["benign", "malignant", "normal"]
    assert (len(classes), classes.index("normal")) == (3, 2)


def test_several_positive_classes_are_listed(make_classes: MakeClasses) -> None:
    classes = make_classes("four")
    assert classes.positive_name == "malignant or suspicious"
    assert classes.negative_name == "neither malignant nor suspicious"
    three = Classes(("a", "b", "c", "d"), ("a", "b", "c"))
    assert three.positive_name == "a, b or c"
    assert three.negative_name == "neither a, b nor c"


@pytest.mark.parametrize("kind", ["two", "three", "four", "odd"])
def test_labels_become_columns_of_probabilities(make_classes: MakeClasses, kind: str) -> None:
    classes = make_classes(kind)
    labels = pd.Series([*classes.names[::-1], classes.names[0]], index=range(7, 8 + len(classes)))
    positions = classes.positions(labels)
    assert positions.dtype == np.int64
    assert positions.tolist() == [*reversed(range(len(classes))), 0]
    assert classes.is_positive(labels).tolist() == [name in classes.positive for name in labels]
    assert classes.positions(labels.astype("category")).tolist() == positions.tolist()


def test_positive_score_sums_the_positive_classes(make_classes: MakeClasses) -> None:
    probabilities = np.array([[0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.2, 0.0]])
    score = make_classes("four").positive_score(probabilities)
    np.testing.assert_allclose(score, [0.6, 0.1])
    alone = make_classes("two").positive_score(probabilities[:, :2])
    assert alone.tolist() == probabilities[:, 1].tolist(), "of one class, its own to the digit"


def test_positive_score_is_never_above_one(make_classes: MakeClasses) -> None:
    score = make_classes("four").positive_score(np.array([[0.0, 0.7, 0.0, 0.3000001]]))
    assert score.tolist() == [1.0]


@pytest.mark.parametrize("label", ["tumour", None, "Benign"])
def test_unknown_label_is_refused_by_name(make_classes: MakeClasses, label: str | None) -> None:
    labels = pd.Series(["benign", label])
    for read in (make_classes("two").positions, make_classes("two").is_positive):
        with pytest.raises(BadInputError, match=r"unknown label .*the classes are \['benign'"):
            read(labels)
    with pytest.raises(BadInputError, match="unknown class 'tumour'"):
        make_classes("two").index("tumour")


@pytest.mark.parametrize(
    ("names", "positive", "message"),
    [
        (("benign",), ("benign",), "two or more names"),
        (("a", "b", "a"), ("a",), "each class once; doubled: a"),
        (("a", "b", "c"), ("a", "a"), "positive_classes must name each class once"),
        (("a", ""), ("a",), "text that is not empty; got ''"),
        (("a", " "), ("a",), "text that is not empty"),
        (("a", None), ("a",), "got None.*quotes in YAML"),
        (("a", True), ("a",), "got True"),
        (("a", "accuracy"), ("a",), "not be named 'accuracy'"),
        (("a", "flag"), ("a",), "not be named 'flag'"),
        (("a", "positive"), ("a",), "not be named 'positive'"),
        (("a", "loss_ci_low"), ("a",), "not be named 'loss_ci_low'"),
        (("a", "b"), (), "one or more of"),
        (("a", "b"), ("a", "b"), "not all of them"),
        (("a", "b"), ("c",), r"one or more of \['a', 'b'\].*got \['c'\]"),
        (("a", "b"), "a", "positive_classes must be a list"),
        ("ab", ("a",), "classes must be a list"),
        (None, ("a",), "classes must be a list"),
    ],
)
def test_impossible_classes_are_refused(names: Any, positive: Any, message: str) -> None:
    with pytest.raises(BadInputError, match=message) as refused:
        Classes(names, positive)
    assert "\n" not in str(refused.value)


def test_an_image_known_to_show_a_lesion_is_of_a_class_with_one() -> None:
    classes = Classes(("a", "b", "c", "d"), ("b",), ("c", "elsewhere"))
    assert classes.lesion_free == ("c",), "names that are no class are left out"
    labels = pd.Series(["c", "a", "b"])
    assert classes.has_lesion(labels).tolist() == [False, True, True]
    given = classes.given_lesion(np.array([[0.1, 0.3, 0.5, 0.1], [0.0, 0.0, 1.0, 0.0]]))
    np.testing.assert_allclose(given[0], [0.2, 0.6, 0.0, 0.2])
    assert given[1].tolist() == [0, 0, 0, 0], "nothing to share"
    everyone = Classes(("a", "b"), ("b",))
    np.testing.assert_allclose(everyone.given_lesion(np.array([[0.3, 0.7]])), [[0.3, 0.7]])
    assert everyone.has_lesion(pd.Series(["a", "b"])).all()


def test_lists_become_a_value_that_can_be_hashed() -> None:
    names: Any = ["a", "b"]
    positive: Any = ["b"]
    assert hash(Classes(names, positive)) == hash(Classes(("a", "b"), ("b",)))
