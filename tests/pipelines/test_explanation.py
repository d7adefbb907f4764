"""Explanation: heat where the class is, masks joined, hits counted beside chance."""

import io
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from busi_pipeline.caching.arrays import StoredArray
from busi_pipeline.models.wrappers import average_with_pretuned
from busi_pipeline.models.network import tta_horizontal_flip
from busi_pipeline.imaging.masks import find_owner, list_masks, load_mask
from busi_pipeline.models.gradcam import compute_gradcam
from busi_pipeline.pipelines.explanation.nodes import (
    plot_gradcam_gallery,
    enlarge,
    prepare_masks,
    score_localization,
)

JUDGING = {"n_resamples": 50, "seed": 0}
SETTINGS = {"title": "Tiny"}


def build_quadrant_network() -> keras.Model:
    """Looks at 8 x 8 images by quadrant: red speaks for class 0, green for class 1.

    Layers are named and nested as `core.network` does it.
    """
    images = keras.Input((8, 8, 3), dtype="uint8")
    pixels = keras.Input((8, 8, 3), dtype="uint8")
    normalised = keras.layers.Rescaling(1 / 255, name="normalise")(pixels)
    frozen = keras.Model(pixels, keras.layers.AveragePooling2D(4)(normalised), name="frozen")
    at_cut = keras.Input((2, 2, 3))
    pooled = keras.layers.GlobalAveragePooling2D(name="pool")(at_cut)
    tail = keras.Model(at_cut, pooled, name="tail_and_pool")
    vectors = keras.Input((3,))
    dense = keras.layers.Dense(3, activation="softmax", name="probabilities")
    head = keras.Model(vectors, dense(keras.layers.Dropout(0.5)(vectors)), name="head")
    dense.set_weights([np.diag([1.0, 1.0, 0.0]), np.zeros(3)])
    return keras.Model(images, head(tail(frozen(images))), name="tiny")


def paint(quadrant: tuple[int, int], channel: int) -> np.ndarray:
    image = np.zeros((8, 8, 3), dtype=np.uint8)
    row, column = quadrant
    image[4 * row : 4 * row + 4, 4 * column : 4 * column + 4, channel] = 255
    return image


@pytest.mark.parametrize("mirrored", [False, True])
def test_heat_is_where_the_class_was_seen(mirrored: bool) -> None:
    network = build_quadrant_network()
    network = tta_horizontal_flip(network) if mirrored else network
    images = np.stack([paint((0, 1), 0) + paint((1, 0), 1)] * 2)
    heat = compute_gradcam(network, images, np.array([0, 1]))
    assert heat.shape == (2, 2, 2)
    assert heat[0].argmax() == 1, "class 0 was seen at the upper right"
    assert heat[1].argmax() == 2, "class 1 was seen at the lower left"
    assert (heat >= 0).all()
    assert np.count_nonzero(heat[0]) == 1


@pytest.mark.parametrize("with_start", [False, True])
def test_heat_is_traced_through_the_networks_of_this_project(
    tmp_path: Any, with_start: bool
) -> None:
    """The nesting and the names that `compute_gradcam` relies on, after saving and loading."""
    from busi_pipeline.models.network import build_network
    from busi_pipeline.config.experiments import HeadSettings

    head = HeadSettings(
        pool_intermediate=True,
        dense_units=4,
        batch_normalization=True,
        batch_normalization_momentum=0.9,
        dropout=0.1,
    )
    built, start = (
        build_network("vgg16", 32, "block1_pool", "block2_pool", head, 3, None) for _ in range(2)
    )
    network = tta_horizontal_flip(average_with_pretuned(built, start) if with_start else built.full)
    network.save(tmp_path / "network.keras")
    loaded = keras.saving.load_model(tmp_path / "network.keras", compile=False)
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    heat = compute_gradcam(network, images, np.array([0, 1, 2]))
    assert heat.shape == (3, 16, 16)
    np.testing.assert_allclose(compute_gradcam(loaded, images, np.array([0, 1, 2])), heat, atol=1e-6)
    alone = compute_gradcam(tta_horizontal_flip(built.full), images, np.array([0, 1, 2]))
    assert np.allclose(heat, alone) != with_start, "both tails speak"


