"""Found lesions as a person would check them."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from busi_pipeline.config.schemas import LocalizationSettings, PrivacySettings
from busi_pipeline.imaging.crops import Window, list_whole_window, place_in_window, show_whole
from busi_pipeline.imaging.decoding import decode_image
from busi_pipeline.imaging.text_cover import cover_text
from busi_pipeline.plotting.style import (
    PAGE_WIDTH,
    PALETTE,
    NothingToShow,
    new_picture_grid,
    show_picture,
)

_SHOWN = 6


def plot_lesion_boxes(
    raw_images: Mapping[str, Callable[[], bytes]],
    lesion_boxes: pd.DataFrame,
    manifest: pd.DataFrame,
    split_manifest: pd.DataFrame,
    localization: LocalizationSettings,
    privacy: PrivacySettings,
) -> Figure | NothingToShow:
    """Show test images as the localizer sees them, with the found and the drawn box.

    First row: steps of the ranking by overlap, from the worst to the best. Second row: the worst.
    """
    test = split_manifest.loc[split_manifest["split"] == "test", "image_id"]
    images = manifest[["image_id", "path", "height", "width"]]
    boxes = lesion_boxes[lesion_boxes["image_id"].isin(test)].merge(images, on="image_id")
    if boxes.empty:
        return NothingToShow("No lesion was looked for in any test image.")
    drawn = boxes[boxes["iou"].notna()].sort_values("iou", kind="stable")
    steps = np.unique(np.linspace(0, max(0, len(drawn) - 1), _SHOWN).round().astype(int))
    rows = [drawn.iloc[steps], drawn.head(_SHOWN)] if len(drawn) else [boxes.head(_SHOWN)]
    figure, axes = new_picture_grid(
        (len(rows), _SHOWN),
        (PAGE_WIDTH / _SHOWN, 2.5),
        "Lesions of test images, found (orange) and drawn by readers (blue)"
        + (": first row, from the worst to the best; second row, the worst" if len(drawn) else ""),
    )
    for line, part in zip(axes, rows, strict=True):
        for axis, box in zip(line, part.to_dict("records"), strict=False):
            pixels = decode_image(raw_images[box["path"]]()).pixels
            if privacy.cover_text:
                pixels = cover_text(pixels)  # as it came: small letters are hard to find
            shown, _ = show_whole(pixels, localization.image_size)
            caption = f"{box['image_id'].rsplit('/', 1)[-1]}\nconfidence {box['confidence']:.2f}"
            if not pd.isna(box["iou"]):
                caption += f", IoU {box['iou']:.2f}"
            show_picture(axis, np.repeat(shown[..., None], 3, axis=2), caption)
            for prefix, colour in (("drawn_", PALETTE[0]), ("", PALETTE[1])):
                _frame(axis, box, prefix, colour, localization.image_size)
    return figure


def _frame(axis: Axes, image: Mapping[Any, Any], prefix: str, colour: str, size: int) -> None:
    edges = [image[f"{prefix}{name}"] for name in Window._fields]
    if pd.isna(edges).any():
        return
    window = list_whole_window(image["height"], image["width"], keep_aspect=True)
    box = place_in_window(Window(*edges), window, size)
    axis.add_patch(
        Rectangle((box.left, box.top), box.width, box.height, fill=False, color=colour, linewidth=2)
    )
