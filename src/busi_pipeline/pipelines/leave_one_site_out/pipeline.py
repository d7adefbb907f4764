"""Leave one site out: predictions of all folds -> a table and a plot, beside each site's ceiling.

The trainings are nodes of `training`, in `<e>.leave_one_site_out.<site>` (learned from all other
sites) and `<e>.within_site.<site>_fold_<n>` (learned from the site itself).
"""

from collections.abc import Sequence

from kedro.pipeline import Node, Pipeline

from busi_pipeline.config.experiments import name_item
from busi_pipeline.learning.folds import join_tables

from .nodes import plot_sites, refuse_single_site, score_sites

_STAGE = "leave_one_site_out"
LEAVE_OUT, WITHIN = "leave_one_site_out", "within_site"


def create_refusal_pipeline() -> Pipeline:
    """For a session of one site: says that there is none to leave out."""
    return Pipeline(
        [
            Node(
                refuse_single_site,
                inputs="params:ingestion",
                outputs="leave_one_site_out_table",
                name="refuse_single_site",
                tags=_STAGE,
            )
        ]
    )


def create_experiment_pipeline(experiment: str) -> Pipeline:
    """predictions of both kinds -> sites, sites_plot."""
    inputs = {"fold_manifest": "fold_manifest"}
    outer = {"fold_manifest": "cross_validation.fold_manifest"}
    for item, evaluation in (("left_out", LEAVE_OUT), ("own_site", WITHIN)):
        for model, dataset in (
            ("fine_tuned", "predictions"),
            ("linear_probe", "linear_probe_predictions"),
        ):
            name = name_item(model, item)
            inputs[name] = name
            outer[name] = f"{experiment}.{evaluation}.{dataset}"
    return Pipeline(
        [
            Node(
                score_sites,
                inputs=inputs
                | {
                    "settings": "params:settings",
                    "evaluation": "params:evaluation",
                    "classes": "params:classes",
                },
                outputs="sites",
                name="score_sites",
                tags=_STAGE,
            ),
            Node(
                plot_sites,
                inputs=["sites", "params:classes"],
                outputs="sites_plot",
                name="plot_sites",
                tags=_STAGE,
            ),
        ],
        namespace=f"{experiment}.{LEAVE_OUT}",
        inputs=outer,
        parameters={
            "params:settings": f"params:experiments.{experiment}",
            "params:evaluation": "params:evaluation",
            "params:classes": "params:classes",
        },
    )


def create_summary_pipeline(experiments: Sequence[str]) -> Pipeline:
    """sites of all experiments -> leave_one_site_out_table, leave_one_site_out_plot."""
    return Pipeline(
        [
            Node(
                join_tables,
                inputs={name: f"{name}.{LEAVE_OUT}.sites" for name in experiments},
                outputs="leave_one_site_out_table",
                name="join_tables",
                tags=_STAGE,
            ),
            Node(
                plot_sites,
                inputs=["leave_one_site_out_table", "params:classes"],
                outputs="leave_one_site_out_plot",
                name="plot_sites",
                tags=_STAGE,
            ),
        ]
    )
