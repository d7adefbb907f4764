"""Folds: every image tested once a repeat, groups never parted, each fold its own split."""

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from busi_pipeline.config.schemas import CrossValidationSettings
from busi_pipeline.errors import BadInputError
from busi_pipeline.learning.folds import (
    Fold,
    assign_cv_groups,
    assign_groups,
    assign_parts,
    list_folds,
    list_site_folds,
    list_within_site_folds,
    name_repeat,
    select_fold,
    select_site_fold,
)
from tests.factories import make_manifest

CHOICE = CrossValidationSettings(folds=5, repeats=2, seed=7, validation=0.12)


@st.composite
def draw_images(draw: st.DrawFn) -> pd.DataFrame:
    """Draw images of three classes in groups of one to four."""
    sizes = draw(st.lists(st.integers(1, 4), min_size=45, max_size=90))
    groups = np.repeat(np.arange(len(sizes)), sizes)
    labels = np.array(["benign", "malignant", "normal"])[groups % 3]
    return make_folds(labels, [f"g{number}" for number in groups])


def make_folds(labels: np.ndarray, groups: list[str]) -> pd.DataFrame:
    """Return a fold manifest, assigned as `splitting` does it."""
    images = pd.DataFrame(
        {"image_id": [f"i{n}" for n in range(len(labels))], "label": labels, "group": groups}
    )
    images = images.assign(path=images["image_id"], cv_group=images["group"])
    for repeat in range(1, CHOICE.repeats + 1):
        images[name_repeat(repeat)] = 1 + assign_cv_groups(images, CHOICE.folds, repeat)
    return images


@settings(max_examples=5, deadline=None)
@given(images=draw_images())
def test_groups_never_cross_and_each_image_is_tested(images: pd.DataFrame) -> None:
    for repeat in (1, 2):
        tested = []
        for fold in range(1, 6):
            split = select_fold(images, Fold(repeat, fold), CHOICE)
            assert set(split["split"]) == {"train", "validation", "test"}
            assert split.groupby("group")["split"].nunique().max() == 1
            assert split["image_id"].tolist() == images["image_id"].tolist()
            tested += split.loc[split["split"] == "test", "image_id"].tolist()
        assert sorted(tested) == sorted(images["image_id"]), "each once a repeat"


@pytest.fixture(scope="module")
def busi() -> pd.DataFrame:
    labels = make_manifest()["label"].to_numpy()
    return make_folds(labels, [f"g{n}" for n in range(len(labels))])


def test_folds_of_busi_keep_the_shares(busi: pd.DataFrame) -> None:
    split = select_fold(busi, Fold(1, 1), CHOICE)
    counts = pd.crosstab(split["split"], split["label"])
    assert counts.loc["test", "malignant"] == 42
    assert counts.loc["validation"].sum() == pytest.approx(0.12 * 780, abs=10)
    assert counts.loc["validation", "malignant"] == pytest.approx(0.12 * 210, abs=3)
    assert list(split.columns) == ["image_id", "path", "label", "group", "split"]


def test_test_images_are_those_of_the_fold(busi: pd.DataFrame) -> None:
    for fold in (Fold(1, 3), Fold(2, 3)):
        split = select_fold(busi, fold, CHOICE)
        in_fold = busi[name_repeat(fold.repeat)] == fold.fold
        assert (split["split"] == "test").tolist() == in_fold.tolist()


def test_each_fold_has_validation_images_of_its_own(busi: pd.DataFrame) -> None:
    def list_validation(fold: Fold, choice: CrossValidationSettings = CHOICE) -> frozenset[str]:
        split = select_fold(busi, fold, choice)
        return frozenset(split.loc[split["split"] == "validation", "image_id"])

    found = {list_validation(fold) for fold in (Fold(1, 1), Fold(1, 2), Fold(2, 1))}
    assert len(found) == 3
    assert list_validation(Fold(1, 1)) == list_validation(Fold(1, 1)), "repeatable"
    other = CHOICE.updated({"seed": 8})
    assert list_validation(Fold(1, 1), other) != list_validation(Fold(1, 1))


