"""Read every file once: a manifest of what can be used, a quarantine table of the rest."""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from difflib import get_close_matches
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import pandas as pd
from natsort import natsorted

from busi_pipeline.config.schemas import ExternalSettings, IngestionSettings, SiteSettings
from busi_pipeline.config.sites import AUTO, find_external_site, resolve_layout
from busi_pipeline.errors import BadInputError
from busi_pipeline.imaging.decoding import (
    UnusableImageError,
    decode_image,
    describe_error,
    has_colour,
    hash_pixels,
)
from busi_pipeline.imaging.masks import is_two_valued
from busi_pipeline.imaging.raw_files import RawFiles, as_raw_files
from busi_pipeline.layouts import ATTRIBUTES, MASK_WITHOUT_IMAGE, TWO_VALUED, ListedImage
from busi_pipeline.learning.folds import hash_images
from busi_pipeline.stats.classes import Classes

from .listing import ListedSite, list_sites

logger = logging.getLogger(__name__)

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
    "site",
    "patient",
    *ATTRIBUTES,
    "box",
    "mask_paths",
    "pixel_spacing_mm",
    "note",
]
# Of all pictures: where more are masks of no image, masks have names that are not known here.
_OWNERLESS_SHARE = 0.1
# Files in quarantine that the log names; a whole class that is none would hide all else.
_NAMED = 8

RawImages = Mapping[str, Callable[[], bytes]]


class Ingestion(NamedTuple):
    """What ingestion hands over.

    Attributes:
        manifest: one row an image, MANIFEST_COLUMNS; texts are "" where nothing is known.
            `image_id` is the path without suffix below the folder that holds the images, after
            `<site>/` where there are several; `path` and `mask_paths` (a JSON list) are keys of the
            raw images; `masks` is a count; `byte_duplicate_of` the first image of the same bytes;
            `patient` is unique over sites; `box` is `x y width height` around the lesion, in
            pixels; `note` is what the decoder had to decide.
        quarantine: one row a file that cannot be used: `path`, `reason`.
        summary: counts, for MLflow's metrics.
        tags: `data_sha256` over id, label and bytes of every image in the manifest.
    """

    manifest: pd.DataFrame
    quarantine: pd.DataFrame
    summary: dict[str, Any]
    tags: dict[str, str]


class _Picture(NamedTuple):
    """A picture that could be decoded: its columns of the manifest, and whether it is a mask."""

    columns: dict[str, Any]
    is_two_valued: bool


class _Read(NamedTuple):
    manifest: pd.DataFrame
    quarantine: pd.DataFrame
    n_masks: int
    other_labels: Counter[str]


def build_manifest(
    raw_images: RawImages,
    ingestion: IngestionSettings,
    sites: Mapping[str, SiteSettings],
    classes: Classes,
) -> Ingestion:
    """Sort the files into images, masks and quarantine, and describe every image.

    Args:
        raw_images: {path: function that reads the bytes}, or RawFiles. Of one site the paths are
            those in its folder; of several they begin with `<site>/`.
        ingestion: which sites are read, what their labels mean, and what can be used.
        sites: all sites.
        classes: that labels must be.

    Raises BadInputError where a class has no image or fewer than `min_images_per_class`, where a
    folder is not laid out as its layout says, and where masks cannot be distinguished from images.
    """
    layouts = {name: resolve_layout(sites[name], ingestion) for name in ingestion.sites}
    read = _read_sites(as_raw_files(raw_images), layouts, ingestion, classes)
    _check_classes(read, classes, ingestion.min_images_per_class)
    return _hand_over(read, classes)


def build_external_manifest(
    raw_images: RawImages,
    ingestion: IngestionSettings,
    external: ExternalSettings,
    sites: Mapping[str, SiteSettings],
    classes: Classes,
) -> Ingestion:
    """Do the same for the external site, which need not have images of every class.

    Raises BadInputError where no external site is named, or it has no usable image of any class,
    and as `build_manifest` does.
    """
    found = find_external_site(external, sites)
    if found is None:
        raise BadInputError(
            "no external site is named: set external.site to an entry of sites, or external.folder "
            "to a folder."
        )
    name, site = found
    layouts = {name: site.layout or AUTO}
    read = _read_sites(as_raw_files(raw_images), layouts, ingestion, classes)
    if read.manifest.empty:
        raise BadInputError(
            f"the external site {name} has no usable image of the classes {', '.join(classes)}; "
            f"{len(read.quarantine)} files are unusable.{_hint_labels(read, list(classes))}"
        )
    return _hand_over(read, classes)


