"""What else could give the label away, out of fold: an audit of one experiment."""

from kedro.pipeline import Node, Pipeline

from busi_pipeline.pipelines.augmentation.nodes import plan_still_views
from busi_pipeline.pipelines.cross_validation.pipeline import make_probe_node
from busi_pipeline.pipelines.training.pipeline import list_feature_nodes

from .hiding import hide_lesions
from .nodes import audit_shortcuts, draw_audit, draw_marks, find_marks, judge_by_box

_STAGE = "shortcuts"


def create_pipeline() -> Pipeline:
    """raw_images, manifest -> find_marks -> image_marks, marks_montage."""
    return Pipeline(
        [
            Node(
                find_marks,
                inputs=["raw_images", "manifest"],
                outputs="image_marks",
                name="find_marks",
                tags=_STAGE,
            ),
            Node(
                draw_marks,
                inputs=["raw_images", "manifest", "image_marks"],
                outputs="marks_montage",
                name="draw_marks",
                tags=_STAGE,
            ),
        ]
    )


def create_size_pipeline(image_size: int) -> Pipeline:
    """images_<size>, masks_<size> -> hide_lesions_<size> -> hidden_images_<size>."""
    return Pipeline(
        [
            Node(
                hide_lesions,
                inputs=[f"images_{image_size}", f"masks_{image_size}"],
                outputs=f"hidden_images_{image_size}",
                name=f"hide_lesions_{image_size}",
                tags=_STAGE,
            ),
        ]
    )


def create_experiment_pipeline(experiment: str, image_size: int) -> Pipeline:
    """hidden_images -> hidden_features -> the probe on them; with cv_predictions -> the audit."""
    hidden, masks = f"hidden_images_{image_size}", f"masks_{image_size}"
    return Pipeline(
        [
            Node(
                plan_still_views,
                inputs=["fold_manifest", "settings"],
                outputs="hidden_plan",
                name="plan_still_views",
                tags=_STAGE,
            ),
            *list_feature_nodes(hidden, "hidden_plan", tags=_STAGE, of="hidden_"),
            make_probe_node("fold_manifest", "hidden_", tags=_STAGE, features="hidden_"),
            Node(
                judge_by_box,
                inputs=[masks, "fold_manifest", "params:cross_validation"],
                outputs="box_scores",
                name="judge_by_box",
                tags=_STAGE,
            ),
            Node(
                audit_shortcuts,
                inputs=[
                    "cv_predictions",
                    "cv_probe_predictions",
                    "hidden_probe_predictions",
                    "box_scores",
                    "image_marks",
                    "params:judging",
                ],
                outputs="shortcut_audit",
                name="audit_shortcuts",
                tags=_STAGE,
            ),
            Node(
                draw_audit,
                inputs=["shortcut_audit", "settings"],
                outputs="shortcut_plot",
                name="draw_audit",
                tags=_STAGE,
            ),
        ],
        namespace=experiment,
        inputs={hidden, masks, "fold_manifest", "image_marks", "pretrained_weights"},
        parameters={"params:classes", "params:judging", "params:cross_validation"},
    )
