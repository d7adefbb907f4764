"""Copies of one scan: found, looked at, kept together."""

from kedro.pipeline import Node, Pipeline

from .groups import group_images
from .montage import draw_copy_pairs
from .nodes import find_copies


def create_pipeline() -> Pipeline:
    """raw_images, manifest -> copy_pairs -> image_groups, copy_summary; copy_montage to look at."""
    return Pipeline(
        [
            Node(
                find_copies,
                inputs=["raw_images", "manifest", "params:copies"],
                outputs="copy_pairs",
                name="find_copies",
                tags="copies",
            ),
            Node(
                group_images,
                inputs=["manifest", "copy_pairs", "own_groups", "params:copies"],
                outputs=["image_groups", "copy_summary"],
                name="group_images",
                tags="copies",
            ),
            Node(
                draw_copy_pairs,
                inputs=["raw_images", "manifest", "copy_pairs"],
                outputs="copy_montage",
                name="draw_copy_pairs",
                tags="copies",
            ),
        ]
    )