def _read_sites(
    raw_files: RawFiles, layouts: Mapping[str, str], ingestion: IngestionSettings, classes: Classes
) -> _Read:
    listed = list_sites(raw_files, layouts, ingestion, classes)
    paths = [site.key(image.path) for site in listed for image in site.images]
    with ThreadPoolExecutor() as pool:  # Pillow lets go of the lock while it decodes
        described = pool.map(
            lambda path: _describe_picture(raw_files[path], ingestion),
            paths,
        )
        pictures = dict(zip(paths, described, strict=True))
    rows: list[dict[str, Any]] = []
    quarantine = dict(raw_files.unusable)
    masks: set[str] = set()
    for site in listed:
        images, unused = _separate_masks(site, pictures, ingestion.extended_names == "stop")
        quarantine |= unused
        for image in images:
            masks |= {site.key(mask) for mask in image.masks}
            picture = pictures[site.key(image.path)]
            if isinstance(picture, str):
                quarantine[site.key(image.path)] = picture
            else:
                rows.append(_make_row(site, image, picture, raw_files))
    table = pd.DataFrame(sorted(quarantine.items()), columns=["path", "reason"])
    other_labels = sum((site.other_labels for site in listed), Counter[str]())
    return _Read(_complete_manifest(rows), table, len(masks), other_labels)


def _describe_picture(read: Callable[[], bytes], ingestion: IngestionSettings) -> _Picture | str:
    """Return what a picture is, or the reason why it cannot be used."""
    try:
        content = read()
        pixels, mode, note = decode_image(content, max_pixels=ingestion.max_pixels)
    except UnusableImageError as error:
        return str(error)
    except Exception as error:  # a dataset wraps what the file system says
        return f"unreadable: {describe_error(error)}"
    height, width = pixels.shape[:2]
    is_mask = is_two_valued(pixels)
    if min(height, width) < ingestion.min_side and not is_mask:
        return f"too small: {width} x {height} pixels, at least {ingestion.min_side} a side"
    columns = {
        "height": height,
        "width": width,
        "mode": mode,
        "byte_sha256": hashlib.sha256(content).hexdigest(),
        "pixel_sha256": hash_pixels(pixels),
        "colour_overlay": has_colour(pixels),
        "note": note,
    }
    return _Picture(columns, is_mask)


def _separate_masks(
    site: ListedSite, pictures: Mapping[str, _Picture | str], stop: bool
) -> tuple[list[ListedImage], dict[str, str]]:
    """Return the images of a site with their masks, and {path: reason} of what is not used.

    Raises BadInputError where too many masks have no image.
    """
    described = {image.path: pictures[site.key(image.path)] for image in site.images}
    two_valued = {
        path for path, p in described.items() if isinstance(p, _Picture) and p.is_two_valued
    }
    images, unused = site.layout.separate_masks(site.images, two_valued, stop)
    quarantine = site.quarantine | {site.key(path): reason for path, reason in unused}
    ownerless = sorted(
        path for path, reason in quarantine.items() if reason in (MASK_WITHOUT_IMAGE, TWO_VALUED)
    )
    if len(ownerless) > _OWNERLESS_SHARE * site.n_pictures:
        raise BadInputError(
            f"{len(ownerless)} of {site.n_pictures} pictures are masks of no image "
            f"({ownerless[0]}, for one): they are named in a way that is not known. Name the masks "
            "of x.png as in x_mask.png, x_mask_1.png or masks/x.png, or list them in an images.csv."
        )
    return images, quarantine


def _make_row(
    site: ListedSite, image: ListedImage, picture: _Picture, raw_files: RawFiles
) -> dict[str, Any]:
    """Return a row of the manifest. What a table says goes before what a DICOM header says."""
    path = site.key(image.path)
    header = raw_files.attributes.get(path, {})
    patient = image.patient or header.get("patient", "")
    masks = [site.key(mask) for mask in image.masks]
    return {
        "image_id": site.start + image.path,
        "path": path,
        "label": image.label,
        **picture.columns,
        "masks": len(masks),
        "site": image.site or site.site,
        "patient": f"{site.site}:{patient}" if patient and site.start else patient,
        **{name: image.attributes.get(name) or header.get(name, "") for name in ATTRIBUTES},
        "box": " ".join(map(str, image.box or ())),
        "mask_paths": json.dumps(masks, ensure_ascii=False),
        "pixel_spacing_mm": header.get("pixel_spacing_mm", ""),
    }


