"""Trace what each test image's class was seen by, show it, and score it against the masks."""

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from busi_pipeline.arrays import ArrayStream, StoredArray
from busi_pipeline.figures import PALETTE, new_picture_grid, show_picture
from busi_pipeline.fingerprints import describe_code, hash_values
from busi_pipeline.intervals import add_intervals
from busi_pipeline.judging import CANCER, select_test, tell_share
from busi_pipeline.labels import find_positions
from busi_pipeline.masks import hash_masks, list_masks, load_mask
from busi_pipeline.progress import track

from .heat import trace_heat

if TYPE_CHECKING:
    import keras

logger = logging.getLogger(__name__)

_SCORED = [
    "image_id",
    "group",
    "label",
    "predicted",
    "pointing_hit",
    "heat_inside",
    "lesion_area",
    "pointing_hit_of_others",
    "heat_inside_of_others",
]
_AT_ONCE = 16
_SHOWN = 24
_COLUMNS = 6


class Explanation(NamedTuple):
    """What is said about where a network looks.

    Attributes:
        explanation_table: one row a test image that has a lesion, see `score_heat`.
        explanation: {`explanation`: shares with intervals}, for MLflow's metrics.
    """

    explanation_table: pd.DataFrame
    explanation: dict[str, Any]


def prepare_masks(
    raw_images: Mapping[str, Callable[[], bytes]], manifest: pd.DataFrame, size: int
) -> ArrayStream:
    """Bring the masks to the network's size: uint8 (n, size, size), 1 inside a lesion.

    Several masks of one image are joined; an image that has none is 0 throughout.
    """
    of_image = list_masks(raw_images)
    masks = [of_image.get(image_id, []) for image_id in manifest["image_id"]]

    def compute(positions: np.ndarray) -> Iterator[np.ndarray]:
        for position in positions:
            yield load_mask(raw_images, masks[position], size)[None]

    return ArrayStream(
        index=manifest[["image_id"]],
        keys=[hash_masks(raw_images, paths) for paths in masks],
        recipe={"masks": size} | describe_code("busi_pipeline.masks", libraries=("pillow",)),
        dtype="uint8",
        compute=compute,
    )


def trace_predictions(
    network: "keras.Model",
    images: StoredArray,
    predictions: pd.DataFrame,
    settings: Mapping[str, Any],
    classes: list[str],
) -> ArrayStream:
    """Trace the predicted class of every test image: float32 (n, h, w), see `heat.trace_heat`."""
    test = select_test(predictions).reset_index(drop=True)
    of_image = images.find_rows(test["image_id"])
    predicted = find_positions(test["predicted"], classes)

    def compute(positions: np.ndarray) -> Iterator[np.ndarray]:
        starts = range(0, len(positions), _AT_ONCE)
        for start in track(starts, f"heat of {settings['title']}", "batch"):
            chosen = positions[start : start + _AT_ONCE]
            yield trace_heat(network, images.values[of_image[chosen]], predicted[chosen])

    return ArrayStream(
        index=test[["image_id"]],
        keys=[
            hash_values([images.keys[row], int(position)])
            for row, position in zip(of_image, predicted, strict=True)
        ],
        # The network's name tells of which training it is.
        recipe={"network": network.name, "images": images.recipe}
        | describe_code(trace_heat.__module__, libraries=("keras", "numpy", "tensorflow")),
        dtype="float32",
        compute=compute,
    )


