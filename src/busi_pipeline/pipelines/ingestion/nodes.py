"""Read every file once: a manifest of what can be used, a quarantine table of the rest."""

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import pandas as pd
from natsort import natsorted

from busi_pipeline.config.schemas import IngestionSettings
from busi_pipeline.errors import BadInputError
from busi_pipeline.imaging.decoding import UnusableImageError, decode_image, has_colour
from busi_pipeline.imaging.masks import find_owner
from busi_pipeline.stats.classes import Classes

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
# What may stand beside the class folders: which images are of one patient (see deduplication).
PATIENT_GROUPS_FILE = "groups.csv"

MANIFEST_COLUMNS = [
    "image_id",
    "path",
    "label",
    "height",
    "width",
    "mode",
    "byte_sha256",
    "pixel_sha256",
    "masks",
    "colour_overlay",
    "byte_duplicate_of",
]

RawImages = Mapping[str, Callable[[], bytes]]


class Ingestion(NamedTuple):
    """What ingestion hands over.

    Attributes:
        manifest: one row an image, MANIFEST_COLUMNS; `image_id` is the path below the data folder
            without suffix, `masks` a count, `byte_duplicate_of` the first image of the same bytes.
        quarantine: one row a file that cannot be used: `path`, `reason`.
        summary: counts, for MLflow's metrics.
        tags: `data_sha256` over id, label and bytes of every image in the manifest.
    """

    manifest: pd.DataFrame
    quarantine: pd.DataFrame
    summary: dict[str, Any]
    tags: dict[str, str]


class _Files(NamedTuple):
    images: list[str]
    masks: Counter[tuple[str, str]]
    quarantine: list[tuple[str, str]]


def build_manifest(
    raw_images: RawImages, ingestion: IngestionSettings, classes: Classes
) -> Ingestion:
    """Sort the files into images, masks and quarantine, and describe every image.

    Args:
        raw_images: {`<class>/<file>`: function that reads the bytes}.
        ingestion: `min_side` (pixels) and `min_images_per_class`.
        classes: names of the class folders; no other folder is read.

    Raises BadInputError where a class has no image or fewer than `min_images_per_class`.
    """
    files = _sort_files(raw_images, classes)
    with ThreadPoolExecutor() as pool:  # Pillow lets go of the lock while it decodes
        described = list(
            pool.map(
                lambda path: _describe_image(path, raw_images[path], ingestion.min_side),
                files.images,
            )
        )
    rows = [row for row in described if isinstance(row, dict)]
    unusable = [row for row in described if isinstance(row, tuple)]
    manifest = _complete_manifest(rows, files.masks)
    quarantine = pd.DataFrame(sorted(files.quarantine + unusable), columns=["path", "reason"])
    _check_classes(manifest, quarantine, raw_images, classes, ingestion.min_images_per_class)
    summary = _summarise(manifest, quarantine, files.masks, classes)
    logger.info(
        "%d images (%s), %d masks, %d files in quarantine",
        len(manifest),
        ", ".join(f"{summary['images'][name]} {name}" for name in classes),
        sum(files.masks.values()),
        len(quarantine),
    )
    for path, reason in quarantine.itertuples(index=False):
        logger.warning("quarantine: %s: %s", path, reason)
    identity = "\n".join(
        f"{r.image_id}\t{r.label}\t{r.byte_sha256}" for r in manifest.itertuples(index=False)
    )
    tags = {"data_sha256": hashlib.sha256(identity.encode()).hexdigest()}
    return Ingestion(manifest, quarantine, summary, tags)


