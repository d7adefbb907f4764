"""mlflow_outbox -> delivered_runs."""

from kedro.pipeline import Node, Pipeline

from .nodes import deliver_waiting


def create_pipeline() -> Pipeline:
    """Send what waits for an MLflow server."""
    return Pipeline(
        [
            Node(
                deliver_waiting,
                inputs="mlflow_outbox",
                outputs="delivered_runs",
                name="deliver_waiting",
                tags="delivery",
            )
        ]
    )