@pytest.mark.parametrize("fold", [Fold(1, 2), Fold(2, 5)])
def test_validation_images_are_assigned_under_a_seed_of_the_fold(
    busi: pd.DataFrame, fold: Fold
) -> None:
    """Published folds must stay what they are: the seed counts repeats in thousands."""
    split = select_fold(busi, fold, CHOICE)
    rest = busi[busi[name_repeat(fold.repeat)] != fold.fold]
    n_splits = round(len(rest) / (0.12 * len(busi)))
    assigned = assign_cv_groups(rest, n_splits, 7 + 1000 * fold.repeat + fold.fold)
    expected = set(rest.loc[assigned == 0, "image_id"])
    assert set(split.loc[split["split"] == "validation", "image_id"]) == expected


@pytest.mark.parametrize("change", [{"folds": 6}, {"folds": 4}, {"repeats": 3}])
def test_a_manifest_of_other_folds_is_refused(busi: pd.DataFrame, change: dict[str, int]) -> None:
    choice = CHOICE.updated(change)
    with pytest.raises(BadInputError, match="of another number of folds or repeats") as caught:
        select_fold(busi, Fold(choice.repeats, 1), choice)
    assert f"({choice.folds}) and repeats ({choice.repeats})" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_repeats_are_assigned_anew(busi: pd.DataFrame) -> None:
    assert busi["repeat_1"].tolist() != busi["repeat_2"].tolist()


def test_folds_come_repeat_by_repeat_and_have_names() -> None:
    folds = list(list_folds(CHOICE))
    assert [tuple(fold) for fold in folds] == [(r, f) for r in (1, 2) for f in (1, 2, 3, 4, 5)]
    assert [fold.name for fold in folds][4:6] == ["repeat_1_fold_5", "repeat_2_fold_1"]


@pytest.mark.parametrize("validation", [0.55, 0.7])
def test_a_share_that_leaves_nothing_to_train_is_refused(
    busi: pd.DataFrame, validation: float
) -> None:
    choice = CHOICE.updated({"validation": validation})
    with pytest.raises(BadInputError, match=r"validation.* leaves nothing to train"):
        select_fold(busi, Fold(1, 1), choice)


def test_half_of_the_rest_can_be_for_validation(busi: pd.DataFrame) -> None:
    split = select_fold(busi, Fold(1, 1), CHOICE.updated({"validation": 0.4}))
    counts = split["split"].value_counts()
    assert counts["validation"] == pytest.approx(counts["train"], abs=3)


def test_a_class_of_one_group_beside_the_fold_is_named() -> None:
    labels = np.repeat(["benign", "malignant"], [40, 2])
    images = make_folds(labels, [f"g{n}" for n in range(42)])
    choice = CHOICE.updated({"repeats": 1})
    fold = next(f for f in range(1, 6) if (images["repeat_1"] == f)[40:].any())
    with pytest.raises(BadInputError, match=f"^repeat_1_fold_{fold}, without its test") as caught:
        select_fold(images, Fold(1, fold), choice)
    assert "'malignant': 1" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_few_groups_bound_the_number_of_folds() -> None:
    """Of two groups of a class, one is for validation and one to train on."""
    labels = np.repeat(["benign", "malignant"], [60, 60])
    images = pd.DataFrame({"label": labels, "group": [f"g{n // 30}" for n in range(120)]})
    parts = assign_parts(images, {"validation": 0.1}, most=10, seed=0)
    assert (pd.crosstab(parts, labels) == 30).all(axis=None)


def test_ten_images_a_class_leave_two_of_each_for_the_test() -> None:
    """A fold of ten is as near to 15 % as two of them: the larger part is measured better."""
    labels = np.repeat(["benign", "malignant", "normal"], 10)
    images = make_folds(labels, [f"g{number}" for number in range(30)])
    parts = assign_parts(images, {"test": 0.15, "validation": 0.15}, most=20, seed=0)
    counts = pd.crosstab(labels, parts)
    assert (counts[["test", "validation"]] == 2).all(axis=None)


def test_too_few_images_for_the_folds_are_refused() -> None:
    images = pd.DataFrame({"label": ["benign", "malignant"], "group": ["a", "b"]})
    with pytest.raises(BadInputError, match=r"too few images to split: .*'benign': 1") as caught:
        assign_groups(images, n_splits=3, seed=0)
    assert "\n" not in str(caught.value)


