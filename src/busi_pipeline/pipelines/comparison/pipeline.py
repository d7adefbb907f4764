"""Which one: the latest run of every experiment beside the published work."""

import warnings
from collections.abc import Iterable

from kedro.pipeline import Node, Pipeline

from .nodes import compare_experiments, draw_comparison


def create_pipeline(experiments: Iterable[str]) -> Pipeline:
    """<experiment>.metrics of all experiments -> comparison_table, comparison_plot."""
    metrics = {name: f"{name}.metrics" for name in experiments}
    with warnings.catch_warnings():
        # Kedro wants dots from namespaces alone. These are: they name what the experiments made.
        warnings.filterwarnings("ignore", message="One or more dataset names contain '.'")
        return Pipeline(_list_nodes(metrics))


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
