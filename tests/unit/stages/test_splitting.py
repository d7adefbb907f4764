"""Splits and folds: groups together, the published sizes, the same for the same seed.

The split that one fold makes is tested in tests/unit/learning/test_folds.py, too.
"""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from busi_pipeline.config.schemas import SplitSettings
from busi_pipeline.errors import BadInputError
from busi_pipeline.learning.folds import (
    assign_groups,
    list_folds,
    name_repeat,
    select_fold,
)
from busi_pipeline.pipelines.splitting import create_folds_pipeline, create_random_folds_pipeline
from busi_pipeline.pipelines.splitting.folds import Folds, assign_folds, assign_random_folds
from busi_pipeline.pipelines.splitting.nodes import Split, split_images
from tests.factories import group_alone, load_parameters, make_manifest

PARAMETERS = load_parameters()
GROUPED, FOLDS = PARAMETERS["split"], PARAMETERS["cross_validation"]
RANDOM = GROUPED.updated({"method": "random"})


@pytest.fixture(scope="module")
def manifest() -> pd.DataFrame:
    return make_manifest()


def split_alone(manifest: pd.DataFrame, choice: SplitSettings) -> Split:
    return split_images(manifest, group_alone(manifest), choice)


def pair_up(manifest: pd.DataFrame, mixed: bool = False) -> pd.DataFrame:
    """Return image groups of two images each."""
    groups = group_alone(manifest)
    groups["group"] = [f"g{i // 2}" for i in range(len(groups))]
    return groups.assign(mixed_labels=mixed)


@st.composite
def draw_groups(draw: st.DrawFn) -> pd.DataFrame:
    """Images of three labels in groups of one to six, some of them of mixed labels."""
    sizes = draw(st.lists(st.integers(1, 6), min_size=60, max_size=120))
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    rows = []
    for number, size in enumerate(sizes):
        label = "abc"[number % 3]
        labels = [label] * size
        if size > 1 and rng.random() < 0.1:
            labels[0] = "abc"[(number + 1) % 3]
        rows += [
            (f"{number}-{i}", one, f"g{number}", len(set(labels)) > 1)
            for i, one in enumerate(labels)
        ]
    table = pd.DataFrame(rows, columns=["image_id", "label", "group", "mixed_labels"])
    return table.assign(path=table["image_id"], site="main", byte_sha256="a").sample(
        frac=1, random_state=seed % 1000
    )


FEW_GROUPS = pd.DataFrame(
    {
        "image_id": [f"{n}" for n in range(90)],
        "label": list("abc") * 30,
        "group": [f"g{n // 6}_{n % 3}" for n in range(90)],
        "mixed_labels": False,
    }
).assign(path="p", site="main", byte_sha256="a")


