"""The split: the published sizes, the same for the same seed, and clear errors."""

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from busi_pipeline.errors import BadInputError
from busi_pipeline.pipelines.split.nodes import split_images

RANDOM = {"method": "random", "seed": 42, "validation": 0.15, "test": 0.15}


def test_busi_is_split_as_published(manifest: pd.DataFrame) -> None:
    summary = split_images(manifest, RANDOM).summary["split"]
    assert summary == {
        "train": {"benign": 306, "malignant": 147, "normal": 93, "all": 546},
        "validation": {"benign": 65, "malignant": 32, "normal": 20, "all": 117},
        "test": {"benign": 66, "malignant": 31, "normal": 20, "all": 117},
    }


def test_hash_follows_the_seed(manifest: pd.DataFrame) -> None:
    def digest(seed: int) -> str:
        return split_images(manifest, RANDOM | {"seed": seed}).tags["split_sha256"]

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
    result = split_images(images, RANDOM | {"seed": seed}).split_manifest
    assert list(result["image_id"]) == ids
    shares = pd.crosstab(result["label"], result["split"], normalize="index")
    assert set(shares.columns) == {"train", "validation", "test"}
    assert (shares["train"] - 0.7).abs().max() < 0.08


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "patient"}, "split.method must be one of"),
        ({"test": 0.0}, "must be above 0"),
        ({"test": 0.6, "validation": 0.5}, "together below 1"),
    ],
)
def test_wrong_settings_are_named(
    manifest: pd.DataFrame, change: dict[str, object], message: str
) -> None:
    with pytest.raises(BadInputError, match=message):
        split_images(manifest, RANDOM | change)


def test_class_too_small_is_named(manifest: pd.DataFrame) -> None:
    few = manifest.groupby("label").head(30)
    few = few[(few["label"] != "normal") | (few.groupby("label").cumcount() < 2)]
    with pytest.raises(BadInputError, match="'normal': 2"):
        split_images(few.reset_index(drop=True), RANDOM)
