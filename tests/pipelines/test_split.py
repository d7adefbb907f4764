"""The split: groups cv_group, the published sizes, the same for the same seed, clear errors."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from busi_pipeline.errors import BadInputError
from busi_pipeline.pipelines.splitting.nodes import Split, assign_groups, split_images

RANDOM = {
    "method": "random",
    "seed": 42,
    "validation": 0.15,
    "test": 0.15,
    "mixed_labels": "exclude",
}
GROUPED = RANDOM | {"method": "grouped"}


def group_alone(manifest: pd.DataFrame) -> pd.DataFrame:
    """Every image a group of its own."""
    return manifest[["image_id"]].assign(group=manifest["image_id"], mixed_labels=False)


def split_alone(manifest: pd.DataFrame, choice: dict[str, object]) -> Split:
    return split_images(manifest, group_alone(manifest), choice)


@st.composite
def resample_groups(draw: st.DrawFn) -> pd.DataFrame:
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
    return table.assign(path=table["image_id"]).sample(frac=1, random_state=seed % 1000)


@settings(max_examples=40, deadline=None)
@given(images=resample_groups(), seed=st.integers(0, 2**32 - 1), keep=st.booleans())
def test_groups_never_cross_whatever_the_seed(images: pd.DataFrame, seed: int, keep: bool) -> None:
    choice = GROUPED | {"seed": seed, "mixed_labels": "keep" if keep else "exclude"}
    result = split_images(images, images, choice)
    assigned = result.split_manifest
    assert assigned.groupby("group")["split"].nunique().max() == 1
    assert list(assigned["image_id"]) == list(images["image_id"])
    excluded = assigned["split"] == "excluded"
    mixed = images["mixed_labels"].to_numpy()
    assert (excluded.to_numpy() == (mixed & (not keep))).all()
    assert result.summary["split"]["test_images_with_copy_in_train"] == 0
    shares = assigned.loc[~excluded, "split"].value_counts(normalize=True)
    assert abs(shares["train"] - 0.7) < 0.08
    assert abs(shares["test"] - 0.15) < 0.07


@settings(max_examples=40, deadline=None)
@given(images=resample_groups(), seed=st.integers(0, 2**32 - 1), folds=st.integers(2, 10))
def test_groups_never_cross_folds(images: pd.DataFrame, seed: int, folds: int) -> None:
    fold = assign_groups(images, folds, seed)
    assert set(fold) == set(range(folds))
    assert pd.Series(fold).groupby(images["group"].to_numpy()).nunique().max() == 1
    sizes = np.bincount(fold) / len(images)
    assert np.abs(sizes - 1 / folds).max() < 0.06


def test_grouped_busi_keeps_the_published_shares(manifest: pd.DataFrame) -> None:
    summary = split_alone(manifest, GROUPED).summary["split"]
    assert summary["train"]["all"] == pytest.approx(546, abs=4)
    assert summary["test"]["all"] == pytest.approx(117, abs=3)
    assert summary["test"]["malignant"] == pytest.approx(31, abs=2)
    assert summary["validation"]["normal"] == pytest.approx(20, abs=2)


def test_a_dozen_images_a_class_are_enough(manifest: pd.DataFrame) -> None:
    few = manifest.groupby("label").head(12).reset_index(drop=True)
    summary = split_alone(few, GROUPED).summary["split"]
    assert [summary[part]["normal"] for part in ("train", "validation", "test")] == [8, 2, 2]


def test_random_split_says_how_many_copies_it_lets_through(
    manifest: pd.DataFrame, caplog: pytest.LogCaptureFixture
) -> None:
    groups = group_alone(manifest)
    groups["group"] = [f"g{i // 2}" for i in range(len(groups))]
    groups["mixed_labels"] = True
    result = split_images(manifest, groups, RANDOM)
    assigned = result.split_manifest
    trained = set(assigned.loc[assigned["split"] == "train", "group"])
    copied = assigned.loc[assigned["split"] == "test", "group"].isin(trained).sum()
    assert result.summary["split"]["test_images_with_copy_in_train"] == copied > 50
    assert f"{copied} of 117 test images have a copy in the training set" in caplog.text
    assert (assigned["split"] != "excluded").all(), "the published protocol excludes nothing"


def test_images_without_a_group_are_named(manifest: pd.DataFrame) -> None:
    with pytest.raises(BadInputError, match=r"1 images are in no group.*pipeline=copies"):
        split_images(manifest, group_alone(manifest.iloc[1:]), GROUPED)


def test_busi_is_split_as_published(manifest: pd.DataFrame) -> None:
    summary = split_alone(manifest, RANDOM).summary["split"]
    assert summary == {
        "train": {"benign": 306, "malignant": 147, "normal": 93, "all": 546},
        "validation": {"benign": 65, "malignant": 32, "normal": 20, "all": 117},
        "test": {"benign": 66, "malignant": 31, "normal": 20, "all": 117},
        "excluded": {"all": 0},
        "test_images_with_copy_in_train": 0,
    }


@pytest.mark.parametrize("choice", [RANDOM, GROUPED])
def test_hash_follows_the_seed(manifest: pd.DataFrame, choice: dict[str, object]) -> None:
    def digest(seed: int) -> str:
        return split_alone(manifest, choice | {"seed": seed}).tags["split_sha256"]

    assert digest(42) == digest(42)
    assert digest(42) != digest(43)


@settings(max_examples=25, deadline=None)
@given(
    counts=st.tuples(*[st.integers(20, 60)] * 3),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_image_is_in_one_part_and_every_class_in_each(
    counts: tuple[int, int, int], seed: int
) -> None:
    labels = [name for name, n in zip("abc", counts, strict=True) for _ in range(n)]
    ids = [f"{label}{i}" for i, label in enumerate(labels)]
    images = pd.DataFrame({"image_id": ids, "path": ids, "label": labels})
    result = split_alone(images, RANDOM | {"seed": seed}).split_manifest
    assert list(result["image_id"]) == ids
    shares = pd.crosstab(result["label"], result["split"], normalize="index")
    assert set(shares.columns) == {"train", "validation", "test"}
    assert (shares["train"] - 0.7).abs().max() < 0.08


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "patient"}, "split.method must be one of"),
        ({"test": 0.0}, "must be above 0"),
        ({"test": 0.6, "validation": 0.5}, "cv_group below 1"),
        ({"method": "grouped", "mixed_labels": "drop"}, "split.mixed_labels must be"),
    ],
)
def test_wrong_settings_are_named(
    manifest: pd.DataFrame, change: dict[str, object], message: str
) -> None:
    with pytest.raises(BadInputError, match=message):
        split_alone(manifest, RANDOM | change)


def test_class_too_small_is_named(manifest: pd.DataFrame) -> None:
    few = manifest.groupby("label").head(30)
    few = few[(few["label"] != "normal") | (few.groupby("label").cumcount() < 2)]
    with pytest.raises(BadInputError, match="'normal': 2"):
        split_alone(few.reset_index(drop=True), RANDOM)
