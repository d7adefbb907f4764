"""Bring images and masks to the network's size, and decide how each training image is augmented."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from busi_pipeline.caching.arrays import WINDOW, StoredArray
from busi_pipeline.caching.cache import Cache
from busi_pipeline.caching.fingerprints import Step, hash_values
from busi_pipeline.config.schemas import (
    AugmentationSettings,
    ExperimentSettings,
    ModelSettings,
    PrivacySettings,
)
from busi_pipeline.errors import BadInputError
from busi_pipeline.imaging.affine import (
    AS_SCANNED,
    SCANNER_SEED,
    AffineTransform,
    list_evaluated,
    list_transforms,
)
from busi_pipeline.imaging.augmentation import augment_image
from busi_pipeline.imaging.crops import Window
from busi_pipeline.imaging.decoding import UInt8Array, UnusableImageError, decode_image
from busi_pipeline.imaging.masks import draw_lesion, hash_masks, list_drawn_lesions, load_mask
from busi_pipeline.imaging.network_input import show_input, show_lesion_mask
from busi_pipeline.imaging.resizing import resize_image
from busi_pipeline.imaging.text_cover import COVER_VERSION, cover_text
from busi_pipeline.plotting.style import new_picture_grid, show_picture
from busi_pipeline.progress import track

PLAN_COLUMNS = ["image_id", "augmentation", WINDOW, *AffineTransform._fields, SCANNER_SEED]
RawImages = Mapping[str, Callable[[], bytes]]

IMAGES = Step(
    "images",
    1,
    (
        "busi_pipeline.imaging.decoding:decode_image",
        "busi_pipeline.imaging.resizing:resize_image",
    ),
    ("numpy", "pillow"),
)
INPUT_IMAGES = Step(
    "input_images",
    1,
    (
        "busi_pipeline.imaging.decoding:decode_image",
        "busi_pipeline.imaging.network_input:show_input",
    ),
    ("numpy", "opencv-python-headless", "pillow"),
)
INPUT_MASKS = Step(
    "input_masks",
    1,
    (
        "busi_pipeline.imaging.masks:draw_lesion",
        "busi_pipeline.imaging.network_input:show_lesion_mask",
    ),
    ("numpy", "opencv-python-headless", "pillow"),
)
MASKS = Step("masks", 2, ("busi_pipeline.imaging.masks:load_mask",), ("pillow",))


def prepare_images(
    raw_images: RawImages, manifest: pd.DataFrame, cache: Cache, size: int
) -> StoredArray:
    """Decode and resize every image of the manifest: uint8 (n, size, size, 3), RGB, 0-255.

    Raises BadInputError where a file is no longer the one that ingestion read.
    """

    def compute(positions: np.ndarray) -> Iterator[UInt8Array]:
        for position in track(
            positions.tolist(), f"images to {size} x {size}", "image", total=len(positions)
        ):
            yield resize_image(_decode_again(raw_images, manifest.iloc[position]), size)[None]

    return cache.compute_array(
        IMAGES.fingerprint(size=size),
        manifest[["image_id"]],
        manifest["byte_sha256"].tolist(),
        "uint8",
        compute,
    )


def prepare_masks(
    raw_images: RawImages, manifest: pd.DataFrame, cache: Cache, size: int
) -> StoredArray:
    """Bring the masks to the network's size: uint8 (n, size, size), 1 inside a lesion.

    Several masks of one image are joined; an image that has none is 0 throughout.

    Raises BadInputError where a mask is no picture that can be read.
    """
    masks = [json.loads(paths) for paths in manifest["mask_paths"]]

    def compute(positions: np.ndarray) -> Iterator[np.ndarray]:
        for position in positions:
            try:
                yield load_mask(raw_images, masks[position], size)[None]
            except UnusableImageError as error:
                names = ", ".join(masks[position])
                raise BadInputError(
                    f"the mask of {manifest['image_id'].iloc[position]} ({names}) cannot be read: "
                    f"{error}. Mend it or take it away, and rerun `kedro run --pipeline=ingestion`."
                ) from None

    return cache.compute_array(
        MASKS.fingerprint(size=size),
        manifest[["image_id"]],
        [hash_masks(raw_images, paths) for paths in masks],
        "uint8",
        compute,
    )


def prepare_input_images(
    raw_images: RawImages,
    manifest: pd.DataFrame,
    lesion_boxes: pd.DataFrame | None,
    settings: ModelSettings,
    cache: Cache,
) -> StoredArray:
    """Return what an experiment's network sees of every image: uint8 (n, height, width, 3).

    Args:
        raw_images: {path: function that reads the bytes}.
        manifest: one row an image.
        lesion_boxes: where the lesion is, `left`, `top`, `right`, `bottom` by `image_id`, in pixels
            of the image; None where the experiment sees the whole image alone.
        settings: `input`, `image_size`.
        cache: of images that were prepared before.

    Raises BadInputError where a file is no longer the one that ingestion read.
    """
    boxes = _find_boxes(manifest, lesion_boxes)

    def compute(rows: np.ndarray) -> Iterator[UInt8Array]:
        for row in track(rows.tolist(), f"images for {settings.title}", "image", total=len(rows)):
            window, position = divmod(row, len(manifest))
            pixels = _decode_again(raw_images, manifest.iloc[position])
            yield show_input(pixels, boxes[position], settings.input, settings.image_size, window)[
                None
            ]

    described = [
        [content, box] for content, box in zip(manifest["byte_sha256"], boxes, strict=True)
    ]
    return cache.compute_array(
        INPUT_IMAGES.fingerprint(**_identify_input(settings)),
        *_list_windows(manifest, described, settings),
        "uint8",
        compute,
    )


def _list_windows(
    manifest: pd.DataFrame, described: Sequence[list[Any]], settings: ModelSettings
) -> tuple[pd.DataFrame, list[str]]:
    """Return index and keys of an array with all images at the first window, then at the next."""
    count = len(settings.input.windows)
    index = manifest[["image_id"]]
    if count == 1:
        return index, [hash_values(own) for own in described]
    return (
        pd.concat([index.assign(**{WINDOW: window}) for window in range(count)], ignore_index=True),
        [hash_values([*own, window]) for window in range(count) for own in described],
    )


def prepare_reader_images(
    raw_images: RawImages,
    manifest: pd.DataFrame,
    lesion_boxes: pd.DataFrame,
    settings: ModelSettings,
    cache: Cache,
) -> StoredArray:
    """Return what the network sees at the boxes that readers drew; see `prepare_input_images`.

    An image of which nobody drew the lesion is shown at the box that was found.
    """
    boxes = lesion_boxes.copy()
    for edge in Window._fields:
        boxes[edge] = boxes[f"drawn_{edge}"].fillna(boxes[edge])
    return prepare_input_images(raw_images, manifest, boxes, settings, cache)


def prepare_input_masks(
    raw_images: RawImages,
    manifest: pd.DataFrame,
    lesion_boxes: pd.DataFrame | None,
    settings: ModelSettings,
    cache: Cache,
) -> StoredArray:
    """Return the lesions as the network sees their images: uint8 (n, height, width), 1 inside.

    An image of which nobody drew the lesion is 0 throughout; see `prepare_input_images`.
    """
    boxes = _find_boxes(manifest, lesion_boxes)
    lesions = list_drawn_lesions(manifest)

    def compute(rows: np.ndarray) -> Iterator[np.ndarray]:
        for row in rows.tolist():
            window, position = divmod(row, len(manifest))
            pixels = _decode_again(raw_images, manifest.iloc[position])
            shape = pixels.shape[:2]
            lesion = draw_lesion(raw_images, lesions[position], shape)
            yield show_lesion_mask(
                np.zeros(shape, np.uint8) if lesion is None else lesion,
                pixels,
                boxes[position],
                settings.input,
                settings.image_size,
                window,
            )[None]

    described = [
        [content, box, hash_masks(raw_images, lesion.masks), lesion.box]
        for content, box, lesion in zip(manifest["byte_sha256"], boxes, lesions, strict=True)
    ]
    return cache.compute_array(
        INPUT_MASKS.fingerprint(**_identify_input(settings)),
        *_list_windows(manifest, described, settings),
        "uint8",
        compute,
    )


def _identify_input(settings: ModelSettings) -> dict[str, Any]:
    shape = settings.input.model_dump(mode="json")
    # The version of the cover counts where there is one: the others' images need not be made anew.
    cover = {"cover": COVER_VERSION} if settings.input.remove_text else {}
    return {"input": shape, "size": settings.image_size, **cover}


def _find_boxes(manifest: pd.DataFrame, lesion_boxes: pd.DataFrame | None) -> list[Window | None]:
    """Return the box of each image; raises BadInputError where one is missing."""
    if lesion_boxes is None:
        return [None] * len(manifest)
    table = lesion_boxes.set_index("image_id")[list(Window._fields)]
    missing = manifest.loc[~manifest["image_id"].isin(table.index), "image_id"]
    if len(missing):
        raise BadInputError(
            f"{len(missing)} images have no box of a lesion ({missing.iloc[0]!r}, for one): run "
            "the whole pipeline again, without --from-nodes."
        )
    return [Window(*map(float, row)) for row in table.loc[manifest["image_id"]].to_numpy()]


def _decode_again(raw_images: RawImages, image: "pd.Series[Any]") -> UInt8Array:
    """Decode a file; raises BadInputError where it is no longer the one that ingestion read."""
    content = raw_images[image["path"]]()
    if hashlib.sha256(content).hexdigest() != image["byte_sha256"]:
        raise BadInputError(
            f"{image['path']} changed since ingestion: rerun `kedro run --pipeline=ingestion`."
        )
    return decode_image(content).pixels


def plan_augmentation(split_manifest: pd.DataFrame, settings: ExperimentSettings) -> pd.DataFrame:
    """Draw `augmentation.per_image` transforms for every training image, beside the originals.

    Returns PLAN_COLUMNS, one row an augmented image: of training images 1, 2, ..., and of training
    and validation images those of `plan_originals`. Test images are not in it. What is drawn for an
    image depends on the seed and its id alone, so it stays the same when the split or the other
    images change.
    """
    training, learning = (
        split_manifest[split_manifest["split"].isin(parts)]
        for parts in (["train"], ["train", "validation"])
    )
    augmented = _plan_augmented(training["image_id"], settings)
    return pd.concat([augmented, plan_originals(learning, settings)], ignore_index=True)


def plan_all_images(manifest: pd.DataFrame, settings: ExperimentSettings) -> pd.DataFrame:
    """Plan for images each of which is learned from in one fold and tested in another.

    Returns PLAN_COLUMNS: what `plan_augmentation` would, were every image in training.
    """
    return plan_augmentation(manifest.assign(split="train"), settings)


def plan_fold(split_manifest: pd.DataFrame, settings: ExperimentSettings) -> pd.DataFrame:
    """Plan for a fold with images of its own: what `plan_augmentation` does, and the test images as
    they are. Returns PLAN_COLUMNS."""
    test = split_manifest[split_manifest["split"] == "test"]
    return pd.concat(
        [plan_augmentation(split_manifest, settings), plan_originals(test, settings)],
        ignore_index=True,
    )


def plan_originals(manifest: pd.DataFrame, settings: ExperimentSettings) -> pd.DataFrame:
    """Plan the images that are not augmented, at every window: as they are and, where the model
    averages over it, flipped. Returns PLAN_COLUMNS."""
    image_ids = manifest["image_id"]
    transforms = [AffineTransform()]
    if settings.training.tta_horizontal_flip:
        transforms.append(AffineTransform(flip_horizontal=True))
    plans = [
        _plan_one(image_ids, number, window, transform)
        for window in range(len(settings.input.windows))
        for number, transform in zip(list_evaluated(window), transforms, strict=False)
    ]
    return pd.concat(plans, ignore_index=True)


def _plan_one(
    image_ids: pd.Series, number: int, window: int, transform: AffineTransform
) -> pd.DataFrame:
    columns = {"image_id": image_ids, "augmentation": number, **transform._asdict()}
    columns |= {WINDOW: window, SCANNER_SEED: AS_SCANNED}
    return pd.DataFrame(columns)[PLAN_COLUMNS]


def _plan_augmented(image_ids: pd.Series, settings: ExperimentSettings) -> pd.DataFrame:
    limits = settings.augmentation
    per_image = limits.per_image
    numbers = np.tile(np.arange(1, per_image + 1), len(image_ids))
    drawn = [_draw_transforms(image_id, limits) for image_id in image_ids]
    columns = {name: np.concatenate([plan[name] for plan in drawn]) for name in drawn[0]}
    return pd.DataFrame(
        {
            "image_id": np.repeat(image_ids.to_numpy(), per_image),
            "augmentation": numbers,
            WINDOW: (numbers - 1) % len(settings.input.windows),
            **columns,
        }
    )


def _draw_transforms(image_id: str, limits: AugmentationSettings) -> dict[str, np.ndarray]:
    digest = hashlib.sha256(image_id.encode()).digest()
    rng = np.random.default_rng([limits.seed, *np.frombuffer(digest, dtype=np.uint32).tolist()])
    # One after the other, so that more of them leave the first ones and their features valid.
    uniform = rng.uniform(-1, 1, (limits.per_image, 8)).T
    drawn = dict(zip(AffineTransform._fields, uniform, strict=True))
    return {
        "rotation_degrees": drawn["rotation_degrees"] * limits.rotation_degrees,
        "zoom": 1 + drawn["zoom"] * limits.zoom,
        "flip_horizontal": (drawn["flip_horizontal"] < 0) & limits.horizontal_flip,
        "flip_vertical": (drawn["flip_vertical"] < 0) & limits.vertical_flip,
        "shift_x": drawn["shift_x"] * limits.shift,
        "shift_y": drawn["shift_y"] * limits.shift,
        "shear_degrees": drawn["shear_degrees"] * limits.shear_degrees,
        "brightness": 1 + drawn["brightness"] * limits.brightness,
        SCANNER_SEED: _draw_scanner_seeds(rng, limits),
    }


def _draw_scanner_seeds(rng: np.random.Generator, limits: AugmentationSettings) -> np.ndarray:
    if not limits.scanner_variation:
        return np.full(limits.per_image, AS_SCANNED)
    return rng.integers(1, 2**31, limits.per_image)


def plot_augmentation(
    images: StoredArray,
    split_manifest: pd.DataFrame,
    augmentation_plan: pd.DataFrame,
    settings: ExperimentSettings,
    privacy: PrivacySettings,
) -> Figure:
    """Show, for two training images a class, the original and its first augmented images."""
    per_class, shown_each = 2, min(5, settings.augmentation.per_image)
    training = split_manifest[split_manifest["split"] == "train"]
    shown = training.groupby("label", sort=True).head(per_class).sort_values("label", kind="stable")
    figure, axes = new_picture_grid(
        (len(shown), shown_each + 1),
        (1.9, 2.1),
        f"{settings.title}: training images and how they are augmented, "
        f"{settings.image_size} x {settings.image_size} pixels",
    )
    for row, (image_id, label) in enumerate(zip(shown["image_id"], shown["label"], strict=True)):
        # Before an image is turned: text is found upright.
        cover = cover_text if privacy.cover_text else np.asarray
        windows = [
            cover(np.asarray(images.values[images.find_rows([image_id], window)[0]]))
            for window in range(images.windows)
        ]
        plan = augmentation_plan[augmentation_plan["image_id"] == image_id].head(shown_each)
        show_picture(axes[row, 0], windows[0], f"original, {label}")
        moves = zip(list_transforms(plan), plan[WINDOW], plan[SCANNER_SEED], strict=True)
        for axis, (transform, window, scanner) in zip(axes[row, 1:], moves, strict=False):
            flipped = transform.flip_horizontal or transform.flip_vertical
            show_picture(
                axis,
                augment_image(windows[window], transform, scanner),
                f"{round(transform.rotation_degrees) + 0:+d}°, zoom {transform.zoom:.2f}"
                + (", flipped" if flipped else ""),
            )
    return figure
