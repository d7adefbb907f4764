"""Bring images to the network's size and decide how each training image is moved."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from busi_pipeline.arrays import ArrayStream, StoredArray
from busi_pipeline.errors import BadInputError
from busi_pipeline.figures import new_picture_grid, show_picture
from busi_pipeline.fingerprints import describe_code
from busi_pipeline.images import UInt8Array, decode_image, resize_image
from busi_pipeline.movements import (
    MIRROR_VIEW,
    PLAIN_VIEW,
    Movement,
    list_movements,
    move_image,
)
from busi_pipeline.progress import track

PLAN_COLUMNS = ["image_id", "view", *Movement._fields]


def prepare_images(
    raw_images: Mapping[str, Callable[[], bytes]], manifest: pd.DataFrame, size: int
) -> ArrayStream:
    """Decode and resize every image of the manifest: uint8 (n, size, size, 3), RGB, 0-255.

    The array raises BadInputError, when it is computed, where a file is no longer the one ingestion
    saw.
    """

    def compute(positions: np.ndarray) -> Iterator[UInt8Array]:
        rows = manifest.iloc[positions]
        for path, expected in track(
            zip(rows["path"], rows["byte_sha256"], strict=True),
            f"images to {size} x {size}",
            "image",
            total=len(rows),
        ):
            content = raw_images[path]()
            if hashlib.sha256(content).hexdigest() != expected:
                raise BadInputError(
                    f"{path} changed since ingestion: rerun `kedro run --pipeline=ingestion`."
                )
            yield resize_image(decode_image(content).pixels, size)[None]

    return ArrayStream(
        index=manifest[["image_id"]],
        keys=manifest["byte_sha256"].tolist(),
        recipe={"size": size}
        | describe_code("busi_pipeline.images", libraries=("numpy", "pillow")),
        dtype="uint8",
        compute=compute,
    )


def plan_augmentation(split_manifest: pd.DataFrame, settings: Mapping[str, Any]) -> pd.DataFrame:
    """Draw `views` movements for every training image, beside the views that are not moved.

    Returns PLAN_COLUMNS, one row a view: of training images 1, 2, ..., and of training and
    validation images those of `plan_still_views`. Test images are not in it. What is drawn for an
    image depends on the seed and its id alone, so it stays the same when the split or the other
    images change.
    """
    training, learning = (
        split_manifest[split_manifest["split"].isin(parts)]
        for parts in (["train"], ["train", "validation"])
    )
    moved = _plan_moved(training["image_id"], settings["augmentation"])
    return pd.concat([moved, plan_still_views(learning, settings)], ignore_index=True)


def plan_all_views(manifest: pd.DataFrame, settings: Mapping[str, Any]) -> pd.DataFrame:
    """Plan for images each of which is to be learned from and judged, in one fold or another.

    Returns PLAN_COLUMNS: what `plan_augmentation` would, were every image in training.
    """
    return plan_augmentation(manifest.assign(split="train"), settings)


def plan_still_views(manifest: pd.DataFrame, settings: Mapping[str, Any]) -> pd.DataFrame:
    """Plan the views by which an image is judged: PLAIN_VIEW and, where the model averages over it,
    MIRROR_VIEW. Returns PLAN_COLUMNS."""
    image_ids = manifest["image_id"]
    plans = [_plan_still(image_ids, PLAIN_VIEW, Movement())]
    if settings["training"]["average_mirror"]:
        plans.append(_plan_still(image_ids, MIRROR_VIEW, Movement(flip_horizontal=True)))
    return pd.concat(plans, ignore_index=True)


def _plan_still(image_ids: pd.Series, view: int, movement: Movement) -> pd.DataFrame:
    return pd.DataFrame({"image_id": image_ids, "view": view, **movement._asdict()})[PLAN_COLUMNS]


def _plan_moved(image_ids: pd.Series, limits: Mapping[str, Any]) -> pd.DataFrame:
    views = limits["views"]
    drawn = [_draw_movements(image_id, limits) for image_id in image_ids]
    columns = {name: np.concatenate([plan[name] for plan in drawn]) for name in Movement._fields}
    return pd.DataFrame(
        {
            "image_id": np.repeat(image_ids.to_numpy(), views),
            "view": np.tile(np.arange(1, views + 1), len(image_ids)),
            **columns,
        }
    )


def _draw_movements(image_id: str, limits: Mapping[str, Any]) -> dict[str, np.ndarray]:
    digest = hashlib.sha256(image_id.encode()).digest()
    rng = np.random.default_rng([limits["seed"], *np.frombuffer(digest, dtype=np.uint32).tolist()])
    # View by view, so that whoever asks for more of them keeps the first ones and their features.
    drawn = dict(zip(Movement._fields, rng.uniform(-1, 1, (limits["views"], 8)).T, strict=True))
    return {
        "rotation_degrees": drawn["rotation_degrees"] * limits["rotation_degrees"],
        "zoom": 1 + drawn["zoom"] * limits["zoom"],
        "flip_horizontal": (drawn["flip_horizontal"] < 0) & limits["horizontal_flip"],
        "flip_vertical": (drawn["flip_vertical"] < 0) & limits["vertical_flip"],
        "shift_x": drawn["shift_x"] * limits["shift"],
        "shift_y": drawn["shift_y"] * limits["shift"],
        "shear_degrees": drawn["shear_degrees"] * limits["shear_degrees"],
        "brightness": 1 + drawn["brightness"] * limits["brightness"],
    }


def draw_augmentation_sheet(
    images: StoredArray,
    split_manifest: pd.DataFrame,
    augmentation_plan: pd.DataFrame,
    settings: Mapping[str, Any],
) -> Figure:
    """Show, for two training images a class, the original and its first augmented views."""
    per_class, views = 2, min(5, settings["augmentation"]["views"])
    training = split_manifest[split_manifest["split"] == "train"]
    shown = training.groupby("label", sort=True).head(per_class).sort_values("label", kind="stable")
    figure, axes = new_picture_grid(
        (len(shown), views + 1),
        (1.9, 2.1),
        f"{settings['title']}: training images and their augmented views, "
        f"{settings['image_size']} x {settings['image_size']} pixels",
    )
    for row, (image_id, label) in enumerate(zip(shown["image_id"], shown["label"], strict=True)):
        pixels = np.asarray(images.values[images.find_rows([image_id])[0]])
        movements = augmentation_plan[augmentation_plan["image_id"] == image_id].head(views)
        show_picture(axes[row, 0], pixels, f"original, {label}")
        for axis, movement in zip(axes[row, 1:], list_movements(movements), strict=False):
            mirrored = movement.flip_horizontal or movement.flip_vertical
            show_picture(
                axis,
                move_image(pixels, movement),
                f"{round(movement.rotation_degrees) + 0:+d}°, zoom {movement.zoom:.2f}"
                + (", mirrored" if mirrored else ""),
            )
    return figure
