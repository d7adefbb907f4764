"""The frozen part of a network, once over every augmented image."""

from kedro.pipeline import Node, Pipeline

from .nodes import extract_features, pool_features

_STAGE = "feature_extraction"


def create_pipeline(
    experiment: str, images: str, evaluation: str | None = None, prefix: str = ""
) -> Pipeline:
    """images, augmentation_plan -> features -> pooled_features, in the experiment's namespace.

    Args:
        experiment: name of the experiment.
        images: dataset of the images.
        evaluation: the part of the namespace below the experiment; None for the hold-out split.
        prefix: before the names of plan and features, where one namespace has several.
    """
    given = ["params:settings", "pretrained_weights", "params:classes", "cache"]
    return Pipeline(
        [
            Node(
                extract_features,
                inputs=["images", f"{prefix}augmentation_plan", *given],
                outputs=f"{prefix}features",
                name=f"extract_{prefix}features",
                tags=_STAGE,
            ),
            Node(
                pool_features,
                inputs=[f"{prefix}features", *given],
                outputs=f"{prefix}pooled_features",
                name=f"pool_{prefix}features",
                tags=_STAGE,
            ),
        ],
        namespace=f"{experiment}.{evaluation}" if evaluation else experiment,
        inputs={"images": images, "pretrained_weights": "pretrained_weights", "cache": "cache"},
        parameters={
            "params:settings": f"params:experiments.{experiment}",
            "params:classes": "params:classes",
        },
    )
