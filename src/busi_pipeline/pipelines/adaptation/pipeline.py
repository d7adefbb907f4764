"""A delivered model is fitted to the external site by labelled images of it.

<e>.external.predictions, <e>.model -> <e>.adaptation.curve, plot
    -> <e>.adaptation.model (a new version), predictions, metrics
"""

from kedro.pipeline import Node, Pipeline

from .nodes import adapt_model, plot_adaptation, trace_adaptation

_STAGE = "adaptation"


def create_pipeline(experiment: str) -> Pipeline:
    """external.predictions, model -> adaptation.curve, adaptation.model, metrics."""
    parameters = ("evaluation", "adaptation", "classes")
    return Pipeline(
        [
            Node(
                trace_adaptation,
                inputs=[
                    "site_predictions",
                    "parent",
                    "params:evaluation",
                    "params:adaptation",
                    "params:classes",
                ],
                outputs="curve",
                name="trace_adaptation",
                tags=_STAGE,
            ),
            Node(
                plot_adaptation,
                inputs=[
                    "curve",
                    "site_predictions",
                    "params:settings",
                    "params:evaluation",
                    "params:classes",
                ],
                outputs="curve_plot",
                name="plot_adaptation",
                tags=_STAGE,
            ),
            Node(
                adapt_model,
                inputs=[
                    "site_predictions",
                    "manifest",
                    "parent",
                    "params:settings",
                    "params:evaluation",
                    "params:adaptation",
                    "params:classes",
                ],
                outputs=["model", "predictions", "metrics"],
                name="adapt_model",
                tags=_STAGE,
            ),
        ],
        namespace=f"{experiment}.adaptation",
        inputs={
            "site_predictions": f"{experiment}.external.predictions",
            "parent": f"{experiment}.model",
            "manifest": "external.manifest",
        },
        parameters={
            "params:settings": f"params:experiments.{experiment}",
            **{f"params:{name}": f"params:{name}" for name in parameters},
        },
    )
