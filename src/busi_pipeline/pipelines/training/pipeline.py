"""A network learns: one template, as many experiments as there are rows."""

from kedro.pipeline import Node, Pipeline

from .features import extract_features, pool_features
from .nodes import train_model


def create_experiment_pipeline(experiment: str, image_size: int) -> Pipeline:
    """images, augmentation_plan -> extract_features -> features -> train_model -> network, history.
                                                           -> pool_features ->

    The frozen part of the network runs once over every view; the trained part learns from that.
    `kept_training` is what `train_model` handed over in the run before.
    """
    images = f"images_{image_size}"
    return Pipeline(
        [
            *list_feature_nodes(images, "augmentation_plan", tags="training"),
            Node(
                train_model,
                inputs=[
                    "features",
                    "pooled_features",
                    "split_manifest",
                    "settings",
                    "pretrained_weights",
                    "params:classes",
                    "kept_training",
                ],
                outputs=["network", "history", "training_report", "training_tags"],
                name="train_model",
                tags="training",
            ),
        ],
        namespace=experiment,
        inputs={"split_manifest", "pretrained_weights", images},
        parameters={"params:classes"},
    )


def list_feature_nodes(images: str, plan: str, *, tags: str, of: str = "") -> list[Node]:
    """images, a plan of their views -> <of>features, <of>pooled_features of the frozen base."""
    features = f"{of}features"
    given = ["settings", "pretrained_weights", "params:classes"]
    return [
        Node(
            extract_features,
            inputs=[images, plan, *given],
            outputs=features,
            name=f"extract_{features}",
            tags=tags,
        ),
        Node(
            pool_features,
            inputs=[features, *given],
            outputs=f"{of}pooled_features",
            name=f"pool_{features}",
            tags=tags,
        ),
    ]