def encode(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_masks_of_one_image_are_joined_and_stretched() -> None:
    left, right = np.zeros((10, 20), dtype=np.uint8), np.zeros((10, 20), dtype=np.uint8)
    left[:, :5], right[:, 15:] = 255, 255
    files = {
        "benign/a (1).png": encode(left),
        "benign/a (1)_mask.png": encode(left),
        "benign/a (1)_mask_1.png": encode(right),
        "normal/b.png": encode(left),
    }
    raw = {path: (lambda content=content: content) for path, content in files.items()}
    assert find_owner("benign/a (1)_mask_1.png") == ("benign", "a (1)")
    assert find_owner("benign/a (1).png") is None
    of_image = list_masks(raw)
    assert of_image == {"benign/a (1)": ["benign/a (1)_mask.png", "benign/a (1)_mask_1.png"]}
    union = load_mask(raw, of_image["benign/a (1)"], 8)
    np.testing.assert_array_equal(union, np.tile([1, 1, 0, 0, 0, 0, 1, 1], (8, 1)))

    manifest = pd.DataFrame({"image_id": ["benign/a (1)", "normal/b"]})
    stream = prepare_masks(raw, manifest, 8)
    rows = np.concatenate(list(stream.compute(np.array([0, 1]))))
    np.testing.assert_array_equal(rows[0], union)
    assert not rows[1].any(), "no mask, no lesion"
    files["benign/a (1)_mask_1.png"] = encode(left)
    raw = {path: (lambda content=content: content) for path, content in files.items()}
    again = prepare_masks(raw, manifest, 8)
    assert again.keys[0] != stream.keys[0], "another mask is another row"
    assert again.keys[1] == stream.keys[1]


def make_case() -> tuple[StoredArray, StoredArray, pd.DataFrame]:
    """Three test images; a lesion in the left half of the first two, none in the third."""
    ids = ["i0", "i1", "i2"]
    heat = np.zeros((3, 2, 2), dtype=np.float32)
    heat[0, :, 0] = 1  # on the lesion
    heat[1, :, 1] = 1  # beside it
    heat[2, :, 1] = 1
    masks = np.zeros((3, 8, 8), dtype=np.uint8)
    masks[:2, :, :4] = 1
    predictions = pd.DataFrame(
        {
            "image_id": ids,
            "group": ids,
            "split": "test",
            "label": ["malignant", "benign", "normal"],
            "predicted": ["benign", "benign", "normal"],
            "correct": [False, True, True],
        }
    )
    index = predictions[["image_id"]]
    return StoredArray(index, heat), StoredArray(index, masks), predictions


def test_hits_and_shares_stand_beside_chance() -> None:
    heat, masks, predictions = make_case()
    table, record = score_localization(heat, masks, predictions, SETTINGS, JUDGING)
    table = table.set_index("image_id")
    assert list(table.index) == ["i0", "i1"], "an image without lesion is not scored"
    assert table["pointing_hit"].tolist() == [1, 0]
    assert table["pointing_hit_of_others"].tolist() == [0, 1]
    assert table["lesion_area"].tolist() == [0.5, 0.5]
    enlarged = enlarge(heat.values[0], 8)
    expected = enlarged[:, :4].sum() / enlarged.sum()
    assert table.loc["i0", "heat_inside"] == pytest.approx(expected)
    assert table.loc["i1", "heat_inside_of_others"] == pytest.approx(expected)
    scores = record["explanation"]
    assert scores["images"] == 2
    assert scores["pointing_hit"] == 0.5
    assert scores["pointing_hit_ci_low"] <= 0.5 <= scores["pointing_hit_ci_high"]


def test_no_heat_is_no_hit() -> None:
    heat, masks, predictions = make_case()
    cold = StoredArray(heat.index, np.zeros_like(heat.values))
    table, _ = score_localization(cold, masks, predictions, SETTINGS, JUDGING)
    assert table["pointing_hit"].tolist() == [0, 0]
    assert table["heat_inside"].tolist() == [0, 0]


def test_without_any_mask_nothing_is_scored(caplog: pytest.LogCaptureFixture) -> None:
    heat, masks, predictions = make_case()
    bare = StoredArray(masks.index, np.zeros_like(masks.values))
    table, record = score_localization(heat, bare, predictions, SETTINGS, JUDGING)
    assert table.empty
    assert record == {"explanation": {"images": 0}}
    assert "no test image has a lesion mask" in caplog.text


def test_gallery_shows_missed_cancers_first() -> None:
    heat, masks, predictions = make_case()
    images = StoredArray(masks.index, np.full((3, 8, 8, 3), 90, dtype=np.uint8))
    axes = plot_gradcam_gallery(heat, images, masks, predictions, SETTINGS).axes
    titles = [axis.get_title() for axis in axes]
    assert titles[0] == "i0\npredicted benign"
    assert sorted(titles[1:3]) == ["i1\npredicted benign", "i2\npredicted normal"]
    assert axes[0].collections, "the outline of the lesion"
