"""Which images belong together: duplicates, and images of one patient."""

import logging
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from busi_pipeline.config.schemas import DeduplicationSettings
from busi_pipeline.errors import BadInputError
from busi_pipeline.imaging.duplicate_search import label_components

logger = logging.getLogger(__name__)


class Grouping(NamedTuple):
    """What grouping hands over.

    Attributes:
        image_groups: one row an image of the manifest, in its order: `image_id`, `label`, `group`
            (the first image of it), `group_size`, `mixed_labels` (whether duplicates of the image
            carry another label).
        summary: counts, for MLflow's metrics.
    """

    image_groups: pd.DataFrame
    summary: dict[str, Any]


def group_images(
    manifest: pd.DataFrame, duplicate_pairs: pd.DataFrame, deduplication: DeduplicationSettings
) -> Grouping:
    """Put images that are connected by duplicates, or by a patient, into one group.

    A patient may have images of several labels. Duplicates may not: those are of mixed labels.

    Args:
        manifest: one row an image; `patient` is "" where it is not known: such an image is of no
            patient, not of one.
        duplicate_pairs: `image_a`, `image_b`.
        deduplication: `patient_groups` says what patients are for: `join` connects by both, `only`
            puts them in the place of the pairs, `ignore` leaves them aside.

    Raises BadInputError where an image has no patient in `only`.
    """
    use = deduplication.patient_groups
    position = {image_id: i for i, image_id in enumerate(manifest["image_id"])}
    duplicates: list[tuple[int, int]] = []
    if use != "only":
        duplicates = [
            (position[a], position[b])
            for a, b in zip(duplicate_pairs["image_a"], duplicate_pairs["image_b"], strict=True)
        ]
    patients = [] if use == "ignore" else _link_patients(manifest, is_complete=use == "only")
    groups = manifest[["image_id", "label"]].reset_index(drop=True)
    members = groups.groupby(label_components([*duplicates, *patients], len(groups)))
    groups["group"] = members["image_id"].transform("first")
    groups["group_size"] = members["image_id"].transform("size")
    of_scan = groups.groupby(label_components(duplicates, len(groups)))
    groups["mixed_labels"] = of_scan["label"].transform("nunique") > 1
    _warn_of_parted_files(manifest, groups["group"])
    summary = _summarise(groups, of_scan["image_id"].transform("first"))
    logger.info(
        "%d groups of %d images; %d scans have duplicates (%d images), "
        "%d images in duplicates of mixed labels",
        summary["groups"],
        len(groups),
        summary["groups_with_duplicates"],
        summary["images_in_them"],
        summary["images_of_mixed_labels"],
    )
    return Grouping(groups, {"duplicates": summary})


def _link_patients(manifest: pd.DataFrame, is_complete: bool) -> list[tuple[int, int]]:
    """Return links from the first image of each patient to the others."""
    patients = manifest["patient"].tolist()
    without = [i for i, patient in enumerate(patients) if not patient]
    if without and is_complete:
        raise BadInputError(
            f"deduplication.patient_groups is 'only', but {len(without)} of {len(patients)} images "
            f"have no patient ({manifest['image_id'].iloc[without[0]]!r}, for one): name it in the "
            "table of the site, or in a groups.csv (columns image_id and group) beside the class "
            "folders."
        )
    if without and len(without) < len(patients):
        logger.warning("%d images have no patient: each is taken as of its own", len(without))
    first: dict[str, int] = {}
    return [(first.setdefault(name, i), i) for i, name in enumerate(patients) if name]


def _warn_of_parted_files(manifest: pd.DataFrame, group: pd.Series) -> None:
    """Warn where images of the same bytes or pixels are in several groups."""
    parted = np.zeros(len(manifest), dtype=bool)
    for column in ("byte_sha256", "pixel_sha256"):
        same = group.groupby(manifest[column].to_numpy())
        parted |= (same.transform("nunique") > 1).to_numpy()
    if parted.any():
        logger.warning(
            "%d images are identical to an image of another group, so one may be trained on and "
            "the other tested (deduplication.patient_groups)",
            parted.sum(),
        )


def _summarise(groups: pd.DataFrame, scan: pd.Series) -> dict[str, Any]:
    """Count groups, and what is in the scans that have duplicates."""
    sizes = scan.map(scan.value_counts())
    several, mixed = sizes > 1, groups["mixed_labels"]
    return {
        "groups": int(groups["group"].nunique()),
        "groups_with_duplicates": int(scan[several].nunique()),
        "images_in_them": int(several.sum()),
        "largest_group": int(sizes.max()),
        "groups_of_mixed_labels": int(scan[mixed].nunique()),
        "images_of_mixed_labels": int(mixed.sum()),
    }
