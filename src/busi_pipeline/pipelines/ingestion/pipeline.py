"""Files to manifest: what is there, what can be used, what cannot and why."""

from kedro.pipeline import Node, Pipeline

from .nodes import build_external_manifest, build_manifest

_OUTPUTS = ["manifest", "quarantine", "data_summary", "data_tags"]


def create_pipeline() -> Pipeline:
    """raw_images -> build_manifest -> manifest, quarantine, data_summary, data_tags."""
    return Pipeline(
        [
            Node(
                build_manifest,
                inputs=["raw_images", "params:ingestion", "params:sites", "params:classes"],
                outputs=_OUTPUTS,
                name="build_manifest",
                tags="ingestion",
            )
        ]
    )


def create_external_pipeline() -> Pipeline:
    """external.raw_images -> build_external_manifest -> external.manifest, and so on."""
    parameters = ["params:ingestion", "params:external", "params:sites", "params:classes"]
    return Pipeline(
        [
            Node(
                build_external_manifest,
                inputs=["raw_images", *parameters],
                outputs=_OUTPUTS,
                name="build_manifest",
                tags="ingestion",
            )
        ],
        namespace="external",
        parameters=set(parameters),
    )