def test_a_class_smaller_than_the_folds_is_no_warning() -> None:
    labels = ["benign"] * 20 + ["malignant"] * 3
    images = pd.DataFrame({"label": labels, "group": range(23)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assigned = assign_groups(images, n_splits=5, seed=0)
    assert set(assigned) == set(range(5))
    assert assign_groups(images, 5, seed=1).tolist() != assigned.tolist()
    assert assign_groups(images, 5, seed=2**32).tolist() == assigned.tolist(), "counted modulo it"


# Sites


def make_two_sites(count: int = 120) -> pd.DataFrame:
    """Return the fold manifest of two sites, a third and two thirds of the images."""
    numbers = np.arange(count)
    images = pd.DataFrame(
        {
            "image_id": [f"i{n}" for n in numbers],
            "path": [f"i{n}.png" for n in numbers],
            "label": np.where(numbers % 4 == 0, "malignant", "benign"),
            "group": [f"g{n // 2}" for n in numbers],
            "cv_group": [f"g{n // 2}" for n in numbers],
            "site": np.where(numbers < count // 3, "one", "two"),
        }
    )
    return images.assign(repeat_1=1 + assign_cv_groups(images, CHOICE.folds, 0))


def test_a_site_is_tested_by_what_was_learned_from_the_others() -> None:
    images = make_two_sites()
    for fold in list_site_folds(["one", "two"]):
        split = select_site_fold(images, fold, CHOICE).set_index("image_id")
        site = images.set_index("image_id")["site"]
        assert set(site[split.index[split["split"] == "test"]]) == {fold.site}
        assert set(site[split.index[split["split"] != "test"]]) == {"one", "two"} - {fold.site}
        learned = split[split["split"] != "test"]
        share = (learned["split"] == "validation").mean()
        assert share == pytest.approx(CHOICE.validation / (1 - 1 / CHOICE.folds), abs=0.06)


def test_a_patient_at_both_sites_is_not_learned_from() -> None:
    images = make_two_sites()
    images.loc[images["image_id"] == "i100", ["group", "cv_group"]] = "g0"
    split = select_site_fold(images, list_site_folds(["one", "two"])[0], CHOICE)
    assert "i100" not in set(split["image_id"])
    assert {"i0", "i1"} <= set(split.loc[split["split"] == "test", "image_id"])


def test_splits_of_folds_know_the_site_of_each_image() -> None:
    """What `site_weights` and `choose_by` go by."""
    images = make_two_sites()
    split = select_site_fold(images, list_site_folds(["one", "two"])[0], CHOICE)
    expected = images.set_index("image_id").loc[split["image_id"], "site"]
    assert split["site"].tolist() == expected.tolist()
    assert set(split["site"]) == {"one", "two"}


def test_within_a_site_each_image_is_tested_once_by_models_of_the_site() -> None:
    images = make_two_sites()
    folds = list_within_site_folds(["one", "two"], CHOICE.folds)
    assert len({fold.fold for fold in folds}) == len(folds) == 2 * CHOICE.folds
    tested: list[str] = []
    for fold in folds:
        split = select_site_fold(images, fold, CHOICE)
        assert set(images.set_index("image_id").loc[split["image_id"], "site"]) == {fold.site}
        assert set(split["split"]) == {"train", "validation", "test"}
        parts = split.groupby("group")["split"].nunique()
        assert (parts == 1).all()
        tested += split.loc[split["split"] == "test", "image_id"].tolist()
    assert sorted(tested) == sorted(images["image_id"])


def test_folds_of_sites_are_named_by_the_site() -> None:
    assert [fold.name for fold in list_site_folds(["one", "two"])] == ["one", "two"]
    names = [fold.name for fold in list_within_site_folds(["one"], 2)]
    assert names == ["one_fold_1", "one_fold_2"]


def test_a_site_that_lacks_a_class_is_refused() -> None:
    images = make_two_sites()
    images.loc[images["site"] == "two", "label"] = "benign"
    with pytest.raises(BadInputError, match="site two has no image of class malignant"):
        select_site_fold(images, list_site_folds(["one", "two"])[0], CHOICE)


def test_a_site_without_images_is_refused_and_the_others_named() -> None:
    with pytest.raises(BadInputError, match="no image of site three, but of one, two"):
        select_site_fold(make_two_sites(), list_site_folds(["three"])[0], CHOICE)