def score_heat(
    heat: StoredArray,
    masks: StoredArray,
    predictions: pd.DataFrame,
    settings: Mapping[str, Any],
    judging: Mapping[str, Any],
) -> Explanation:
    """Score the heat against the lesions of the test images that have one.

    The table's columns: `image_id`, `group`, `label`, `predicted`, and
        pointing_hit: whether the hottest point lies in the lesion (Zhang et al. 2018, "Top-down
            neural attention by excitation backprop").
        heat_inside: share of the heat in the lesion; 0 where there is no heat at all.
        lesion_area: share of the image that is lesion: what a point, or heat, spread at random
            would have inside.
        pointing_hit_of_others, heat_inside_of_others: the same for the heat of the other test
            images: what looking where lesions mostly are would have inside.
    """
    test = select_test(predictions)
    everything = masks.values[masks.find_rows(test["image_id"])].astype(bool)
    has_lesion = everything.any(axis=(1, 2))
    judged, lesions = test.iloc[np.flatnonzero(has_lesion)], everything[has_lesion]
    if not len(judged):
        logger.warning("no test image has a lesion mask: where the network looks is not scored")
        return Explanation(pd.DataFrame(columns=_SCORED), {"explanation": {"images": 0}})
    size = lesions.shape[1]
    maps = np.stack([enlarge(heat.values[row], size) for row in heat.find_rows(judged["image_id"])])
    peaks = maps.reshape(len(maps), -1).argmax(axis=1)
    shares = maps / np.maximum(maps.sum(axis=(1, 2), keepdims=True), 1e-12)
    # [i, j]: the heat of image j on the lesion of image i.
    flat = lesions.reshape(len(lesions), -1)
    hits = flat[:, peaks] & (maps.max(axis=(1, 2)) > 0)
    inside = flat.astype(np.float32) @ shares.reshape(len(shares), -1).T
    others = ~np.eye(len(judged), dtype=bool)
    table = judged[["image_id", "group", "label", "predicted"]].reset_index(drop=True)
    table["pointing_hit"] = np.diag(hits).astype(float)
    table["heat_inside"] = np.diag(inside).astype(float)
    table["lesion_area"] = flat.mean(axis=1)
    table["pointing_hit_of_others"] = np.average(hits, axis=1, weights=others)
    table["heat_inside_of_others"] = np.average(inside, axis=1, weights=others)
    measured = _SCORED[4:]

    def score(rows: np.ndarray) -> dict[str, float]:
        return {name: float(table[name].to_numpy()[rows].mean()) for name in measured}

    scores = add_intervals(
        score(np.arange(len(table))),
        score,
        table["group"].tolist(),
        judging["draws"],
        judging["seed"],
    )
    logger.info(
        "%s, %d test images with a lesion: hottest point inside %s, share of heat inside %s; at "
        "random %s",
        settings["title"],
        len(table),
        tell_share(scores, "pointing_hit"),
        tell_share(scores, "heat_inside"),
        tell_share(scores, "lesion_area"),
    )
    return Explanation(table[_SCORED], {"explanation": {"images": len(table), **scores}})


def draw_heat_gallery(
    heat: StoredArray,
    images: StoredArray,
    masks: StoredArray,
    predictions: pd.DataFrame,
    settings: Mapping[str, Any],
) -> Figure:
    """Show the heat over test images, the outline of the lesion in white; missed cancers first.

    The rest are drawn at random, in the shares of the classes.
    """
    test = select_test(predictions)
    missed = test[(test["label"] == CANCER) & ~test["correct"]].head(_SHOWN // 2)
    rest = test.drop(missed.index)
    rest = rest.sample(min(_SHOWN - len(missed), len(rest)), random_state=0).sort_values("label")
    shown = pd.concat([missed, rest])
    figure, axes = new_picture_grid(
        (-(-len(shown) // _COLUMNS), _COLUMNS),
        (2.3, 2.75),
        f"{settings['title']}: what spoke for the predicted class (Grad-CAM), lesion in white; "
        + (f"{len(missed)} missed cancers first, then " if len(missed) else "")
        + "test images at random",
    )
    for axis, row in zip(axes.flat, shown.to_dict("records"), strict=False):
        name = row["image_id"]
        pixels = np.asarray(images.values[images.find_rows([name])[0]])
        warmth = enlarge(heat.values[heat.find_rows([name])[0]], len(pixels))
        show_picture(
            axis,
            pixels,
            f"{name.rsplit('/', 1)[-1]}\npredicted {row['predicted']}",
            "black" if row["correct"] else PALETTE[1],
        )
        axis.imshow(warmth, cmap="inferno", alpha=0.55 * warmth / max(warmth.max(), 1e-12))
        lesion = np.asarray(masks.values[masks.find_rows([name])[0]])
        if lesion.any():
            axis.contour(lesion, [0.5], colors="white", linewidths=1)
    return figure


def enlarge(heat: np.ndarray, size: int) -> np.ndarray:
    """Return float32 (size, size): heat (h, w) brought to the size of the image, bilinear."""
    return np.asarray(
        Image.fromarray(heat.astype(np.float32)).resize((size, size), Image.Resampling.BILINEAR)
    )