@st.composite
def draw_patients(draw: st.DrawFn) -> pd.DataFrame:
    """Few patients of two or three labels with many images, some with images of two labels."""
    labels = "abc"[: draw(st.integers(2, 3))]
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows = []
    for label in labels:
        for number in range(draw(st.integers(1, 7))):
            size = int(rng.choice([1, 2, 5, 40]))
            other = rng.choice(list(labels)) if rng.random() < 0.2 else label
            own = [label] * (size - size // 3) + [other] * (size // 3)
            rows += [(one, f"{label}{number}") for one in own]
    table = pd.DataFrame(rows, columns=["label", "group"])
    ids = [f"i{n}" for n in range(len(table))]
    return table.assign(image_id=ids, path=ids, site="main", mixed_labels=False, byte_sha256="a")


# The hold-out split


@settings(max_examples=8, deadline=None)
@given(images=draw_groups(), seed=st.integers(0, 2**32 - 1), keep=st.booleans())
def test_groups_never_cross_whatever_the_seed(images: pd.DataFrame, seed: int, keep: bool) -> None:
    choice = GROUPED.updated({"seed": seed, "mixed_labels": "keep" if keep else "exclude"})
    result = split_images(images, images, choice)
    assigned = result.split_manifest
    assert assigned.groupby("group")["split"].nunique().max() == 1
    assert list(assigned["image_id"]) == list(images["image_id"])
    excluded = assigned["split"] == "excluded"
    mixed = images["mixed_labels"].to_numpy()
    assert (excluded.to_numpy() == (mixed & (not keep))).all()
    assert result.summary["split"]["test_images_with_duplicate_in_train"] == 0
    shares = assigned.loc[~excluded, "split"].value_counts(normalize=True)
    assert abs(shares["train"] - 0.7) < 0.08
    assert abs(shares["test"] - 0.15) < 0.07


def test_grouped_busi_keeps_the_published_shares(manifest: pd.DataFrame) -> None:
    summary = split_alone(manifest, GROUPED).summary["split"]
    assert summary["train"]["all"] == pytest.approx(546, abs=4)
    assert summary["test"]["all"] == pytest.approx(117, abs=3)
    assert summary["test"]["malignant"] == pytest.approx(31, abs=2)
    assert summary["validation"]["normal"] == pytest.approx(20, abs=2)


def test_a_dozen_images_a_class_are_enough() -> None:
    few = make_manifest({"benign": 12, "malignant": 12, "normal": 12})
    summary = split_alone(few, GROUPED).summary["split"]
    assert [summary[part]["normal"] for part in ("train", "validation", "test")] == [8, 2, 2]


@pytest.mark.parametrize("counts", [{"a": 60, "b": 40}, dict.fromkeys("abcd", 40)])
def test_two_or_four_classes_are_in_every_part(counts: dict[str, int]) -> None:
    for choice in (GROUPED, RANDOM):
        summary = split_alone(make_manifest(counts), choice).summary["split"]
        for part in ("train", "validation", "test"):
            assert all(summary[part][name] > 0 for name in counts)


def test_a_random_split_counts_the_duplicates_it_parts(
    manifest: pd.DataFrame, caplog: pytest.LogCaptureFixture
) -> None:
    result = split_images(manifest, pair_up(manifest, mixed=True), RANDOM)
    assigned = result.split_manifest
    trained = set(assigned.loc[assigned["split"] == "train", "group"])
    parted = assigned.loc[assigned["split"] == "test", "group"].isin(trained).sum()
    assert result.summary["split"]["test_images_with_duplicate_in_train"] == parted > 50
    assert f"{parted} of 117 test images have a duplicate in the training set" in caplog.text
    assert (assigned["split"] != "excluded").all(), "the published protocol excludes nothing"


def test_images_without_a_group_are_named(manifest: pd.DataFrame) -> None:
    with pytest.raises(BadInputError, match=r"1 images are in no group.*pipeline=deduplication"):
        split_images(manifest, group_alone(manifest.iloc[1:]), GROUPED)


def test_busi_is_split_at_random_as_published(manifest: pd.DataFrame) -> None:
    summary = split_alone(manifest, RANDOM).summary["split"]
    assert summary == {
        "train": {"benign": 306, "malignant": 147, "normal": 93, "all": 546},
        "validation": {"benign": 65, "malignant": 32, "normal": 20, "all": 117},
        "test": {"benign": 66, "malignant": 31, "normal": 20, "all": 117},
        "excluded": {"all": 0},
        "test_images_with_duplicate_in_train": 0,
    }


@pytest.mark.parametrize("choice", [RANDOM, GROUPED], ids=["random", "grouped"])
def test_the_hash_follows_the_seed(choice: SplitSettings) -> None:
    few = make_manifest({"a": 60, "b": 40})

    def digest(seed: int) -> str:
        return split_alone(few, choice.updated({"seed": seed})).tags["split_sha256"]

    assert digest(42) == digest(42)
    assert digest(42) != digest(43)


@settings(max_examples=8, deadline=None)
@given(
    counts=st.tuples(*[st.integers(20, 60)] * 3),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_image_is_in_one_part_and_every_class_in_each(
    counts: tuple[int, int, int], seed: int
) -> None:
    images = make_manifest(dict(zip("abc", counts, strict=True)))
    result = split_alone(images, RANDOM.updated({"seed": seed})).split_manifest
    assert list(result["image_id"]) == list(images["image_id"])
    shares = pd.crosstab(result["label"], result["split"], normalize="index")
    assert set(shares.columns) == {"train", "validation", "test"}
    assert (shares["train"] - 0.7).abs().max() < 0.08


@pytest.mark.parametrize("choice", [RANDOM, GROUPED], ids=["random", "grouped"])
def test_a_class_too_small_is_named(choice: SplitSettings) -> None:
    few = make_manifest({"benign": 30, "malignant": 30, "normal": 2})
    with pytest.raises(BadInputError, match=r"'normal': [012]") as caught:
        split_alone(few, choice)
    assert "Add images" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_three_patients_a_class_are_one_for_each_part() -> None:
    images = make_manifest({"a": 300, "b": 300})
    groups = group_alone(images).assign(group=[f"p{n // 100}" for n in range(600)])
    assigned = split_images(images, groups, GROUPED).split_manifest
    assert (pd.crosstab(assigned["split"], assigned["label"]) == 100).all(axis=None)
    two = groups.assign(group=[f"p{n // 150}" for n in range(600)])
    with pytest.raises(BadInputError, match=r"each class needs at least 3 groups.*'a': 2"):
        split_images(images, two, GROUPED)


@settings(max_examples=12, deadline=None)
@given(images=draw_patients(), seed=st.integers(0, 2**32 - 1))
def test_few_patients_are_parted_whole_or_refused(images: pd.DataFrame, seed: int) -> None:
    patients = images.groupby("label")["group"].nunique()
    try:
        assigned = split_images(images, images, GROUPED.updated({"seed": seed})).split_manifest
    except BadInputError:
        is_mixed = images.groupby("group")["label"].nunique().max() > 1
        assert is_mixed or patients.min() < 3
        return
    assert patients.min() >= 3
    assert assigned.groupby("group")["split"].nunique().max() == 1
    counts = pd.crosstab(assigned["split"], assigned["label"])
    assert set(counts.index) == {"train", "validation", "test"}
    assert (counts > 0).all(axis=None)


def test_few_patients_come_near_the_shares() -> None:
    """Four patients a class, one with most of the images: that one is trained on."""
    sizes = [70, 10, 10, 10]
    groups = np.repeat([f"{label}{n}" for label in "ab" for n in range(4)], sizes * 2)
    images = make_manifest({"a": 100, "b": 100})
    for seed in range(5):
        split = GROUPED.updated({"seed": seed})
        assigned = split_images(images, group_alone(images).assign(group=groups), split)
        shares = assigned.split_manifest["split"].value_counts(normalize=True)
        assert shares["test"] == shares["validation"] == pytest.approx(0.1)


def test_splits_and_folds_carry_the_site(manifest: pd.DataFrame) -> None:
    sites = np.where(np.arange(len(manifest)) % 2, "north", "south")
    images, groups = manifest.assign(site=sites), pair_up(manifest)
    groups.loc[:9, "mixed_labels"] = True
    hold_out = split_images(images, groups, GROUPED)
    assert hold_out.split_manifest["site"].tolist() == sites.tolist()
    folds = assign_folds(images, groups, GROUPED, FOLDS)
    assert folds.fold_manifest["site"].tolist() == sites[10:].tolist()
    plain = assign_folds(manifest, groups, GROUPED, FOLDS)
    assert folds.fold_tags == plain.fold_tags
    assert hold_out.tags == split_images(manifest, groups, GROUPED).tags


# Folds


def make_folds(images: pd.DataFrame, split: SplitSettings = GROUPED, **changes: Any) -> Folds:
    return assign_folds(images, images, split, FOLDS.updated(changes))


@settings(max_examples=8, deadline=None)
@given(images=draw_groups(), seed=st.integers(0, 2**32 - 1), folds=st.integers(2, 10))
def test_groups_never_cross_parts(images: pd.DataFrame, seed: int, folds: int) -> None:
    fold = assign_groups(images, folds, seed)
    assert set(fold) == set(range(folds))
    assert pd.Series(fold).groupby(images["group"].to_numpy()).nunique().max() == 1
    sizes = np.bincount(fold) / len(images)
    assert np.abs(sizes - 1 / folds).max() < 0.06


@settings(max_examples=8, deadline=None)
@given(
    images=draw_groups(),
    seed=st.integers(0, 2**32 - 1),
    folds=st.integers(2, 6),
    repeats=st.integers(1, 2),
    keep=st.booleans(),
)
@example(images=FEW_GROUPS, seed=2**32 - 1, folds=6, repeats=3, keep=False)
def test_every_image_is_tested_once_a_repeat(
    images: pd.DataFrame, seed: int, folds: int, repeats: int, keep: bool
) -> None:
    choice = GROUPED.updated({"mixed_labels": "keep" if keep else "exclude"})
    cross_validation = FOLDS.updated({"folds": folds, "repeats": repeats, "seed": seed})
    table = assign_folds(images, images, choice, cross_validation).fold_manifest
    expected = images if keep else images[~images["mixed_labels"]]
    assert list(table["image_id"]) == list(expected["image_id"])
    tested = []
    for fold in list_folds(cross_validation):
        split = select_fold(table, fold, cross_validation)
        assert list(split["image_id"]) == list(table["image_id"])
        assert split.groupby("group")["split"].nunique().max() == 1, "a group crosses"
        assert set(split["split"]) == {"train", "validation", "test"}
        share = (split["split"] == "validation").mean()
        assert 0 < share < 2 * cross_validation.validation + 0.06
        is_test = split["split"] == "test"
        assert (is_test == (table[name_repeat(fold.repeat)] == fold.fold)).all()
        tested += [(fold.repeat, image_id) for image_id in split.loc[is_test, "image_id"]]
    assert len(tested) == len(set(tested)) == repeats * len(table)


@pytest.fixture(scope="module")
def busi_folds(manifest: pd.DataFrame) -> pd.DataFrame:
    groups = pair_up(manifest)
    return assign_folds(manifest, groups, GROUPED, FOLDS).fold_manifest


def test_busi_is_in_folds_of_like_size_and_classes(busi_folds: pd.DataFrame) -> None:
    for repeat in range(1, FOLDS.repeats + 1):
        table = pd.crosstab(busi_folds[name_repeat(repeat)], busi_folds["label"])
        assert list(table.index) == [1, 2, 3, 4, 5]
        assert (table.max() - table.min()).max() <= 4
    assert (busi_folds["repeat_1"] != busi_folds["repeat_2"]).mean() > 0.5, "divided anew"


def test_the_hash_of_folds_follows_seed_and_repeats() -> None:
    few = make_manifest({"a": 60, "b": 40})
    images = few.merge(group_alone(few), on="image_id")

    def digest(**changes: Any) -> str:
        return make_folds(images, **changes).fold_tags["split_sha256"]

    assert digest() == digest()
    assert len({digest(), digest(seed=1), digest(repeats=2), digest(folds=4)}) == 4


def test_more_repeats_leave_the_first_ones() -> None:
    few = make_manifest({"a": 60, "b": 40})
    images = few.merge(group_alone(few), on="image_id")
    one, three = (make_folds(images, repeats=repeats).fold_manifest for repeats in (1, 3))
    pd.testing.assert_series_equal(one["repeat_1"], three["repeat_1"])


def test_random_folds_part_duplicates_of_the_same_images(manifest: pd.DataFrame) -> None:
    groups = pair_up(manifest)
    groups["mixed_labels"] = groups["group"] == "g0"
    grouped = assign_folds(manifest, groups, GROUPED, FOLDS).fold_manifest
    random = assign_random_folds(manifest, groups, GROUPED, FOLDS)
    table = random.fold_manifest
    assert list(table["image_id"]) == list(grouped["image_id"]), "evaluated on the same images"
    assert list(table["group"]) == list(grouped["group"]), "compared by the same groups"
    assert table.groupby("group")["repeat_1"].nunique().max() == 2
    assert "repeat_2" not in table
    assert random.fold_tags["split_method"] == "random"


def test_more_folds_than_images_are_named() -> None:
    few = make_manifest({"benign": 9, "malignant": 3})
    with pytest.raises(
        BadInputError, match="5, but class malignant has images of 3 groups"
    ) as caught:
        assign_folds(few, group_alone(few), GROUPED, FOLDS)
    assert "\n" not in str(caught.value)


def test_more_folds_than_patients_of_a_class_are_named() -> None:
    images = make_manifest({"benign": 60, "malignant": 60})
    groups = group_alone(images).assign(group=[f"p{n // 15}" for n in range(120)])
    with pytest.raises(BadInputError, match="folds is 5, but class benign has images of 4 groups"):
        assign_folds(images, groups, GROUPED, FOLDS)
    assign_folds(images, groups, RANDOM, FOLDS)


@settings(max_examples=12, deadline=None)
@given(images=draw_patients(), seed=st.integers(0, 2**32 - 1), folds=st.integers(2, 4))
def test_folds_of_few_patients_are_whole_or_refused(
    images: pd.DataFrame, seed: int, folds: int
) -> None:
    cross_validation = FOLDS.updated({"folds": folds, "repeats": 1, "seed": seed})
    try:
        table = assign_folds(images, images, GROUPED, cross_validation).fold_manifest
        splits = [select_fold(table, f, cross_validation) for f in list_folds(cross_validation)]
    except BadInputError:
        return
    for split in splits:
        assert split.groupby("group")["split"].nunique().max() == 1
        learned = split[split["split"] != "test"]
        assert (pd.crosstab(learned["split"], learned["label"]) > 0).all(axis=None)


def test_every_fold_is_a_node() -> None:
    folds = list(list_folds(FOLDS))
    assert len(folds) == 15
    pipeline = create_folds_pipeline(folds)
    assert pipeline.outputs() == {"cross_validation.fold_tags"} | {
        f"cross_validation.{fold.name}.split_manifest" for fold in folds
    }
    names = {node.name for node in pipeline.nodes}
    assert "cross_validation.repeat_3_fold_5.select_fold" in names
    assert create_random_folds_pipeline(folds[:5]).inputs() == pipeline.inputs()
