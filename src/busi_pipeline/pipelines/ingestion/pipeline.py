"""Files to manifest: what is there, what can be used, what cannot and why."""

from kedro.pipeline import Node, Pipeline

from .nodes import build_manifest


def create_pipeline() -> Pipeline:
    """raw_images -> build_manifest -> manifest, quarantine, data_summary, data_tags."""
    return Pipeline(
        [
            Node(
                build_manifest,
                inputs=["raw_images", "params:ingestion", "params:classes"],
                outputs=["manifest", "quarantine", "data_summary", "data_tags"],
                name="build_manifest",
                tags="ingestion",
            )
        ]
    )
