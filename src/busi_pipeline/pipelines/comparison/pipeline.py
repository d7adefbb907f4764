"""Which one: the latest run of every experiment beside the published work."""

from collections.abc import Iterable, Mapping

from kedro.pipeline import Node, Pipeline

from busi_pipeline.config import allow_dots

from .nodes import compare_experiments, draw_comparison
from .pairs import compare_rows, draw_pairs


def create_pipeline(experiments: Iterable[str]) -> Pipeline:
    """<experiment>.metrics, <experiment>.predictions of all experiments -> tables and plots."""
    rows = list(experiments)
    metrics = {name: f"{name}.metrics" for name in rows}
    predictions = {name: f"{name}.predictions" for name in rows}
    with allow_dots():
        return Pipeline(_list_nodes(metrics)) + create_pairing_pipeline(predictions, "pairs")


def create_pairing_pipeline(
    predictions: Mapping[str, str], pairs: str, stage: str = "comparison"
) -> Pipeline:
    """{row: dataset of its predictions} -> table and plot of every two of them, paired."""
    with allow_dots():
        return Pipeline(
            [
                Node(
                    compare_rows,
                    inputs={"judging": "params:judging", **predictions},
                    outputs=pairs,
                    name=f"compare_{pairs}",
                    tags=stage,
                ),
                Node(
                    draw_pairs,
                    inputs=pairs,
                    outputs=f"{pairs}_plot",
                    name=f"draw_{pairs}",
                    tags=stage,
                ),
            ]
        )


def _list_nodes(metrics: dict[str, str]) -> list[Node]:
    return [
        Node(
            compare_experiments,
            inputs=metrics,
            outputs="comparison_table",
            name="compare_experiments",
            tags="comparison",
        ),
        Node(
            draw_comparison,
            inputs="comparison_table",
            outputs="comparison_plot",
            name="draw_comparison",
            tags="comparison",
        ),
    ]
