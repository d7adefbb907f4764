"""Everything the other stages found, on one page; a card beside each model."""

from collections.abc import Iterable

from kedro.pipeline import Node, Pipeline

from busi_pipeline.config.experiments import ENSEMBLE, name_items

from .evidence import DELIVERED, PLOTS
from .nodes import describe_training, write_model_card, write_report

_STAGE = "reporting"

# {name in write_report: dataset}
COMMON = {
    "cross_validation_localizer_metrics": "cross_validation.localizer_metrics",
} | {
    item: item
    for item in (
        "run_provenance",
        "data_summary",
        "data_tags",
        "duplicate_summary",
        "split_summary",
        "duplicate_pairs_plot",
        "burned_in_annotations_plot",
        "comparison_table",
        "comparison_plot",
        "cross_validation_comparisons",
        "cross_validation_comparisons_plot",
        "leakage_table",
        "leakage_plot",
        "external_comparison_plots",
        "localizer_metrics",
        "lesion_boxes_plot",
        "leave_one_site_out_table",
        "leave_one_site_out_plot",
    )
}
# Items of an experiment: {name in write_report: dataset in the experiment's namespace}.
OF_CROSS_VALIDATION = {
    "cross_validation_metrics": "cross_validation.metrics",
    "operating_point": "cross_validation.operating_point",
    "linear_probe_metrics": "cross_validation.linear_probe_metrics",
    "fine_tuning_gain": "cross_validation.fine_tuning_gain",
    **{f"{plot}_plot": f"cross_validation.{plot}_plot" for plot in PLOTS},
}
OF_EXPERIMENT = (
    OF_CROSS_VALIDATION
    | {f"{DELIVERED}{plot}_plot": f"{plot}_plot" for plot in PLOTS}
    | {
        "leave_one_site_out": "leave_one_site_out.sites",
        "leave_one_site_out_plot": "leave_one_site_out.sites_plot",
    }
    | {
        item: item
        for item in (
            "metrics",
            "training_card",
            "model_description",
            "misclassified_plot",
            "localization_metrics",
            "gradcam_gallery_plot",
            "bias_audit",
            "bias_audit_plot",
            "external_results",
            "external_curves",
            "external_subgroups",
            "external_mistakes",
            "external_localizer",
        )
    }
)


# Grad-CAM and the audit of bias are of one network.
OF_JOINED = {
    item: dataset
    for item, dataset in OF_EXPERIMENT.items()
    if item not in ("localization_metrics", "gradcam_gallery_plot", "bias_audit", "bias_audit_plot")
}


def create_pipeline(experiments: Iterable[str], joined: Iterable[str] = ()) -> Pipeline:
    """What was found, as far as it was run -> write_report -> report.

    Args:
        experiments: those of one network.
        joined: those that join others.
    """
    inputs = dict(COMMON)
    inputs |= {
        name: f"params:{name}"
        for name in ("classes", "dataset", "evaluation", "experiments", "ensemble")
    }
    for names, items in (
        (experiments, OF_EXPERIMENT),
        (joined, OF_JOINED),
        ([ENSEMBLE], OF_CROSS_VALIDATION),
    ):
        inputs |= name_items(names, {item: f"{{}}.{name}" for item, name in items.items()})
    return Pipeline(
        [Node(write_report, inputs=inputs, outputs="report", name="write_report", tags=_STAGE)]
    )


def create_experiment_pipeline(experiment: str) -> Pipeline:
    """metrics, operating_point -> describe_training -> training_card -> model_card."""
    return Pipeline(
        [
            Node(
                describe_training,
                inputs=[
                    "params:settings",
                    "training_report",
                    "metrics",
                    "operating_point",
                    "data_summary",
                    "split_summary",
                    "run_provenance",
                    "params:evaluation",
                    "params:dataset",
                    "params:classes",
                ],
                outputs="training_card",
                name="describe_training",
                tags=_STAGE,
            ),
            _make_card_node(["training_card", "external_results"], "write_model_card"),
        ],
        namespace=experiment,
        inputs={"data_summary", "split_summary", "run_provenance"},
        parameters={
            "params:settings": f"params:experiments.{experiment}",
            "params:classes": "params:classes",
            "params:evaluation": "params:evaluation",
            "params:dataset": "params:dataset",
        },
    )


def create_external_pipeline(experiment: str) -> Pipeline:
    """training_card, external.metrics -> model_card, after an external validation."""
    return Pipeline(
        [
            _make_card_node(
                ["training_card", "external_results", "external.metrics"], "update_model_card"
            )
        ],
        namespace=experiment,
    )


def _make_card_node(inputs: list[str], name: str) -> Node:
    return Node(
        write_model_card,
        inputs=inputs,
        outputs="model_card",
        name=name,
        tags=_STAGE,
    )
