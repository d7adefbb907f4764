"""What else gives the label away, out of fold: an audit of one experiment."""

from kedro.pipeline import Node, Pipeline

from busi_pipeline.imaging.annotation_search import find_burned_in_annotations
from busi_pipeline.imaging.occlusion import occlude_lesions

from .nodes import audit_bias, predict_from_bounding_box
from .plots import plot_bias_audit, plot_burned_in_annotations

_STAGE = "bias_audit"


def create_annotations_pipeline() -> Pipeline:
    """raw_images, manifest -> burned_in_annotations, burned_in_annotations_plot."""
    return Pipeline(
        [
            Node(
                find_burned_in_annotations,
                inputs=["raw_images", "manifest", "cache"],
                outputs="burned_in_annotations",
                name="find_burned_in_annotations",
                tags=_STAGE,
            ),
            Node(
                plot_burned_in_annotations,
                inputs=["raw_images", "manifest", "burned_in_annotations", "params:privacy"],
                outputs="burned_in_annotations_plot",
                name="plot_burned_in_annotations",
                tags=_STAGE,
            ),
        ]
    )


def create_images_pipeline(images: str, masks: str, occluded_images: str) -> Pipeline:
    """images, masks -> occlude_lesions -> occluded_images; all three are names of datasets."""
    namespace, _, output = occluded_images.rpartition(".")
    return Pipeline(
        [
            Node(
                occlude_lesions,
                inputs=["images", "masks", "cache"],
                outputs=output,
                name=output.replace("occluded_images", "occlude_lesions"),
                tags=_STAGE,
            ),
        ],
        # Shared images are prepared with the others, after the audit of raw images.
        namespace=namespace or "preprocessing",
        prefix_datasets_with_namespace=bool(namespace),
        inputs={"images": images, "masks": masks, "cache": "cache"},
    )


def create_experiment_pipeline(experiment: str, masks: str) -> Pipeline:
    """Predictions with the lesion visible and occluded, annotations -> bias_audit and its plot."""
    of_folds = f"{experiment}.cross_validation"
    return Pipeline(
        [
            Node(
                predict_from_bounding_box,
                inputs=["masks", "fold_manifest", "params:cross_validation", "params:classes"],
                outputs="bounding_box_scores",
                name="predict_from_bounding_box",
                tags=_STAGE,
            ),
            Node(
                audit_bias,
                inputs=[
                    "cross_validation_predictions",
                    "linear_probe_predictions",
                    "occluded_linear_probe_predictions",
                    "bounding_box_scores",
                    "burned_in_annotations",
                    "params:evaluation",
                    "params:classes",
                ],
                outputs="bias_audit",
                name="audit_bias",
                tags=_STAGE,
            ),
            Node(
                plot_bias_audit,
                inputs=["bias_audit", "params:settings", "params:classes"],
                outputs="bias_audit_plot",
                name="plot_bias_audit",
                namespace="plots",
                tags=_STAGE,
            ),
        ],
        namespace=experiment,
        inputs={
            "masks": masks,
            "fold_manifest": "cross_validation.fold_manifest",
            "burned_in_annotations": "burned_in_annotations",
            "cross_validation_predictions": f"{of_folds}.predictions",
            "linear_probe_predictions": f"{of_folds}.linear_probe_predictions",
            "occluded_linear_probe_predictions": f"{of_folds}.occluded_linear_probe_predictions",
        },
        parameters={
            "params:settings": f"params:experiments.{experiment}",
            "params:classes": "params:classes",
            "params:evaluation": "params:evaluation",
            "params:cross_validation": "params:cross_validation",
        },
    )
