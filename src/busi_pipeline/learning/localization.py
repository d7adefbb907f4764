"""Learn from masks where lesions are; find them in images that were not learned from.

Keras is imported inside the functions: building the pipelines must not wait for TensorFlow.
"""

import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from busi_pipeline.caching.arrays import StoredArray
from busi_pipeline.caching.cache import TABLE, Cache, Codec
from busi_pipeline.caching.fingerprints import Step, hash_values
from busi_pipeline.config.schemas import LocalizationSettings
from busi_pipeline.errors import BadInputError
from busi_pipeline.imaging.affine import FLIPPED, ORIGINAL
from busi_pipeline.imaging.crops import (
    Window,
    cut_window,
    find_lesion_box,
    list_whole_window,
    place_in_image,
    show_whole,
    stretch_intensity,
    to_grey,
)
from busi_pipeline.imaging.decoding import decode_image
from busi_pipeline.imaging.masks import draw_lesion, hash_masks, list_drawn_lesions
from busi_pipeline.imaging.scanner_variation import show_as_scanned_elsewhere
from busi_pipeline.learning.folds import assign_groups
from busi_pipeline.learning.training_data import find_evaluation_rows
from busi_pipeline.models.backbones import get_backbone
from busi_pipeline.models.localizer import (
    STRIDE,
    FoundLesion,
    average_flipped,
    build_decoder,
    build_pyramid,
    find_lesion,
    join_localizer,
    measure_loss,
)
from busi_pipeline.models.seeding import seed_thread
from busi_pipeline.models.weights import PretrainedWeights
from busi_pipeline.progress import track

if TYPE_CHECKING:
    import keras

logger = logging.getLogger(__name__)
RawImages = Mapping[str, Callable[[], bytes]]

# What the second channel of a view holds where nobody said whether there is a lesion.
UNKNOWN = 127
_DRAWN = 255
_AT_ONCE = 16
BOX_COLUMNS = [
    "image_id",
    *Window._fields,
    "confidence",
    "source",
    *(f"drawn_{name}" for name in Window._fields),
    "is_drawn",
    "iou",
    "centre_hit",
    "dice",
]
# Where a box comes from.
OUT_OF_FOLD, UNSEEN = "out of fold", "not learned from"

VIEWS = Step(
    "localizer_views",
    1,
    ("busi_pipeline.learning.localization:_draw_views",),
    ("numpy", "opencv-python-headless", "pillow"),
)
PYRAMID = Step(
    "localizer_features",
    1,
    (
        "busi_pipeline.models.localizer:build_pyramid",
        "busi_pipeline.learning.extraction:compute_features",
    ),
    ("keras", "numpy", "tensorflow"),
)
DECODER = Step(
    "localizer",
    1,
    ("busi_pipeline.learning.localization:_fit_decoder",),
    ("keras", "numpy", "tensorflow"),
)
FOUND = Step(
    "located_lesions",
    2,
    (
        "busi_pipeline.learning.localization:list_boxes",
        "busi_pipeline.models.localizer:find_lesion",
        "busi_pipeline.models.localizer:join_localizer",
    ),
    ("keras", "numpy", "opencv-python-headless", "tensorflow"),
)
_WEIGHTS: Codec[list[np.ndarray]] = Codec(
    lambda weights, folder: np.savez(folder / "weights.npz", *weights),
    lambda folder: _read_weights(folder / "weights.npz"),
)


def _read_weights(path: Path) -> list[np.ndarray]:
    with np.load(path) as stored:
        return [stored[f"arr_{number}"] for number in range(len(stored.files))]


