"""Which one: the latest run of every experiment beside the published work."""

from collections.abc import Iterable, Mapping

from kedro.pipeline import Node, Pipeline

from busi_pipeline.stats.comparison import compare_predictions

from .nodes import compare_experiments
from .plots import plot_model_comparison, plot_pairwise_comparisons

_STAGE = "model_comparison"


def create_pipeline(experiments: Iterable[str]) -> Pipeline:
    """<experiment>.metrics, <experiment>.predictions of all experiments -> tables and plots."""
    names = list(experiments)
    tables = Pipeline(
        [
            Node(
                compare_experiments,
                inputs={
                    "classes": "params:classes",
                    "dataset": "params:dataset",
                    "data_summary": "data_summary",
                    **{name: f"{name}.metrics" for name in names},
                },
                outputs="comparison_table",
                name="compare_experiments",
                tags=_STAGE,
            ),
            Node(
                plot_model_comparison,
                inputs=["comparison_table", "params:classes"],
                outputs="comparison_plot",
                name="plot_model_comparison",
                tags=_STAGE,
            ),
        ]
    )
    predictions = {name: f"{name}.predictions" for name in names}
    return tables + create_pairwise_pipeline(predictions, "pairwise_comparisons")


def create_pairwise_pipeline(
    predictions: Mapping[str, str], output: str, stage: str = _STAGE
) -> Pipeline:
    """{experiment: dataset of its predictions} -> <output>, <output>_plot: every two, paired."""
    return Pipeline(
        [
            Node(
                compare_predictions,
                inputs={
                    "evaluation": "params:evaluation",
                    "classes": "params:classes",
                    **predictions,
                },
                outputs=output,
                name=f"compute_{output}",
                tags=stage,
            ),
            Node(
                plot_pairwise_comparisons,
                inputs=[output, "params:experiments", "params:ensemble"],
                outputs=f"{output}_plot",
                name=f"plot_{output}",
                tags=stage,
            ),
        ]
    )
