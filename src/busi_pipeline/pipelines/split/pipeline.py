"""Who is where: every image belongs to training, validation or test."""

from kedro.pipeline import Node, Pipeline

from .nodes import split_images


def create_pipeline() -> Pipeline:
    """manifest, image_groups -> split_images -> split_manifest, split_summary, split_tags."""
    return Pipeline(
        [
            Node(
                split_images,
                inputs=["manifest", "image_groups", "params:split"],
                outputs=["split_manifest", "split_summary", "split_tags"],
                name="split_images",
                tags="split",
            )
        ]
    )
