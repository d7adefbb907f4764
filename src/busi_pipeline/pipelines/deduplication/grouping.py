"""Which images belong together: duplicates, and what the user knows (a patient, say)."""

import logging
from typing import Any, NamedTuple

import pandas as pd

from busi_pipeline.config.schemas import DeduplicationSettings
from busi_pipeline.errors import BadInputError
from busi_pipeline.imaging.duplicate_search import label_components

logger = logging.getLogger(__name__)

_REMEDY = "The file stands beside the class folders, with the columns image_id and group."


class Grouping(NamedTuple):
    """What grouping hands over.

    Attributes:
        image_groups: one row an image of the manifest, in its order: `image_id`, `label`, `group`
            (the first image of it), `group_size`, `mixed_labels` (whether the group holds images
            of different labels).
        summary: counts, for MLflow's metrics.
    """

    image_groups: pd.DataFrame
    summary: dict[str, Any]


def group_images(
    manifest: pd.DataFrame,
    duplicate_pairs: pd.DataFrame,
    patient_groups: pd.DataFrame | None,
    deduplication: DeduplicationSettings,
) -> Grouping:
    """Put images that are connected by pairs, or by a group of the user's own, into one group.

    Args:
        manifest: one row an image.
        duplicate_pairs: `image_a`, `image_b`.
        patient_groups: `image_id` (or `path`), `group`: an image that is left out or has an empty
            group stands alone. None where there is no such file.
        deduplication: `patient_groups` says what they are for: `join` connects by both, `only`
            puts them in the place of the pairs, `ignore` leaves them aside.

    Raises BadInputError where the user's groups name no image, or do not name all in `only`.
    """
    use = deduplication.patient_groups
    position = {image_id: i for i, image_id in enumerate(manifest["image_id"])}
    links: list[tuple[int, int]] = []
    if use != "only":
        links += [
            (position[a], position[b])
            for a, b in zip(duplicate_pairs["image_a"], duplicate_pairs["image_b"], strict=True)
        ]
    if use != "ignore" and patient_groups is not None:
        links += _link_patients(manifest, patient_groups, complete=use == "only")
    elif use == "only":
        raise BadInputError(
            f"deduplication.patient_groups is 'only', but there is no groups.csv. {_REMEDY}"
        )
    groups = _connect(manifest, links)
    summary = _summarise(groups)
    logger.info(
        "%d groups of %d images; %d hold more than one image (%d images), "
        "%d images in groups of mixed labels",
        summary["groups"],
        len(groups),
        summary["groups_with_duplicates"],
        summary["images_in_them"],
        summary["images_of_mixed_labels"],
    )
    return Grouping(groups, {"duplicates": summary})


def _link_patients(
    manifest: pd.DataFrame, patient_groups: pd.DataFrame, complete: bool
) -> list[tuple[int, int]]:
    """Return links from the first image of each of the user's groups to the others."""
    key = next((name for name in ("image_id", "path") if name in patient_groups), None)
    if key is None or "group" not in patient_groups:
        raise BadInputError(
            f"groups.csv has the columns {list(patient_groups.columns)}; needed are image_id (or "
            "path) and group."
        )
    position = {name: i for i, name in enumerate(manifest[key])}
    without = patient_groups["group"].isna()
    if without.any():
        logger.warning("groups.csv gives %d images no group: they stand alone", without.sum())
        patient_groups = patient_groups[~without]
    named = patient_groups[key].astype(str)
    unknown = [name for name in named if name not in position]
    if unknown:
        raise BadInputError(
            f"groups.csv names {len(unknown)} images that are not in the manifest "
            f"({unknown[0]!r} is the first). The column {key} must hold names such as "
            f"{manifest[key].iloc[0]!r}."
        )
    if complete and (left := set(position) - set(named)):
        raise BadInputError(
            f"deduplication.patient_groups is 'only', but groups.csv leaves out {len(left)} images "
            f"({min(left)!r}, for one). {_REMEDY}"
        )
    first: dict[str, int] = {}
    return [
        (first.setdefault(str(group), position[name]), position[name])
        for name, group in zip(named, patient_groups["group"], strict=True)
    ]


def _connect(manifest: pd.DataFrame, links: list[tuple[int, int]]) -> pd.DataFrame:
    component = label_components(links, len(manifest))
    groups = manifest[["image_id", "label"]].reset_index(drop=True)
    members = groups.groupby(component)
    groups["group"] = members["image_id"].transform("first")
    groups["group_size"] = members["image_id"].transform("size")
    groups["mixed_labels"] = members["label"].transform("nunique") > 1
    return groups


def _summarise(groups: pd.DataFrame) -> dict[str, Any]:
    several, mixed = groups["group_size"] > 1, groups["mixed_labels"]
    return {
        "groups": int(groups["group"].nunique()),
        "groups_with_duplicates": int(groups.loc[several, "group"].nunique()),
        "images_in_them": int(several.sum()),
        "largest_group": int(groups["group_size"].max()),
        "groups_of_mixed_labels": int(groups.loc[mixed, "group"].nunique()),
        "images_of_mixed_labels": int(mixed.sum()),
    }
