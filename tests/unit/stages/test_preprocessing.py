"""Preprocessing: training images alone are augmented, within the limits; files are checked."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from busi_pipeline.caching.cache import Cache
from busi_pipeline.config.schemas import ExperimentSettings, PrivacySettings
from busi_pipeline.errors import BadInputError
from busi_pipeline.imaging.affine import (
    FLIPPED,
    ORIGINAL,
    AffineTransform,
    apply_affine,
    list_transforms,
)
from busi_pipeline.imaging.text_cover import cover_text
from busi_pipeline.pipelines.preprocessing import nodes
from busi_pipeline.pipelines.preprocessing.nodes import (
    PLAN_COLUMNS,
    plan_all_images,
    plan_augmentation,
    plan_originals,
    plot_augmentation,
    prepare_images,
    prepare_input_images,
    prepare_masks,
)
from busi_pipeline.synthetic import simulate_scan
from tests.factories import as_raw_images, encode_image, make_settings, store_array
from tests.privacy_factories import COVERED, UNCOVERED, list_pictures, make_named_picture

AUGMENTATION = {
    "per_image": 6,
    "rotation_degrees": 15.0,
    "zoom": 0.1,
    "horizontal_flip": True,
    "vertical_flip": False,
    "shift": 0.05,
    "shear_degrees": 0.0,
    "brightness": 0.1,
}


def choose(flip: bool = True, **augmentation: Any) -> ExperimentSettings:
    return make_settings(
        "T",
        image_size=32,
        augmentation=AUGMENTATION | augmentation,
        training={"tta_horizontal_flip": flip},
    )


@pytest.fixture
def split_manifest() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "image_id": [f"benign/{i}" for i in range(30)],
            "label": ["benign"] * 10 + ["malignant"] * 10 + ["normal"] * 10,
            "split": ["train", "train", "validation", "test", "train"] * 6,
        }
    )


def list_augmentations(plan: pd.DataFrame) -> pd.Series:
    """Return the sorted augmentations of each image, as tuples."""
    return plan.groupby("image_id")["augmentation"].apply(lambda numbers: tuple(sorted(numbers)))


@pytest.mark.parametrize("flip", [True, False])
def test_only_training_images_are_augmented(split_manifest: pd.DataFrame, flip: bool) -> None:
    plan = plan_augmentation(split_manifest, choose(flip))
    assert list(plan.columns) == PLAN_COLUMNS
    augmentations = list_augmentations(plan)
    split = split_manifest.set_index("image_id")["split"].reindex(augmentations.index)
    evaluated = (FLIPPED, ORIGINAL) if flip else (ORIGINAL,)
    assert set(augmentations[split == "train"]) == {(*evaluated, *range(1, 7))}
    assert set(augmentations[split == "validation"]) == {evaluated}
    assert set(split) == {"train", "validation"}, "no test image"
    originals = plan[plan["augmentation"] == ORIGINAL]
    assert set(list_transforms(originals)) == {AffineTransform()}


@pytest.mark.parametrize("flip", [True, False])
def test_the_plan_of_all_images_is_that_of_every_fold(
    split_manifest: pd.DataFrame, flip: bool
) -> None:
    everything = plan_all_images(split_manifest, choose(flip))
    augmentations = list_augmentations(everything)
    evaluated = (FLIPPED, ORIGINAL) if flip else (ORIGINAL,)
    assert set(augmentations) == {(*evaluated, *range(1, 7))}
    assert len(augmentations) == len(split_manifest)
    flipped = everything[everything["augmentation"] == FLIPPED]
    assert all(t == AffineTransform(flip_horizontal=True) for t in list_transforms(flipped))
    one_split = plan_augmentation(split_manifest, choose(flip))
    both = one_split.merge(everything, on=["image_id", "augmentation"], suffixes=("", "_all"))
    assert len(both) == len(one_split)
    for name in AffineTransform._fields:
        np.testing.assert_array_equal(both[name], both[f"{name}_all"])


def test_originals_are_planned_alone(split_manifest: pd.DataFrame) -> None:
    plan = plan_originals(split_manifest, choose())
    assert set(list_augmentations(plan)) == {(FLIPPED, ORIGINAL)}
    assert list(plan.columns) == PLAN_COLUMNS


def look_at_lesions(*margins: float, **augmentation: Any) -> ExperimentSettings:
    """Return settings of an experiment that sees the lesion in one or more windows."""
    lesion = {"view": "lesion", "keep_aspect": True, "grey": True, "margin": list(margins)}
    return make_settings("T", image_size=32, input=lesion, augmentation=AUGMENTATION | augmentation)


def test_every_window_is_evaluated_and_learned_from(split_manifest: pd.DataFrame) -> None:
    plan = plan_augmentation(split_manifest, look_at_lesions(0.5, 0.2, 0.8))
    own = plan[plan["image_id"] == "benign/0"].set_index("augmentation")["window"].to_dict()
    evaluated = {0: 0, -1: 0, -2: 1, -3: 1, -4: 2, -5: 2}
    assert own == evaluated | {1: 0, 2: 1, 3: 2, 4: 0, 5: 1, 6: 2}
    validation = plan[plan["image_id"] == "benign/2"].set_index("augmentation")["window"]
    assert validation.to_dict() == evaluated
    flips = plan[plan["augmentation"].isin([-1, -3, -5])]
    assert flips["flip_horizontal"].astype(bool).all()


def test_the_scanner_varies_where_it_is_asked_for(split_manifest: pd.DataFrame) -> None:
    plan = plan_augmentation(split_manifest, look_at_lesions(0.5, scanner_variation=True))
    is_augmented = plan["augmentation"] > 0
    assert (plan["scanner_seed"] > 0).eq(is_augmented).all()
    assert plan.loc[is_augmented, "scanner_seed"].is_unique
    plain = plan_augmentation(split_manifest, look_at_lesions(0.5))
    assert (plain["scanner_seed"] == 0).all()
    moves = list(AffineTransform._fields)
    pd.testing.assert_frame_equal(plan[moves], plain[moves])


def test_images_are_prepared_at_every_window(tmp_path: Path) -> None:
    pixels = np.full((60, 80, 3), 200, np.uint8)
    pixels[20:40, 30:50] = 40
    pictures = {"a.png": pixels, "b.png": 255 - pixels}
    content = {name: encode_image(Image.fromarray(made)) for name, made in pictures.items()}
    manifest = pd.DataFrame(
        {
            "image_id": ["b", "a"],
            "path": ["b.png", "a.png"],
            "byte_sha256": [hashlib.sha256(content[f"{n}.png"]).hexdigest() for n in "ba"],
            "mask_paths": "[]",
            "box": "",
        }
    )
    boxes = pd.DataFrame({"image_id": ["a", "b"], "left": 30, "top": 20, "right": 50, "bottom": 40})
    settings = look_at_lesions(0.0, 0.5)
    images = prepare_input_images(
        as_raw_images(content), manifest, boxes, settings, Cache(tmp_path)
    )
    assert images.windows == 2
    assert images.values.shape == (4, 32, 32, 3)
    assert images.find_rows(["a", "b"], 1).tolist() == [3, 2]
    near, far = (images.values[images.find_rows(["a"], n)[0]] for n in (0, 1))
    assert (near[4:-4, 4:-4] == 40).all()
    assert 0.2 < (far < 100).mean() < 0.3, "a fourth of it is lesion"
    assert len(set(images.keys)) == 4


def test_transforms_stay_within_the_limits(split_manifest: pd.DataFrame) -> None:
    plan = plan_augmentation(split_manifest, choose())
    assert plan["rotation_degrees"].abs().max() <= 15
    assert plan["rotation_degrees"].abs().max() > 10
    assert plan["zoom"].between(0.9, 1.1).all()
    assert plan["shift_x"].abs().max() <= 0.05
    assert plan["brightness"].between(0.9, 1.1).all()
    assert (plan["shear_degrees"] == 0).all()
    assert 0.2 < plan["flip_horizontal"].mean() < 0.8
    assert not plan["flip_vertical"].any()


def test_the_plan_depends_on_the_image_and_the_seed_alone(split_manifest: pd.DataFrame) -> None:
    plan = plan_augmentation(split_manifest, choose())
    alone = plan_augmentation(split_manifest.iloc[[4, 2]], choose())
    ours, others = (p[p["image_id"] == "benign/4"].reset_index(drop=True) for p in (plan, alone))
    pd.testing.assert_frame_equal(ours, others)
    other = plan_augmentation(split_manifest, choose(seed=43))
    assert not np.allclose(plan["zoom"], other["zoom"])


def test_more_augmented_images_leave_the_first_ones(split_manifest: pd.DataFrame) -> None:
    plan = plan_augmentation(split_manifest, choose())
    more = plan_augmentation(split_manifest, choose(per_image=9))
    assert more["augmentation"].max() == 9
    first = more[more["augmentation"] <= 6].reset_index(drop=True)
    pd.testing.assert_frame_equal(first, plan)


@pytest.fixture
def files() -> dict[str, bytes]:
    scan = simulate_scan("benign", 80, 100, np.random.default_rng(1)).image
    return {
        "a.png": encode_image(Image.fromarray(scan)),
        "b.png": encode_image(Image.fromarray(255 - scan)),
    }


def describe(files: dict[str, bytes], *names: str) -> pd.DataFrame:
    """Return a manifest of these files."""
    return pd.DataFrame(
        {
            "image_id": names,
            "path": [f"{name}.png" for name in names],
            "byte_sha256": [hashlib.sha256(files[f"{n}.png"]).hexdigest() for n in names],
        }
    )


def test_images_are_prepared_in_the_manifests_order(
    files: dict[str, bytes], tmp_path: Path
) -> None:
    raw, cache = as_raw_images(files), Cache(tmp_path)
    images = prepare_images(raw, describe(files, "b", "a"), cache, size=32)
    values = images.values[[0, 1]]
    assert values.shape == (2, 32, 32, 3)
    assert values.dtype == np.uint8
    assert list(images.index["image_id"]) == ["b", "a"]
    assert values[0].mean() < 128 < values[1].mean()


def test_only_new_images_are_prepared(files: dict[str, bytes], tmp_path: Path) -> None:
    raw, cache = as_raw_images(files), Cache(tmp_path)
    prepare_images(raw, describe(files, "a"), cache, size=32)
    both = prepare_images(raw, describe(files, "a", "b"), cache, size=32)
    assert both.metadata["computed"] == 1
    assert prepare_images(raw, describe(files, "a"), cache, size=48).metadata["computed"] == 1


def test_a_file_that_changed_since_ingestion_is_named(
    files: dict[str, bytes], tmp_path: Path
) -> None:
    manifest = describe(files, "a")
    raw = as_raw_images({"a.png": b"other bytes"})
    with pytest.raises(BadInputError, match=r"a\.png changed since ingestion: rerun"):
        prepare_images(raw, manifest, Cache(tmp_path), size=32)


def test_masks_are_joined_and_follow_their_files(tmp_path: Path) -> None:
    def paint(top: int) -> bytes:
        mask = np.zeros((40, 40), dtype=np.uint8)
        mask[top : top + 10] = 255
        return encode_image(Image.fromarray(mask))

    paths = ["[]", '["x/two_mask.png", "x/ä 1.png"]']
    manifest = pd.DataFrame({"image_id": ["x/none", "x/two"], "mask_paths": paths})
    raw = as_raw_images({"x/two_mask.png": paint(0), "x/ä 1.png": paint(20)})
    cache = Cache(tmp_path)
    masks = prepare_masks(raw, manifest, cache, size=20)
    assert masks.values[0].sum() == 0
    assert masks.values[1].mean() == 0.5
    raw |= as_raw_images({"x/ä 1.png": paint(30)})
    again = prepare_masks(raw, manifest, cache, size=20)
    assert again.metadata["computed"] == 1
    assert again.values[1][-1].all()


def test_a_mask_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    manifest = pd.DataFrame({"image_id": ["x/a"], "mask_paths": ['["x/a_mask.png"]']})
    raw = as_raw_images({"x/a_mask.png": b"damaged"})
    with pytest.raises(
        BadInputError, match=r"the mask of x/a \(x/a_mask.png\) cannot be"
    ) as caught:
        prepare_masks(raw, manifest, Cache(tmp_path), size=20)
    assert "\n" not in str(caught.value)


def test_the_plot_shows_each_class(split_manifest: pd.DataFrame) -> None:
    settings = choose()
    plan = plan_augmentation(split_manifest, settings)
    images = store_array(split_manifest["image_id"], np.zeros((30, 32, 32, 3), dtype=np.uint8))
    figure = plot_augmentation(images, split_manifest, plan, settings, UNCOVERED)
    titles = [axis.get_title() for axis in figure.axes]
    for label in ("benign", "malignant", "normal"):
        assert titles.count(f"original, {label}") == 2
    assert len(figure.axes) == 6 * 6


@pytest.mark.parametrize("privacy", [COVERED, UNCOVERED])
def test_the_plot_covers_names_before_it_turns_them(
    split_manifest: pd.DataFrame, privacy: PrivacySettings
) -> None:
    settings, picture = choose(), make_named_picture(128, 128)
    plan = plan_augmentation(split_manifest, settings)
    images = store_array(split_manifest["image_id"], np.repeat(picture[None], 30, axis=0))
    figure = plot_augmentation(images, split_manifest, plan, settings, privacy)
    expected = cover_text(picture) if privacy.cover_text else picture
    first = plan[plan["image_id"] == split_manifest["image_id"].iloc[0]].head(5)
    rows = [expected, *(apply_affine(expected, move) for move in list_transforms(first))]
    for shown, wanted in zip(list_pictures(figure)[:6], rows, strict=True):
        assert (shown == wanted).all()


def test_images_are_made_anew_where_the_cover_of_text_is_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def identify(**shape: Any) -> dict[str, Any]:
        return nodes._identify_input(make_settings("T", input=shape))

    plain, removed = identify(remove_text=False), identify(remove_text=True)
    monkeypatch.setattr(nodes, "COVER_VERSION", 99)
    assert identify(remove_text=True) != removed
    assert identify(remove_text=False) == plain