def _complete_manifest(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Add what follows from all rows together: ids and duplicates. In natural order."""
    rows = natsorted(rows, key=lambda row: row["path"])
    stems = Counter(_drop_suffix(row["image_id"]) for row in rows)
    first_with: dict[str, str] = {}
    complete = []
    for row in rows:
        stem = _drop_suffix(row["image_id"])
        image_id = stem if stems[stem] == 1 else row["image_id"]  # "a.png" beside "a.jpg"
        original = first_with.setdefault(row["byte_sha256"], image_id)
        duplicate_of = original if original != image_id else ""
        complete.append(row | {"image_id": image_id, "byte_duplicate_of": duplicate_of})
    return pd.DataFrame(complete, columns=MANIFEST_COLUMNS)


def _drop_suffix(path: str) -> str:
    return str(PurePosixPath(path).with_suffix(""))


def _check_classes(read: _Read, classes: Classes, minimum: int) -> None:
    counts = read.manifest["label"].value_counts()
    short = [name for name in classes if counts.get(name, 0) < minimum]
    if short:
        found = {name: int(counts.get(name, 0)) for name in classes}
        raise BadInputError(
            f"too few images of class {', '.join(short)}: at least {minimum} usable images a class "
            f"are needed for a 70/15/15 split; found {found}, and {len(read.quarantine)} files "
            f"unusable.{_hint_labels(read, short)}"
        )


def _hint_labels(read: _Read, short: list[str]) -> str:
    """Say which labels are no class, and what they may mean; "" where all are."""
    if not read.other_labels:
        return ""
    named = ", ".join(
        f"{label or 'none'} ({n} images)" for label, n in read.other_labels.most_common(6)
    )
    near = {name: get_close_matches(name, read.other_labels, n=1) for name in short}
    pairs = ", ".join(f"{labels[0]}: {name}" for name, labels in near.items() if labels)
    meant = f" Did you mean ingestion.class_names: {{{pairs}}}?" if pairs else ""
    return f" Labels that are no class: {named}.{meant}"


def _hand_over(read: _Read, classes: Classes) -> Ingestion:
    """Log what was read, and add its summary and its hash."""
    manifest, quarantine = read.manifest, read.quarantine
    summary = _summarise(read, classes)
    logger.info(
        "%d images (%s), %d masks, %d files in quarantine",
        len(manifest),
        ", ".join(f"{summary['images'][name]} {name}" for name in classes),
        read.n_masks,
        len(quarantine),
    )
    for path, reason in quarantine.head(_NAMED).itertuples(index=False):
        logger.warning("quarantine: %s: %s", path, reason)
    if len(quarantine) > _NAMED:
        logger.warning("quarantine: and %d more, see quarantine.csv", len(quarantine) - _NAMED)
    noted = manifest.loc[manifest["note"] != "", ["path", "note"]]
    if len(noted):
        logger.warning(
            "%d images have a note in the manifest, such as %s: %s", len(noted), *noted.iloc[0]
        )
    tags = {"data_sha256": hash_images(manifest)}
    return Ingestion(manifest, quarantine, summary, tags)


def _summarise(read: _Read, classes: Classes) -> dict[str, Any]:
    """Count; images of each site where there are several, and patients where they are known."""
    manifest = read.manifest
    sites = manifest["site"].value_counts()
    by_site = {str(name): int(n) for name, n in sites.items()} if len(sites) > 1 else {}
    labels = manifest["label"].value_counts()
    by_class = {name: int(labels.get(name, 0)) for name in classes}
    patients = manifest.loc[manifest["patient"] != "", "patient"].nunique()
    return {
        "images": by_site | by_class | {"all": len(manifest)},
        "masks": read.n_masks,
        "colour_overlays": int(manifest["colour_overlay"].sum()),
        "byte_duplicates": int((manifest["byte_duplicate_of"] != "").sum()),
        "quarantined": len(read.quarantine),
    } | ({"patients": patients} if patients else {})