def prepare_views(
    raw_images: RawImages,
    manifest: pd.DataFrame,
    settings: LocalizationSettings,
    per_image: int,
    cache: Cache,
) -> StoredArray:
    """Return what a localizer sees of every image, and what readers drew: uint8 (n, size, size, 2).

    The index has `image_id` and `augmentation`: ORIGINAL, FLIPPED, and, of images with a mask or
    box, 1 to `per_image`, as other scanners might show them. The second channel is 255 inside a
    lesion, or UNKNOWN throughout.
    """
    lesions = list_drawn_lesions(manifest)
    rows = [
        (position, number)
        for position in range(len(manifest))
        for number in (ORIGINAL, FLIPPED, *range(1, per_image + 1))
        if number <= 0 or lesions[position].masks or lesions[position].box
    ]

    def compute(positions: np.ndarray) -> Iterator[np.ndarray]:
        of_image: dict[int, list[int]] = {}
        for row in positions.tolist():
            of_image.setdefault(rows[row][0], []).append(rows[row][1])
        images = track(of_image.items(), "views for the localizer", "image", total=len(of_image))
        for position, numbers in images:
            path = manifest["path"].iloc[position]
            pixels = decode_image(raw_images[path]()).pixels
            lesion = draw_lesion(raw_images, lesions[position], pixels.shape[:2])
            yield _draw_views(pixels, lesion, numbers, path, settings.image_size, settings.seed)

    described = [
        hash_values([byte_sha256, hash_masks(raw_images, lesion.masks), lesion.box])
        for byte_sha256, lesion in zip(manifest["byte_sha256"], lesions, strict=True)
    ]
    return cache.compute_array(
        VIEWS.fingerprint(size=settings.image_size, seed=settings.seed),
        pd.DataFrame(
            {
                "image_id": [manifest["image_id"].iloc[position] for position, _ in rows],
                "augmentation": [number for _, number in rows],
            }
        ),
        [
            hash_values([described[position], manifest["path"].iloc[position], number])
            for position, number in rows
        ],
        "uint8",
        compute,
    )