def _sort_files(raw_images: RawImages, classes: Classes) -> _Files:
    """Separate images, masks and what is neither, by their names alone."""
    candidates, masks, quarantine = [], [], []
    folders = list(classes.names)
    for path in raw_images:
        pure = PurePosixPath(path)
        if path == PATIENT_GROUPS_FILE:
            continue
        if len(pure.parts) < 2:
            quarantine.append(
                (path, f"not in a class folder; class folders: {list(classes.names)}")
            )
        elif pure.parts[0] not in classes.names:
            quarantine.append((path, f"unknown class folder; class folders: {folders}"))
        elif pure.suffix.lower() not in IMAGE_SUFFIXES:
            quarantine.append((path, f"not an image file; allowed: {list(IMAGE_SUFFIXES)}"))
        elif owner := find_owner(path):
            masks.append((path, owner))
        else:
            candidates.append(path)
    owners = {(str(PurePosixPath(p).parent), PurePosixPath(p).stem) for p in candidates}
    quarantine += [(path, "mask without image") for path, owner in masks if owner not in owners]
    paired = Counter(owner for _, owner in masks if owner in owners)
    return _Files(candidates, paired, quarantine)


def _describe_image(
    path: str, read: Callable[[], bytes], min_side: int
) -> dict[str, Any] | tuple[str, str]:
    """Return a manifest row, or (path, reason) where the file cannot be used."""
    try:
        content = read()
        pixels, mode = decode_image(content)
    except UnusableImageError as error:
        return path, str(error)
    except Exception as error:  # a dataset wraps what the file system says
        return path, f"unreadable: {error}"
    height, width = pixels.shape[:2]
    if min(height, width) < min_side:
        return path, f"too small: {width} x {height} pixels, at least {min_side} a side"
    return {
        "path": path,
        "label": PurePosixPath(path).parts[0],
        "height": height,
        "width": width,
        "mode": mode,
        "byte_sha256": hashlib.sha256(content).hexdigest(),
        "pixel_sha256": hashlib.sha256(f"{pixels.shape}".encode() + pixels.tobytes()).hexdigest(),
        "colour_overlay": has_colour(pixels),
    }


def _complete_manifest(rows: list[dict[str, Any]], masks: Counter[tuple[str, str]]) -> pd.DataFrame:
    """Add what follows from all rows together: ids, masks, duplicates. In natural order."""
    rows = natsorted(rows, key=lambda row: row["path"])
    stems = Counter(str(PurePosixPath(row["path"]).with_suffix("")) for row in rows)
    first_with: dict[str, str] = {}
    complete = []
    for row in rows:
        pure = PurePosixPath(row["path"])
        stem = str(pure.with_suffix(""))
        image_id = stem if stems[stem] == 1 else row["path"]  # "a.png" beside "a.jpg"
        original = first_with.setdefault(row["byte_sha256"], image_id)
        complete.append(
            row
            | {
                "image_id": image_id,
                "masks": masks[str(pure.parent), pure.stem],
                "byte_duplicate_of": original if original != image_id else "",
            }
        )
    return pd.DataFrame(complete, columns=MANIFEST_COLUMNS)


def _check_classes(
    manifest: pd.DataFrame,
    quarantine: pd.DataFrame,
    raw_images: RawImages,
    classes: Classes,
    minimum: int,
) -> None:
    counts = manifest["label"].value_counts()
    short = [name for name in classes if counts.get(name, 0) < minimum]
    if short:
        found = {name: int(counts.get(name, 0)) for name in classes}
        folders = sorted({PurePosixPath(p).parts[0] for p in raw_images if "/" in p})
        raise BadInputError(
            f"too few images of class {', '.join(short)}: at least {minimum} usable images a class "
            f"are needed for a 70/15/15 split; found {found} in the folders {folders}, and "
            f"{len(quarantine)} files unusable. Expected layout: <class>/<class> (n).png."
        )


def _summarise(
    manifest: pd.DataFrame,
    quarantine: pd.DataFrame,
    masks: Counter[tuple[str, str]],
    classes: Classes,
) -> dict[str, Any]:
    counts = manifest["label"].value_counts()
    return {
        "images": {name: int(counts.get(name, 0)) for name in classes} | {"all": len(manifest)},
        "masks": sum(masks.values()),
        "colour_overlays": int(manifest["colour_overlay"].sum()),
        "byte_duplicates": int((manifest["byte_duplicate_of"] != "").sum()),
        "quarantined": len(quarantine),
    }
