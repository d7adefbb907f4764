"""Where in an image the score comes from: Grad-CAM of the test images, beside the masks."""

from kedro.pipeline import Node, Pipeline

from .gradcam_nodes import compute_gradcam_maps
from .nodes import score_localization
from .plots import plot_gradcam_gallery

_STAGE = "explanation"


def create_pipeline(experiment: str, images: str, masks: str) -> Pipeline:
    """trained_model, images, predictions -> gradcam -> plot; with masks -> localization_metrics."""
    return Pipeline(
        [
            Node(
                compute_gradcam_maps,
                inputs=[
                    "trained_model",
                    "images",
                    "predictions",
                    "params:settings",
                    "params:classes",
                    "cache",
                ],
                outputs="gradcam",
                name="compute_gradcam_maps",
                tags=_STAGE,
            ),
            Node(
                score_localization,
                inputs=["gradcam", "masks", "predictions", "params:settings", "params:evaluation"],
                outputs=["localization_table", "localization_metrics"],
                name="score_localization",
                tags=_STAGE,
            ),
            Node(
                plot_gradcam_gallery,
                inputs=[
                    "gradcam",
                    "images",
                    "masks",
                    "predictions",
                    "params:settings",
                    "params:privacy",
                    "params:classes",
                ],
                outputs="gradcam_gallery_plot",
                name="plot_gradcam_gallery",
                namespace="plots",
                tags=_STAGE,
            ),
        ],
        namespace=experiment,
        inputs={"images": images, "masks": masks, "cache": "cache"},
        parameters={
            "params:settings": f"params:experiments.{experiment}",
            "params:classes": "params:classes",
            "params:evaluation": "params:evaluation",
            "params:privacy": "params:privacy",
        },
    )
