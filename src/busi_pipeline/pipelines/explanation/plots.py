"""Show Grad-CAM maps over the test images."""

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure

from busi_pipeline.caching.arrays import StoredArray
from busi_pipeline.config.schemas import ExperimentSettings, PrivacySettings
from busi_pipeline.imaging.text_cover import cover_text
from busi_pipeline.plotting.style import (
    ALARM,
    PAGE_WIDTH,
    SMALL_TEXT,
    new_picture_grid,
    show_picture,
)
from busi_pipeline.stats.classes import Classes
from busi_pipeline.stats.scoring import select_test

from .nodes import resize_map

_SHOWN = 24
_COLUMNS = 4
_OPACITY, _GREY = 0.55, 0.45


def plot_gradcam_gallery(
    gradcam: StoredArray,
    images: StoredArray,
    masks: StoredArray,
    predictions: pd.DataFrame,
    settings: ExperimentSettings,
    privacy: PrivacySettings,
    classes: Classes,
) -> Figure:
    """Show Grad-CAM over test images, the outline of the lesion in white.

    Positive images classified as a negative class come first, at most half of the pictures; the
    rest is a random sample of the other test images. The title counts those that are flagged for
    review all the same.
    """
    test = select_test(predictions)
    is_first = classes.is_positive(test["label"]) & ~classes.is_positive(test["predicted"])
    first = test[is_first].head(_SHOWN // 2)
    rest = test[~is_first]
    rest = rest.sample(min(_SHOWN - len(first), len(rest)), random_state=0).sort_values("label")
    shown = pd.concat([first, rest])
    figure, axes = new_picture_grid(
        (-(-len(shown) // _COLUMNS), _COLUMNS),
        (PAGE_WIDTH / _COLUMNS, 3.2),
        f"{settings.title}: what spoke for the likeliest class (Grad-CAM), lesion in white; the "
        "pictures have the shape that the network sees. "
        + _describe_order(first, int(is_first.sum()), classes),
    )
    colours = _make_colours()
    for axis, row in zip(axes.flat, shown.to_dict("records"), strict=False):
        name = row["image_id"]
        pixels = np.asarray(images.values[images.find_rows([name])[0]])
        heat = resize_map(gradcam.values[gradcam.find_rows([name])[0]], len(pixels))
        as_class = "correctly" if row["correct"] else f"as {row['predicted']}"
        flag = "flagged for review" if row["flagged"] else "not flagged"
        if row["label"] in classes.positive and not row["flagged"]:
            flag += ": missed"
        show_picture(
            axis,
            cover_text(pixels) if privacy.cover_text else pixels,
            f"{name.rsplit('/', 1)[-1]}\n{row['label']}, classified {as_class}\n{flag}",
            "black" if row["correct"] else ALARM,
        )
        axis.imshow(heat / max(heat.max(), 1e-12), cmap=colours, vmin=0, vmax=1)
        lesion = np.asarray(masks.values[masks.find_rows([name])[0]])
        if lesion.any():
            axis.contour(lesion, [0.5], colors="white", linewidths=1)
    bar = figure.colorbar(
        ScalarMappable(Normalize(0, 1), colours),
        ax=axes,
        location="bottom",
        fraction=0.02,
        aspect=50,
        pad=0.01,
    )
    bar.set_ticks([0, 0.5, 1], labels=["nothing", "half", "most"])
    bar.ax.set_facecolor((_GREY,) * 3)
    bar.set_label(
        "how much a place spoke for the likeliest class, as a share of the highest value in the "
        "same picture",
        fontsize=SMALL_TEXT,
    )
    return figure


def _make_colours() -> ListedColormap:
    """Return colours that let a picture through where the map is low."""
    shares = np.linspace(0, 1, 256)
    colours = colormaps["inferno"](shares)
    colours[:, 3] = _OPACITY * shares
    return ListedColormap(colours)


def _describe_order(first: pd.DataFrame, count: int, classes: Classes) -> str:
    kind = f"{classes.positive_name} classified as {classes.negative_name}"
    if not count:
        return f"No test image is {kind}; a random sample."
    of_them = f"{len(first)} of the {count}" if len(first) < count else f"{count}"
    flagged = int(first["flagged"].sum())
    return (
        f"First {of_them} {kind}, {flagged} of which are flagged for review all the same; "
        "then a random sample of the others."
    )