def _draw_views(
    pixels: np.ndarray,
    lesion: np.ndarray | None,
    numbers: Sequence[int],
    path: str,
    size: int,
    seed: int,
) -> np.ndarray:
    """Return uint8 (numbers, size, size, 2); what is drawn depends on seed, path and number."""
    grey = to_grey(pixels)
    whole, window = show_whole(pixels, size)
    stretched = stretch_intensity(grey, (slice(None), slice(None)))
    drawn = np.zeros_like(grey) if lesion is None else lesion * np.uint8(_DRAWN)
    views = np.empty((len(numbers), size, size, 2), dtype=np.uint8)
    digest = int(hash_values(path)[:16], 16)
    for view, number in zip(views, numbers, strict=True):
        if number > 0:
            rng = np.random.default_rng([seed, digest, number])
            shown, mask = show_as_scanned_elsewhere(stretched, drawn, size, rng)
        else:
            shown, mask = whole, cut_window(drawn, window, size)
            if number == FLIPPED:
                shown, mask = shown[:, ::-1], mask[:, ::-1]
        view[..., 0] = shown
        view[..., 1] = UNKNOWN if lesion is None else np.where(mask > _DRAWN // 2, _DRAWN, 0)
    return views


def extract_pyramid(
    views: StoredArray,
    backbone: str,
    settings: LocalizationSettings,
    weights: PretrainedWeights,
    cache: Cache,
) -> StoredArray:
    """Return the frozen features of every view, float16 (n, features); see build_pyramid."""
    preset = get_backbone(backbone)
    from busi_pipeline.learning.device import choose_batch_size, dtype_policy
    from busi_pipeline.learning.extraction import compute_features

    def compute(positions: np.ndarray) -> Iterator[np.ndarray]:
        with dtype_policy("float32"):
            seed_thread(settings.seed)
            model = build_pyramid(preset, settings.image_size, settings.channels, weights.argument)
        size = choose_batch_size("auto", model)
        starts = range(0, len(positions), size)
        yield from compute_features(
            model,
            (
                np.asarray(views.values[positions[start : start + size]][..., 0])
                for start in track(starts, "features for the localizer", "batch")
            ),
        )

    fingerprint = PYRAMID.fingerprint(
        backbone=preset.builder,
        layers=list(preset.pyramid or ()),
        image_size=settings.image_size,
        channels=settings.channels,
        weights_sha256=weights.tags["weights_sha256"],
        random_weights_seed=settings.seed if weights.argument is None else None,
    )
    return cache.compute_array(
        fingerprint, views.index, views.keys, "float16", compute, {"weights": dict(weights.tags)}
    )


class Localized(NamedTuple):
    """What a localizer found, and what it is made of.

    Attributes:
        boxes: see `list_boxes`.
        decoders: {backbone: weights of its decoders}; the maps of all are averaged.
    """

    boxes: pd.DataFrame
    decoders: dict[str, list[list[np.ndarray]]]


def locate_lesions(
    views: StoredArray,
    features: Mapping[str, StoredArray],
    images: pd.DataFrame,
    settings: LocalizationSettings,
    cache: Cache,
) -> Localized:
    """Learn where lesions are from some images; find them in all, never where they were learned.

    The images that are learned from are divided into folds, groups whole. Of each backbone, one
    decoder is fitted without each fold, and finds the lesions of that fold. Together, as the mean
    of their maps, they find those of the images that none has learned from.

    Args:
        views: of `prepare_views`.
        features: {backbone: what `extract_pyramid` returns}.
        images: `image_id`, `label`, `group`, `height`, `width`, and `is_learned`, whether an image
            is learned from.
        settings: folds, decoder and its training.
        cache: of decoders that were fitted before.

    Raises BadInputError where too few images that are learned from have a lesion.
    """
    places = views.index.groupby("image_id", sort=False).indices
    known = np.array(
        [_is_known(views, int(places[image_id][0])) for image_id in images["image_id"]]
    )
    is_learned = images["is_learned"].to_numpy(bool)
    fold_of = np.full(len(images), -1)
    learned = images[is_learned]
    lesions = sum(has for has, _ in known[is_learned & (known[:, 1] > 0)]) if len(known) else 0
    if learned["group"].nunique() < settings.folds or lesions < settings.folds:
        raise BadInputError(
            f"a localizer learns from masks or boxes, but only {int(lesions)} of "
            f"{is_learned.sum()} images that are learned from have a lesion drawn: at least "
            f"{settings.folds} in other groups (localization.folds) are needed. Add masks, or take "
            "experiments with input.view whole."
        )
    fold_of[is_learned] = assign_groups(learned[["label", "group"]], settings.folds, settings.seed)
    maps = np.zeros((len(images), *(2 * (settings.image_size // STRIDE,)), 2), np.float32)
    decoders: dict[str, list[list[np.ndarray]]] = {backbone: [] for backbone in features}
    for fold in range(settings.folds):
        taught = [
            places[image_id]
            for image_id in images["image_id"][is_learned & (fold_of != fold) & (known[:, 1] > 0)]
        ]
        rows = np.sort(np.concatenate(taught))
        for backbone, own in features.items():
            weights = _get_decoder(views, own, rows, fold, settings, cache)
            decoders[backbone].append(weights)
            decoder = load_decoder(settings, weights)
            for wanted, share in ((fold_of == fold, 1.0), (~is_learned, 1 / settings.folds)):
                if wanted.any():
                    ids = images.loc[wanted, "image_id"]
                    maps[wanted] += share / len(features) * _predict_maps(decoder, own, ids)
    return Localized(list_boxes(images, views, maps), decoders)


def _is_known(views: StoredArray, row: int) -> tuple[bool, bool]:
    """Whether a lesion is drawn in an image, and whether anyone said so."""
    drawn = np.asarray(views.values[row][..., 1])
    return bool((drawn == _DRAWN).any()), bool(drawn[0, 0] != UNKNOWN)


def _get_decoder(
    views: StoredArray,
    features: StoredArray,
    rows: np.ndarray,
    fold: int,
    settings: LocalizationSettings,
    cache: Cache,
) -> list[np.ndarray]:
    """Return the weights of a decoder fitted on these rows, from the cache where they are there."""
    fingerprint = DECODER.fingerprint(
        features=features.fingerprint.digest,
        rows=hash_values([features.keys[row] for row in rows]),
        fold=fold,
        settings=settings.model_dump(
            mode="json", include={"width", "dropout", "epochs", "batch_size", "optimizer", "seed"}
        ),
    )
    return cache.get_or_compute(
        fingerprint, lambda: _fit_decoder(views, features, rows, fold, settings), _WEIGHTS
    )


def _fit_decoder(
    views: StoredArray,
    features: StoredArray,
    rows: np.ndarray,
    fold: int,
    settings: LocalizationSettings,
) -> list[np.ndarray]:
    """Fit one decoder: each epoch shows every image in one of its views, the flips left out."""
    import keras

    from busi_pipeline.learning.fitting import make_optimizer

    begun = time.perf_counter()
    keras.backend.clear_session()
    seed_thread(settings.seed + fold)
    rng = np.random.default_rng([settings.seed, fold])
    numbers = views.index["augmentation"].to_numpy()[rows]
    images = views.index["image_id"].to_numpy()[rows]
    shown = rows[numbers != FLIPPED]
    drawn = np.stack([_reduce_mask(views.values[int(row)][..., 1]) for row in shown])
    of_image = list(
        pd.Series(np.arange(len(shown))).groupby(images[numbers != FLIPPED]).indices.values()
    )
    decoder = _build_decoder(settings)
    steps = -(-len(of_image) // settings.batch_size) * settings.epochs
    decoder.compile(optimizer=make_optimizer(settings.optimizer, steps), loss=measure_loss)
    order = [rng.permutation(own) for own in of_image]
    losses = []
    for epoch in track(range(settings.epochs), f"localizer, fold {fold + 1}", "epoch"):
        chosen = rng.permutation([own[epoch % len(own)] for own in order])
        losses = [
            float(
                decoder.train_on_batch(
                    features.values[shown[batch]], drawn[batch].astype(np.float32) / 255
                )
            )
            for start in range(0, len(chosen), settings.batch_size)
            for batch in [chosen[start : start + settings.batch_size]]
        ]
    logger.info(
        "localizer, fold %d of %d: %d images in %d views, loss %.3f (%.0f s)",
        fold + 1,
        settings.folds,
        len(of_image),
        len(shown),
        np.mean(losses),
        time.perf_counter() - begun,
    )
    return list(decoder.get_weights())


def _reduce_mask(mask: np.ndarray) -> np.ndarray:
    """Return uint8 (size / 4, size / 4, 1), the mean of each 4 x 4 pixels."""
    size = len(mask) // STRIDE
    blocks = np.asarray(mask, np.float32).reshape(size, STRIDE, size, STRIDE)
    return np.round(blocks.mean(axis=(1, 3)))[..., None].astype(np.uint8)


def _build_decoder(settings: LocalizationSettings) -> "keras.Model":
    from busi_pipeline.learning.device import dtype_policy

    with dtype_policy("float32"):
        return build_decoder(
            settings.image_size, settings.channels, settings.width, settings.dropout
        )


def load_decoder(settings: LocalizationSettings, weights: list[np.ndarray]) -> "keras.Model":
    """Return a decoder with these weights."""
    decoder = _build_decoder(settings)
    decoder.set_weights(weights)
    return decoder


def _predict_maps(
    decoder: "keras.Model", features: StoredArray, image_ids: pd.Series
) -> np.ndarray:
    """Return float32 (images, size / 4, size / 4, 2), the mean over an image and its flip."""
    rows = find_evaluation_rows(features, image_ids, flip=True)

    def predict(own: np.ndarray) -> np.ndarray:
        return np.concatenate(
            [
                decoder.predict_on_batch(features.values[own[start : start + _AT_ONCE]])
                for start in range(0, len(own), _AT_ONCE)
            ]
        )

    return average_flipped(predict(rows[:, 0]), predict(rows[:, 1]))


def build_localizer(
    settings: LocalizationSettings,
    weights: Mapping[str, PretrainedWeights],
    decoders: Mapping[str, list[list[np.ndarray]]],
) -> "keras.Model":
    """Return the whole localizer, in single precision; see models.localizer.join_localizer.

    Args:
        settings: of the decoders.
        weights, decoders: by backbone.
    """

    from busi_pipeline.learning.device import dtype_policy

    with dtype_policy("float32"):
        parts = []
        for backbone, own in decoders.items():
            seed_thread(settings.seed)
            argument = weights[backbone].argument
            pyramid = build_pyramid(
                get_backbone(backbone), settings.image_size, settings.channels, argument
            )
            parts.append((pyramid, [load_decoder(settings, fitted) for fitted in own]))
        return join_localizer(parts)


def locate_with(
    localizer: "keras.Model", views: StoredArray, images: pd.DataFrame, cache: Cache
) -> pd.DataFrame:
    """Return where a localizer finds the lesions of images it has not learned from.

    Args:
        localizer: of `build_localizer`.
        views: of `prepare_views`; the images as they came.
        images: `image_id`, `height`, `width`.
        cache: of boxes that it found before.
    """
    rows = find_evaluation_rows(views, images["image_id"], flip=False)[:, 0]

    def compute() -> pd.DataFrame:
        starts = track(range(0, len(rows), _AT_ONCE), "lesions located", "batch")
        maps = [
            localizer.predict_on_batch(
                np.asarray(views.values[rows[start : start + _AT_ONCE]][..., 0])
            )
            for start in starts
        ]
        return list_boxes(images.assign(is_learned=False), views, np.concatenate(maps))

    fingerprint = FOUND.fingerprint(
        localizer=_hash_model(localizer),
        views=views.fingerprint.digest,
        images=hash_values(
            [
                [views.keys[row], int(height), int(width)]
                for row, height, width in zip(rows, images["height"], images["width"], strict=True)
            ]
        ),
    )
    boxes = cache.get_or_compute(fingerprint, compute, TABLE)
    # Images may have other names than when they were located.
    return boxes.assign(image_id=images["image_id"].to_numpy())


def _hash_model(model: "keras.Model") -> str:
    digest = hashlib.sha256(model.to_json().encode())
    for weights in model.get_weights():
        digest.update(np.ascontiguousarray(weights).tobytes())
    return digest.hexdigest()


def list_boxes(images: pd.DataFrame, views: StoredArray, maps: np.ndarray) -> pd.DataFrame:
    """Return where lesions were found, and how that compares with what readers drew.

    Args:
        images: `image_id`, `height`, `width`, `is_learned`.
        views: with what readers drew.
        maps: float (images, size / 4, size / 4, 2), of a localizer.

    Returns BOX_COLUMNS, one row an image:
        left, top, right, bottom: of the likeliest lesion, in pixels of the image.
        confidence: that there is a lesion at all, 0 to 1.
        source: OUT_OF_FOLD or UNSEEN: by decoders that did not learn from the image.
        drawn_left, drawn_top, drawn_right, drawn_bottom: the box of what readers drew; empty where
            nothing is drawn.
        is_drawn: whether readers drew a lesion; empty where nobody said.
        iou: intersection over union of both boxes.
        centre_hit: whether the centre of the found box lies in the drawn lesion.
        dice: overlap of the found and the drawn lesion, 0 to 1.
    """
    rows: list[dict[str, Any]] = []
    originals = find_evaluation_rows(views, images["image_id"], flip=False)[:, 0]
    for image, own, row in zip(images.to_dict("records"), maps, originals, strict=True):
        drawn = np.asarray(views.values[int(row)][..., 1])
        found = find_lesion(own)
        window = list_whole_window(image["height"], image["width"], keep_aspect=True)
        box = place_in_image(found.box, window, len(drawn))
        rows.append(
            {
                "image_id": image["image_id"],
                **{name: round(value, 1) for name, value in box._asdict().items()},
                "confidence": round(found.confidence, 4),
                "source": OUT_OF_FOLD if image["is_learned"] else UNSEEN,
                **_compare(found, drawn, window),
            }
        )
    return pd.DataFrame(rows, columns=BOX_COLUMNS)


def _compare(found: FoundLesion, drawn: np.ndarray, window: Window) -> dict[str, Any]:
    """Compare a found lesion with what readers drew, both as the localizer sees them."""
    if drawn[0, 0] == UNKNOWN:
        return {}
    lesion = drawn == _DRAWN
    own = find_lesion_box(lesion)
    if own is None:
        return {"is_drawn": False}
    x, y = (min(len(drawn) - 1, int(place)) for place in found.box.centre)
    in_image = place_in_image(own, window, len(drawn))
    return {
        **{f"drawn_{name}": round(value, 1) for name, value in in_image._asdict().items()},
        "is_drawn": True,
        "iou": round(found.box.measure_iou(own), 4),
        "centre_hit": bool(lesion[y, x]),
        "dice": round(
            2 * float((found.mask & lesion).sum()) / float(found.mask.sum() + lesion.sum()), 4
        ),
    }
