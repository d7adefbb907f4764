"""Explanation: hits are counted beside chance, positives classified otherwise come first."""

import numpy as np
import pandas as pd
import pytest

from busi_pipeline.caching.arrays import StoredArray
from busi_pipeline.config.schemas import PrivacySettings
from busi_pipeline.imaging.text_cover import cover_text
from busi_pipeline.pipelines.explanation.nodes import resize_map, score_localization
from busi_pipeline.pipelines.explanation.plots import plot_gradcam_gallery
from tests.evaluation_factories import EVALUATION, THREE
from tests.factories import make_settings, store_array
from tests.privacy_factories import COVERED, UNCOVERED, list_pictures, make_named_picture

SETTINGS = make_settings("Tiny")


def make_case() -> tuple[StoredArray, StoredArray, pd.DataFrame]:
    """Three test images; a lesion in the left half of the first two, none in the third."""
    ids = ["i0", "i1", "i2"]
    maps = np.zeros((3, 2, 2), dtype=np.float32)
    maps[0, :, 0] = 1  # on the lesion
    maps[1, :, 1] = 1  # beside it
    maps[2, :, 1] = 1
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
            "flagged": [True, False, False],
        }
    )
    return store_array(ids, maps), store_array(ids, masks), predictions


def test_hits_and_shares_stand_beside_chance() -> None:
    gradcam, masks, predictions = make_case()
    table, record = score_localization(gradcam, masks, predictions, SETTINGS, EVALUATION)
    table = table.set_index("image_id")
    assert list(table.index) == ["i0", "i1"], "an image without lesion is not scored"
    assert table["pointing_hit"].tolist() == [1, 0]
    assert table["pointing_hit_of_others"].tolist() == [0, 1]
    assert table["lesion_area"].tolist() == [0.5, 0.5]
    enlarged = resize_map(gradcam.values[0], 8)
    expected = enlarged[:, :4].sum() / enlarged.sum()
    assert table.loc["i0", "gradcam_inside"] == pytest.approx(expected)
    assert table.loc["i1", "gradcam_inside_of_others"] == pytest.approx(expected)
    scores = record["localization"]
    assert scores["images"] == 2
    assert scores["pointing_hit"] == 0.5
    assert scores["pointing_hit_ci_low"] <= 0.5 <= scores["pointing_hit_ci_high"]


def test_an_empty_map_is_no_hit() -> None:
    gradcam, masks, predictions = make_case()
    empty = store_array(predictions["image_id"], np.zeros_like(gradcam.values))
    table, _ = score_localization(empty, masks, predictions, SETTINGS, EVALUATION)
    assert table["pointing_hit"].tolist() == [0, 0]
    assert table["gradcam_inside"].tolist() == [0, 0]


def test_one_lesion_has_no_others_to_compare_with() -> None:
    gradcam, masks, predictions = make_case()
    masks.values[1] = 0
    table, record = score_localization(gradcam, masks, predictions, SETTINGS, EVALUATION)
    assert table["pointing_hit"].tolist() == [1]
    assert "pointing_hit_of_others" not in record["localization"]


def test_without_any_mask_nothing_is_scored(caplog: pytest.LogCaptureFixture) -> None:
    gradcam, masks, predictions = make_case()
    bare = store_array(predictions["image_id"], np.zeros_like(masks.values))
    table, record = score_localization(gradcam, bare, predictions, SETTINGS, EVALUATION)
    assert table.empty
    assert record == {"localization": {"images": 0}}
    assert "no test image has a lesion mask" in caplog.text


@pytest.mark.parametrize(
    ("flagged", "count", "flag"),
    [(True, 1, "flagged for review"), (False, 0, "not flagged: missed")],
)
def test_gallery_shows_misclassified_positives_first(flagged: bool, count: int, flag: str) -> None:
    gradcam, masks, predictions = make_case()
    predictions.loc[0, "flagged"] = flagged
    images = store_array(predictions["image_id"], np.full((3, 8, 8, 3), 90, dtype=np.uint8))
    figure = plot_gradcam_gallery(gradcam, images, masks, predictions, SETTINGS, UNCOVERED, THREE)
    titles = [axis.get_title() for axis in figure.axes]
    assert titles[0] == f"i0\nmalignant, classified as benign\n{flag}"
    assert sorted(titles[1:3]) == [
        "i1\nbenign, classified correctly\nnot flagged",
        "i2\nnormal, classified correctly\nnot flagged",
    ]
    assert figure.axes[0].collections, "the outline of the lesion"
    assert (
        f"First 1 malignant classified as non-malignant, {count} of which are flagged for review"
        in figure.get_suptitle().replace("\n", " ")
    )


def test_the_gallery_has_a_colour_bar_of_the_colours_shown() -> None:
    gradcam, masks, predictions = make_case()
    images = store_array(predictions["image_id"], np.full((3, 8, 8, 3), 90, dtype=np.uint8))
    figure = plot_gradcam_gallery(gradcam, images, masks, predictions, SETTINGS, UNCOVERED, THREE)
    bar = figure.axes[-1]
    assert "spoke for the likeliest class" in bar.get_xlabel()
    heat = figure.axes[0].images[1]
    assert heat.get_clim() == (0, 1)
    assert float(np.max(heat.get_array())) == 1
    lowest, highest = (heat.cmap(value) for value in (0.0, 1.0))
    assert lowest[3] == 0
    assert highest[:3] == bar.collections[-1].cmap(1.0)[:3]


def test_gallery_without_misclassified_positives_says_so() -> None:
    gradcam, masks, predictions = make_case()
    images = store_array(predictions["image_id"], np.full((3, 8, 8, 3), 90, dtype=np.uint8))
    rest = predictions.tail(2)
    figure = plot_gradcam_gallery(gradcam, images, masks, rest, SETTINGS, UNCOVERED, THREE)
    assert "No test image is malignant classified as" in figure.get_suptitle().replace("\n", " ")


@pytest.mark.parametrize("privacy", [COVERED, UNCOVERED])
def test_gallery_covers_names_if_privacy_says_so(privacy: PrivacySettings) -> None:
    gradcam, _, predictions = make_case()
    picture = make_named_picture(128, 128)
    ids = predictions["image_id"]
    images = store_array(ids, np.repeat(picture[None], 3, axis=0))
    masks = store_array(ids, np.zeros((3, 128, 128), dtype=np.uint8))
    figure = plot_gradcam_gallery(gradcam, images, masks, predictions, SETTINGS, privacy, THREE)
    expected = cover_text(picture) if privacy.cover_text else picture
    shown = list_pictures(figure)
    assert len(shown) == 3
    assert all((pixels == expected).all() for pixels in shown)
