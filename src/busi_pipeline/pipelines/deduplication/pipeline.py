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
            Node(
                group_images,
                inputs=["manifest", "duplicate_pairs", "patient_groups", "params:deduplication"],
                outputs=["image_groups", "duplicate_summary"],
                name="group_images",
                tags=_STAGE,
            ),
            Node(
                plot_duplicate_pairs,
                inputs=["raw_images", "manifest", "duplicate_pairs"],
                outputs="duplicate_pairs_plot",
                name="plot_duplicate_pairs",
                tags=_STAGE,
            ),
        ]
    )
