"""Answers on the images of a folder, or of a table, for people who read them.

prediction.raw_images, model, journal -> read_images -> prediction.findings
    -> draw_overlays -> overlays;  write_sheet -> sheet
"""

from kedro.pipeline import Node, Pipeline

from .nodes import draw_overlays, list_images, read_images, write_sheet

_STAGE = "prediction"


def create_pipeline() -> Pipeline:
    """raw_images, model -> findings (CSV and Parquet), attribution, overlays, sheet."""
    return Pipeline(
        [
            Node(
                list_images,
                inputs=["raw_images", "params:prediction"],
                outputs="requests",
                name="list_images",
                tags=_STAGE,
            ),
            Node(
                read_images,
                inputs=[
                    *("raw_images", "requests", "model", "journal"),
                    *("params:prediction", "params:deduplication"),
                ],
                outputs=["findings", "findings_parquet", "attribution"],
                name="read_images",
                tags=_STAGE,
            ),
            Node(
                draw_overlays,
                inputs=["raw_images", "findings_parquet", "attribution", "params:privacy"],
                outputs="overlays",
                name="draw_overlays",
                tags=_STAGE,
            ),
            Node(
                write_sheet,
                inputs=["findings_parquet", "attribution", "model", "params:dataset"],
                outputs="sheet",
                name="write_sheet",
                tags=_STAGE,
            ),
        ],
        namespace="prediction",
        parameters={
            f"params:{name}": f"params:{name}"
            for name in ("prediction", "deduplication", "privacy", "dataset")
        },
    )
