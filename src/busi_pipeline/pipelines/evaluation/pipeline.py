"""How good an experiment is: one template for the hold-out split, the folds, the ensemble.

uncalibrated_predictions -> calibrate_predictions -> predictions, operating_point
    -> score_predictions -> metrics, per_class_metrics; plots
"""

from collections.abc import Callable, Mapping, Sequence

from kedro.pipeline import Node, Pipeline
from matplotlib.figure import Figure

from busi_pipeline.config.experiments import BAG, ENSEMBLE, name_items
from busi_pipeline.stats.comparison import compare_predictions

from .decision_plots import plot_calibration, plot_decision_curve
from .nodes import (
    Calibrated,
    average_experiments,
    average_predictions,
    calibrate_bag,
    calibrate_linear_probe,
    calibrate_predictions,
    deliver_model,
    predict_images,
    score_linear_probe,
    score_predictions,
)
from .plots import (
    plot_confusion_matrix,
    plot_learning_curves,
    plot_misclassified,
    plot_roc_pr_curves,
)

_STAGE = "evaluation"
_PARAMETERS = {"params:evaluation": "params:evaluation", "params:classes": "params:classes"}


def create_hold_out_pipeline(
    experiment: str, images: str, locates: bool, is_joined: bool = False
) -> Pipeline:
    """trained_model, images -> uncalibrated_predictions -> scores and plots; -> model.

    Args:
        experiment: its name.
        images: the dataset of what its network sees.
        locates: whether the localizer is part of the delivered model.
        is_joined: whether it joins others, so that there are no learning curves of its own.
    """
    nodes = [
        *_list_nodes(),
        Node(
            predict_images,
            inputs=[
                "trained_model",
                "images",
                "split_manifest",
                "params:settings",
                "params:classes",
            ],
            outputs="uncalibrated_predictions",
            name="predict_images",
            tags=_STAGE,
        ),
    ]
    if not is_joined:
        nodes.append(
            Node(
                plot_learning_curves,
                inputs=["history", "training_report", "params:settings"],
                outputs="learning_curves_plot",
                name="plot_learning_curves",
                namespace="plots",
                tags=_STAGE,
            )
        )
    given = {"split_manifest": "split_manifest", "split_tags": "split_tags"}
    given |= {"localizer": "localizer"} if locates else {}
    return _deliver(experiment, nodes, given, {"images": images})


def create_bag_pipeline(experiment: str, members: Sequence[str], locates: bool) -> Pipeline:
    """<member>.bag.uncalibrated_predictions, trained_model -> scores out of fold, plots; -> model.

    Args:
        experiment: that joins the members' folds.
        members: names of experiments.
        locates: whether the localizer is part of the delivered model.
    """
    predictions = name_items(members, {"predictions": f"{{}}.{BAG}.uncalibrated_predictions"})
    nodes = [
        *_list_nodes(calibrate_bag),
        Node(
            average_predictions,
            inputs={"classes": "params:classes"} | {name: name for name in predictions},
            outputs="uncalibrated_predictions",
            name="average_predictions",
            tags=_STAGE,
        ),
    ]
    folds = "cross_validation"
    given = {"split_manifest": f"{folds}.fold_manifest", "split_tags": f"{folds}.fold_tags"}
    given |= {"localizer": f"{folds}.localizer"} if locates else {}
    return _deliver(experiment, nodes, given, predictions)


def _deliver(
    experiment: str,
    nodes: Sequence[Node],
    given: Mapping[str, str],
    others: Mapping[str, str],
) -> Pipeline:
    """Nodes that predict and score, and with them those that show mistakes and deliver the model.

    Args:
        experiment: its name.
        nodes: in the experiment's namespace.
        given: {input of the model: dataset}: where it comes from, and what lies beside it.
        others: {input of the nodes: dataset}.
    """
    given = {"manifest": "manifest", "data_tags": "data_tags", **given}
    delivered = ["trained_model", "operating_point", "training_tags", *given]
    delivery = [
        Node(
            deliver_model,
            inputs={name: name for name in delivered}
            | {"settings": "params:settings", "classes": "params:classes"},
            outputs="model",
            name="deliver_model",
            tags=_STAGE,
        ),
        Node(
            plot_misclassified,
            inputs=[
                "predictions",
                "raw_images",
                "manifest",
                "params:settings",
                "params:privacy",
                "params:classes",
            ],
            outputs="misclassified_plot",
            name="plot_misclassified",
            namespace="plots",
            tags=_STAGE,
        ),
    ]
    return Pipeline(
        [*nodes, *delivery],
        namespace=experiment,
        inputs={"raw_images": "raw_images", **given, **others},
        parameters={
            "params:settings": f"params:experiments.{experiment}",
            "params:privacy": "params:privacy",
            **_PARAMETERS,
        },
    )


def create_cross_validation_pipeline(experiment: str, evaluation: str) -> Pipeline:
    """Out-of-fold predictions of the networks and of the linear probe -> scores and plots.

    Args:
        experiment: name of the experiment.
        evaluation: `cross_validation` or `random_folds`.
    """
    return Pipeline(
        [*_list_nodes(), *_list_linear_probe_nodes()],
        namespace=f"{experiment}.{evaluation}",
        inputs={"split_tags": f"{evaluation}.fold_tags"},
        parameters={"params:settings": f"params:experiments.{experiment}", **_PARAMETERS},
    )


def create_calibration_pipeline(experiment: str, evaluation: str) -> Pipeline:
    """Out-of-fold predictions, calibrated, for those who score them site by site."""
    return Pipeline(
        [_make_calibration_node(), _make_linear_probe_node()],
        namespace=f"{experiment}.{evaluation}",
        parameters=_PARAMETERS,
    )


