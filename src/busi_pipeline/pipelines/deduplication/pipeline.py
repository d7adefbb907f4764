"""Duplicates of one scan: found, shown, kept together."""

from kedro.pipeline import Node, Pipeline

from .grouping import group_images
from .nodes import find_duplicates
from .plots import plot_duplicate_pairs

_STAGE = "deduplication"


def create_pipeline() -> Pipeline:
    """raw_images, manifest -> duplicate_pairs -> image_groups, duplicate_summary; and a plot."""
    return Pipeline(
        [
            Node(
                find_duplicates,
                inputs=["raw_images", "manifest", "params:deduplication", "cache"],
                outputs="duplicate_pairs",
                name="find_duplicates",
                tags=_STAGE,
            ),
            _make_grouping_node(),
            Node(
                plot_duplicate_pairs,
                inputs=["raw_images", "manifest", "duplicate_pairs", "params:privacy"],
                outputs="duplicate_pairs_plot",
                name="plot_duplicate_pairs",
                tags=_STAGE,
            ),
        ]
    )


def create_external_pipeline() -> Pipeline:
    """external.manifest, external.duplicate_pairs -> external.image_groups.

    The pairs come from a search over the external site and all that models learned from.
    """
    return Pipeline(
        [_make_grouping_node()], namespace="external", parameters={"params:deduplication"}
    )


def _make_grouping_node() -> Node:
    return Node(
        group_images,
        inputs=["manifest", "duplicate_pairs", "params:deduplication"],
        outputs=["image_groups", "duplicate_summary"],
        name="group_images",
        tags=_STAGE,
    )
