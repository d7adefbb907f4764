"""What an experiment is worth: the finished model on images it was not trained on."""

from collections.abc import Callable

from kedro.pipeline import Node, Pipeline
from matplotlib.figure import Figure

from .decision_plots import draw_calibration, draw_decisions
from .nodes import deliver_model, judge_predictions, predict_images, score_predictions
from .plots import (
    draw_confusion_matrix,
    draw_learning_curves,
    draw_ranking_curves,
    draw_worst_mistakes,
)


def create_experiment_pipeline(experiment: str, image_size: int) -> Pipeline:
    """network, images -> raw_predictions -> predictions, decision -> model, scores and figures."""
    images = f"images_{image_size}"
    plots: list[tuple[Callable[..., Figure], list[str], str]] = [
        (draw_confusion_matrix, ["predictions", "settings", "params:classes"], "confusion_matrix"),
        (
            draw_ranking_curves,
            ["predictions", "metrics", "settings", "params:classes"],
            "ranking_curves",
        ),
        (
            draw_calibration,
            ["predictions", "metrics", "settings", "params:classes"],
            "calibration",
        ),
        (
            draw_decisions,
            [
                "predictions",
                "decision",
                "metrics",
                "settings",
                "params:judging",
                "params:classes",
            ],
            "decisions",
        ),
        (
            draw_learning_curves,
            ["history", "training_report", "settings"],
            "learning_curves",
        ),
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
                inputs=["network", images, "split_manifest", "settings", "params:classes"],
                outputs="raw_predictions",
                name="predict_images",
                tags="evaluation",
            ),
            Node(
                judge_predictions,
                inputs=["raw_predictions", "params:judging", "params:classes"],
                outputs=["predictions", "decision"],
                name="judge_predictions",
                tags="evaluation",
            ),
            Node(
                deliver_model,
                inputs=["network", "decision"],
                outputs="model",
                name="deliver_model",
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
                    "params:judging",
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
        parameters={"params:classes", "params:judging"},
    )
