"""Everything the other stages found, on one page; a card beside each model."""

from collections.abc import Iterable

from kedro.pipeline import Node, Pipeline

from busi_pipeline.config import allow_dots
from busi_pipeline.experiments import ENSEMBLE, name_item

from .nodes import write_model_card, write_report

COMMON = (
    "data_summary",
    "copy_summary",
    "split_summary",
    "copy_montage",
    "marks_montage",
    "comparison_table",
    "comparison_plot",
    "cv_pairs",
    "cv_pairs_plot",
    "leakage_report",
    "leakage_plot",
)
OF_ROW = (
    "metrics",
    "cv_metrics",
    "cv_gain",
    "explanation",
    "shortcut_audit",
    "cv_confusion_matrix",
    "cv_ranking_curves",
    "cv_calibration",
    "cv_decisions",
    "heat_gallery",
    "shortcut_plot",
)
OF_ENSEMBLE = tuple(item for item in OF_ROW if item.startswith("cv_"))


def create_pipeline(experiments: Iterable[str]) -> Pipeline:
    """What was found, as far as it was run -> write_report -> report."""
    inputs = {item: item for item in COMMON} | {"judging": "params:judging"}
    for row, items in [*((row, OF_ROW) for row in experiments), (ENSEMBLE, OF_ENSEMBLE)]:
        inputs |= {name_item(row, item): f"{row}.{item}" for item in items}
    with allow_dots():
        return Pipeline(
            [
                Node(
                    write_report,
                    inputs=inputs,
                    outputs="report",
                    name="write_report",
                    tags="report",
                )
            ]
        )


def create_experiment_pipeline(experiment: str) -> Pipeline:
    """metrics, decision -> write_model_card -> model_card."""
    return Pipeline(
        [
            Node(
                write_model_card,
                inputs=[
                    "settings",
                    "training_report",
                    "metrics",
                    "decision",
                    "data_summary",
                    "split_summary",
                    "params:judging",
                    "params:classes",
                ],
                outputs="model_card",
                name="write_model_card",
                tags="report",
            )
        ],
        namespace=experiment,
        inputs={"data_summary", "split_summary"},
        parameters={"params:classes", "params:judging"},
    )
