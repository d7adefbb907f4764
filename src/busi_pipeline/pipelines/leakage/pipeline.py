"""How far duplicates raise the scores: the same experiment on random and on grouped folds."""

from collections.abc import Iterable

from kedro.pipeline import Node, Pipeline

from .nodes import measure_leakage, summarise_leakage
from .plots import plot_leakage

_STAGE = "leakage"


def create_experiment_pipeline(experiment: str) -> Pipeline:
    """Predictions on grouped and on random folds -> <experiment>.leakage."""
    return Pipeline(
        [
            Node(
                measure_leakage,
                inputs={
                    "grouped": f"{experiment}.cross_validation.predictions",
                    "grouped_linear_probe": (
                        f"{experiment}.cross_validation.linear_probe_predictions"
                    ),
                    "random": f"{experiment}.random_folds.predictions",
                    "random_linear_probe": (f"{experiment}.random_folds.linear_probe_predictions"),
                    "evaluation": "params:evaluation",
                    "classes": "params:classes",
                },
                outputs=f"{experiment}.leakage",
                name="measure_leakage",
                namespace=experiment,
                tags=_STAGE,
            )
        ]
    )


def create_summary_pipeline(experiments: Iterable[str]) -> Pipeline:
    """<experiment>.leakage of all experiments -> leakage_table, leakage_plot."""
    return Pipeline(
        [
            Node(
                summarise_leakage,
                inputs={name: f"{name}.leakage" for name in experiments},
                outputs="leakage_table",
                name="summarise_leakage",
                tags=_STAGE,
            ),
            Node(
                plot_leakage,
                inputs=["leakage_table", "params:experiments"],
                outputs="leakage_plot",
                name="plot_leakage",
                tags=_STAGE,
            ),
        ]
    )