def create_occluded_pipeline(experiment: str) -> Pipeline:
    """Predictions of the linear probe with the lesion occluded, calibrated as the others are."""
    return Pipeline(
        [_make_linear_probe_node("occluded_")],
        namespace=f"{experiment}.cross_validation",
        parameters=_PARAMETERS,
    )


def create_members_pipeline(experiment: str, evaluation: str, members: Sequence[str]) -> Pipeline:
    """uncalibrated_predictions of the members on the same folds -> their mean.

    Args:
        experiment: that joins them.
        evaluation: `cross_validation`, `leave_one_site_out`, `within_site`.
        members: names of experiments.
    """
    place = f"{experiment}.{evaluation}"
    return Pipeline(_list_averages(members, evaluation, place, {}, namespace=place))


def create_ensemble_pipeline(experiments: Sequence[str]) -> Pipeline:
    """uncalibrated_predictions of all experiments -> those of their ensemble -> scores, plots."""
    place = f"{ENSEMBLE}.cross_validation"
    by_backbone = {"settings": "params:experiments.{}"}
    return Pipeline(
        _list_averages(experiments, "cross_validation", place, by_backbone, namespace=place)
    ) + Pipeline(
        [*_list_nodes(), *_list_linear_probe_nodes()],
        namespace=place,
        inputs={"split_tags": "cross_validation.fold_tags"},
        parameters={"params:settings": f"params:{ENSEMBLE}", **_PARAMETERS},
    )


def _list_averages(
    experiments: Sequence[str],
    evaluation: str,
    place: str,
    weighed_by: Mapping[str, str],
    namespace: str | None = None,
) -> list[Node]:
    """The means of networks and of linear probes.

    Args:
        experiments: names.
        evaluation: whose folds they predicted.
        place: before the names of what comes out.
        weighed_by: further items of each experiment, see average_predictions.
        namespace: of the nodes.
    """
    networks = {
        "predictions": f"{{}}.{evaluation}.uncalibrated_predictions",
        "report": f"{{}}.{evaluation}.training_report",
        "tags": f"{{}}.{evaluation}.training_tags",
    }
    probes = {"predictions": f"{{}}.{evaluation}.uncalibrated_linear_probe_predictions"}
    classes = {"classes": "params:classes"}
    return [
        Node(
            average_experiments,
            inputs=classes | name_items(experiments, {**networks, **weighed_by}),
            outputs=[
                f"{place}.{name}"
                for name in ("uncalibrated_predictions", "training_report", "training_tags")
            ],
            name="average_experiments",
            namespace=namespace,
            tags=_STAGE,
        ),
        Node(
            average_predictions,
            inputs=classes | name_items(experiments, {**probes, **weighed_by}),
            outputs=f"{place}.uncalibrated_linear_probe_predictions",
            name="average_linear_probes",
            namespace=namespace,
            tags=_STAGE,
        ),
    ]


def _list_nodes(calibrate: Callable[..., Calibrated] = calibrate_predictions) -> list[Node]:
    scored = ["predictions", "metrics", "params:classes"]
    plots: list[tuple[Callable[..., Figure], list[str]]] = [
        (plot_confusion_matrix, scored),
        (plot_roc_pr_curves, scored),
        (
            plot_calibration,
            ["predictions", "metrics", "params:evaluation", "params:classes"],
        ),
        (
            plot_decision_curve,
            [
                "predictions",
                "operating_point",
                "metrics",
                "params:evaluation",
                "params:classes",
            ],
        ),
    ]
    return [
        _make_calibration_node(calibrate),
        Node(
            score_predictions,
            inputs=[
                "predictions",
                "params:settings",
                "training_report",
                "training_tags",
                "split_tags",
                "params:evaluation",
                "params:classes",
            ],
            outputs=["metrics", "per_class_metrics"],
            name="score_predictions",
            tags=_STAGE,
        ),
        *(
            Node(
                plot,
                inputs=inputs,
                outputs=f"{plot.__name__.removeprefix('plot_')}_plot",
                name=plot.__name__,
                namespace="plots",
                tags=_STAGE,
            )
            for plot, inputs in plots
        ),
    ]


def _make_calibration_node(
    calibrate: Callable[..., Calibrated] = calibrate_predictions,
) -> Node:
    return Node(
        calibrate,
        inputs=["uncalibrated_predictions", "params:evaluation", "params:classes"],
        outputs=["predictions", "operating_point"],
        name="calibrate_predictions",
        tags=_STAGE,
    )


def _list_linear_probe_nodes() -> list[Node]:
    """The linear probe scored beside the networks: what does fine-tuning add to it?"""
    return [
        _make_linear_probe_node(),
        Node(
            score_linear_probe,
            inputs=["linear_probe_predictions", "params:evaluation", "params:classes"],
            outputs="linear_probe_metrics",
            name="score_linear_probe",
            tags=_STAGE,
        ),
        Node(
            compare_predictions,
            inputs={
                "classes": "params:classes",
                "evaluation": "params:evaluation",
                "fine_tuned": "predictions",
                "linear_probe": "linear_probe_predictions",
            },
            outputs="fine_tuning_gain",
            name="measure_fine_tuning_gain",
            tags=_STAGE,
        ),
    ]


def _make_linear_probe_node(prefix: str = "") -> Node:
    return Node(
        calibrate_linear_probe,
        inputs=[
            f"uncalibrated_{prefix}linear_probe_predictions",
            "params:evaluation",
            "params:classes",
        ],
        outputs=f"{prefix}linear_probe_predictions",
        name=f"calibrate_{prefix}linear_probe",
        tags=_STAGE,
    )
