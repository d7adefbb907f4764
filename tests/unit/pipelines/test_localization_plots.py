"""The picture of found and drawn boxes."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from busi_pipeline.config.schemas import PrivacySettings
from busi_pipeline.imaging.crops import Window, list_whole_window, place_in_window, show_whole
from busi_pipeline.imaging.text_cover import cover_text
from busi_pipeline.pipelines.localization.plots import plot_lesion_boxes
from busi_pipeline.plotting.style import NothingToShow
from tests.factories import as_raw_images, encode_image, load_parameters
from tests.privacy_factories import COVERED, UNCOVERED, list_pictures, make_named_picture

SETTINGS = load_parameters()["localization"]


@pytest.mark.parametrize("privacy", [COVERED, UNCOVERED])
def test_test_images_are_shown_with_both_boxes_and_without_names(privacy: PrivacySettings) -> None:
    picture = make_named_picture()
    height, width = picture.shape[:2]
    ids = ["a", "b", "c"]
    raw = as_raw_images({f"{name}.png": encode_image(Image.fromarray(picture)) for name in ids})
    manifest = pd.DataFrame({"image_id": ids, "path": list(raw), "height": height, "width": width})
    split = pd.DataFrame({"image_id": ids, "split": ["test", "train", "test"]})
    found, drawn = Window(10, 20, 50, 70), Window(15, 20, 60, 80)
    boxes = pd.DataFrame(
        {
            "image_id": ids,
            **found._asdict(),
            **{f"drawn_{name}": [edge, edge, np.nan] for name, edge in drawn._asdict().items()},
            "iou": [0.6, 0.6, np.nan],
            "confidence": [0.9, 0.9, 0.2],
        }
    )
    figure = plot_lesion_boxes(raw, boxes, manifest, split, SETTINGS, privacy)
    assert isinstance(figure, Figure)
    shown = [axis for axis in figure.axes if axis.images]
    assert all(axis.get_title().startswith("a\n") for axis in shown), "of test images with a lesion"
    expected = cover_text(picture) if privacy.cover_text else picture
    assert (expected != picture).any() == privacy.cover_text
    as_seen = show_whole(expected, SETTINGS.image_size)[0]
    assert all((pixels == as_seen[..., None]).all() for pixels in list_pictures(figure))
    window = list_whole_window(height, width, keep_aspect=True)
    framed = [place_in_window(box, window, SETTINGS.image_size) for box in (drawn, found)]
    patches = [
        (*patch.get_xy(), patch.get_width(), patch.get_height()) for patch in shown[0].patches
    ]
    assert patches == [(box.left, box.top, box.width, box.height) for box in framed]


def test_no_box_is_no_picture() -> None:
    boxes = pd.DataFrame(columns=["image_id", "iou"])
    images = pd.DataFrame(
        {"image_id": ["a"], "path": "a.png", "height": 1, "width": 1, "split": "test"}
    )
    nothing = plot_lesion_boxes({}, boxes, images, images, SETTINGS, UNCOVERED)
    assert isinstance(nothing, NothingToShow)
