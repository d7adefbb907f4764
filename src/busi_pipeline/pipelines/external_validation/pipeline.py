"""A site that no model has seen, from its folder to figures beside those of the model's own test.

external.raw_images -> build_manifest -> external.manifest
    -> duplicate_pairs, and overlap with all that models learned from: refused where there is one
    -> image_groups (deduplication), images_<size> (preprocessing)
    -> <e>.external.predictions (the delivered model, unchanged)
    -> <e>.external.metrics, subgroups, failures, plots, summary -> external_comparison
"""

from collections.abc import Sequence

from kedro.pipeline import Node, Pipeline

from busi_pipeline.config.experiments import name_items

from .nodes import (
    check_overlap,
    describe_model,
    find_site_duplicates,
    predict_site,
    score_external,
)
from .plots import (
    plot_inside_and_outside,
    plot_site_curves,
    plot_subgroups,
    plot_worst_mistakes,
)
from .properties import measure_properties
from .summary import compare_sites, write_summary

_STAGE = "external_validation"


def create_site_pipeline() -> Pipeline:
    """external.manifest -> duplicate_pairs, overlap (refused where models saw the images)."""
    nodes = [
        Node(
            find_site_duplicates,
            inputs=[
                "raw_images",
                "manifest",
                "known_images",
                "known_manifest",
                "params:deduplication",
                "cache",
            ],
            outputs=["duplicate_pairs", "overlap", "overlap_tags"],
            name="find_site_duplicates",
            tags=_STAGE,
        ),
        Node(
            check_overlap,
            inputs=["overlap", "known_split_manifest"],
            outputs="overlap_summary",
            name="check_overlap",
            tags=_STAGE,
        ),
        Node(
            measure_properties,
            inputs=["raw_images", "manifest", "cache"],
            outputs="image_properties",
            name="measure_properties",
            tags=_STAGE,
        ),
    ]
    return Pipeline(
        nodes,
        namespace="external",
        inputs={"cache": "cache"},
        parameters={"params:deduplication": "params:deduplication"},
    )


def create_experiment_pipeline(experiment: str, images: str, locates: bool) -> Pipeline:
    """model, external.images -> external.predictions -> metrics, subgroups, failures, plots.

    Args:
        experiment: its name.
        images: the dataset of what its network sees of the external site.
        locates: whether it looks at lesions: then it is tested with the boxes of readers, too.
    """
    scored = [
        "predictions",
        "metrics",
        "params:settings",
        "params:evaluation",
        "params:classes",
    ]
    of_localizer = ["reader_box_predictions", "lesion_boxes", "params:localization"]
    nodes = [
        Node(
            describe_model,
            inputs="model",
            outputs=["model_record", "model_tags"],
            name="describe_model",
            tags=_STAGE,
        ),
        Node(
            predict_site,
            inputs=[
                "images",
                "manifest",
                "image_groups",
                "overlap",
                "overlap_summary",
                "model",
                "params:settings",
                "params:classes",
            ],
            outputs="predictions",
            name="predict_site",
            tags=_STAGE,
        ),
        Node(
            score_external,
            inputs=[
                "predictions",
                "manifest",
                "image_properties",
                "inside_predictions",
                "model_record",
                "params:settings",
                "params:evaluation",
                "params:external",
                "params:classes",
                *(of_localizer if locates else []),
            ],
            outputs=["metrics", "subgroups", "failures"],
            name="score_external",
            tags=_STAGE,
        ),
        Node(
            plot_site_curves,
            inputs=scored,
            outputs="site_curves_plot",
            name="plot_site_curves",
            namespace="plots",
            tags=_STAGE,
        ),
        Node(
            plot_subgroups,
            inputs=["subgroups", "metrics", "params:settings"],
            outputs="subgroups_plot",
            name="plot_subgroups",
            namespace="plots",
            tags=_STAGE,
        ),
        Node(
            plot_worst_mistakes,
            inputs=[
                "raw_images",
                "manifest",
                "predictions",
                "params:settings",
                "params:privacy",
                "params:classes",
            ],
            outputs="worst_mistakes_plot",
            name="plot_worst_mistakes",
            namespace="plots",
            tags=_STAGE,
        ),
        Node(
            write_summary,
            inputs=[
                "metrics",
                "failures",
                "params:settings",
                "params:dataset",
                "params:external",
                "params:classes",
            ],
            outputs="summary",
            name="write_summary",
            tags=_STAGE,
        ),
    ]
    if locates:
        nodes.append(
            Node(
                predict_site,
                inputs=[
                    "reader_box_images",
                    "manifest",
                    "image_groups",
                    "overlap",
                    "overlap_summary",
                    "model",
                    "params:settings",
                    "params:classes",
                ],
                outputs="reader_box_predictions",
                name="predict_site_with_reader_boxes",
                tags=_STAGE,
            )
        )
    of_site = (
        "raw_images",
        "manifest",
        "image_groups",
        "overlap",
        "overlap_summary",
        "image_properties",
    )
    shared = ("classes", "dataset", "evaluation", "external", "privacy")
    return Pipeline(
        nodes,
        namespace=f"{experiment}.external",
        inputs={
            "model": f"{experiment}.model",
            "inside_predictions": f"{experiment}.predictions",
            "images": images,
            **{name: f"external.{name}" for name in of_site},
        },
        parameters={
            "params:settings": f"params:experiments.{experiment}",
            **{f"params:{name}": f"params:{name}" for name in shared},
            **({"params:localization": "params:localization"} if locates else {}),
        },
    )


def create_comparison_pipeline(experiments: Sequence[str]) -> Pipeline:
    """metrics of all experiments -> external_comparison, external_comparison_plot."""
    inputs = name_items(
        experiments, {"settings": "params:experiments.{}", "metrics": "{}.external.metrics"}
    )
    return Pipeline(
        [
            Node(
                compare_sites,
                inputs=inputs,
                outputs="external_comparison",
                name="compare_sites",
                tags=_STAGE,
            ),
            Node(
                plot_inside_and_outside,
                inputs=["external_comparison", "params:classes"],
                outputs="external_comparison_plot",
                name="plot_inside_and_outside",
                tags=_STAGE,
            ),
        ]
    )
