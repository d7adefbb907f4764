"""What an experiment is worth: the finished model on images it was not trained on."""

from collections.abc import Callable

from kedro.pipeline import Node, Pipeline
from matplotlib.figure import Figure

from .nodes import predict_images, score_predictions
from .plots import (
    draw_confusion_matrix,
    draw_learning_curves,
    draw_ranking_curves,
    draw_worst_mistakes,
)


def create_experiment_pipeline(experiment: str, image_size: int) -> Pipeline:
    """model, images -> predict_images -> predictions -> scores and figures."""
    images = f"images_{image_size}"
    plots: list[tuple[Callable[..., Figure], list[str], str]] = [
        (draw_confusion_matrix, ["predictions", "settings", "params:classes"], "confusion_matrix"),
        (draw_ranking_curves, ["predictions", "settings", "params:classes"], "ranking_curves"),
        (draw_learning_curves, ["history", "settings"], "learning_curves"),
        (
            draw_worst_mistakes,
            ["predictions", images, "settings", "params:classes"],
            "worst_mistakes",
        ),
    ]
    return Pipeline(
        [
            Node(
                predict_images,
                inputs=["model", images, "split_manifest", "settings", "params:classes"],
                outputs="predictions",
                name="predict_images",
                tags="evaluation",
            ),
            Node(
                score_predictions,
                inputs=[
                    "predictions",
                    "settings",
                    "training_report",
                    "training_tags",
                    "split_tags",
                    "params:classes",
                ],
                outputs=["metrics", "class_table"],
                name="score_predictions",
                tags="evaluation",
            ),
            *(
                Node(draw, inputs=inputs, outputs=figure, name=draw.__name__, tags="evaluation")
                for draw, inputs, figure in plots
            ),
        ],
        namespace=experiment,
        inputs={"split_manifest", "split_tags", images},
        parameters={"params:classes"},
    )
