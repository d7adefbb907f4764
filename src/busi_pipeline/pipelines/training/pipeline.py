"""A network is trained: on the hold-out split, or on one fold of a cross-validation.

    features, pooled_features, split_manifest, settings -> train_model -> trained_model, history

A fold is a node in a namespace of its own, `<experiment>.<evaluation>.<fold>`, so that the lineage
shows it and a runner may run folds apart:

    features, pooled_features, <fold>.split_manifest -> train_fold
        -> <fold>.uncalibrated_predictions; of all folds -> gather_folds -> uncalibrated_predictions
"""

from collections.abc import Sequence
from functools import partial, update_wrapper

from kedro.pipeline import Node, Pipeline

from busi_pipeline.config.experiments import BAG, name_items
from busi_pipeline.learning.folds import Fold, SiteFold, join_tables

from .nodes import (
    gather_folds,
    join_members,
    predict_fold_with_linear_probe,
    predict_with_linear_probe,
    train_bag,
    train_fold,
    train_model,
)

_STAGE = "training"
_GIVEN = ["params:settings", "pretrained_weights", "params:classes", "cache"]


def create_hold_out_pipeline(experiment: str) -> Pipeline:
    """features, split_manifest -> train_model -> trained_model, history, records."""
    return Pipeline(
        [
            Node(
                train_model,
                inputs=["features", "pooled_features", "split_manifest", *_GIVEN],
                outputs=[
                    "trained_model",
                    "history",
                    "training_report",
                    "training_tags",
                    "trained_with",
                ],
                name="train_model",
                tags=_STAGE,
            )
        ],
        namespace=experiment,
        inputs={
            "split_manifest": "split_manifest",
            "pretrained_weights": "pretrained_weights",
            "cache": "cache",
        },
        parameters={
            "params:settings": f"params:experiments.{experiment}",
            "params:classes": "params:classes",
        },
    )


def create_bag_pipeline(experiment: str, evaluation: str, folds: Sequence[Fold]) -> Pipeline:
    """features, all splits -> train_bag -> <experiment>.bag.trained_model, predictions, records.

    Args:
        experiment: name of the experiment.
        evaluation: whose folds they are: `cross_validation`.
        folds: of one repeat.
    """
    splits = {fold.name: f"{evaluation}.{fold.name}.split_manifest" for fold in folds}
    return Pipeline(
        [
            Node(
                update_wrapper(partial(train_bag, folds=folds), train_bag),
                inputs={
                    "features": "features",
                    "pooled_features": "pooled_features",
                    "settings": "params:settings",
                    "pretrained_weights": "pretrained_weights",
                    "classes": "params:classes",
                    "cache": "cache",
                    **{name: name for name in splits},
                },
                outputs=[
                    "trained_model",
                    "uncalibrated_predictions",
                    "training_report",
                    "training_tags",
                    "trained_with",
                ],
                name="train_bag",
                tags=_STAGE,
            )
        ],
        namespace=f"{experiment}.{BAG}",
        inputs={
            "features": f"{experiment}.{evaluation}.features",
            "pooled_features": f"{experiment}.{evaluation}.pooled_features",
            "pretrained_weights": "pretrained_weights",
            "cache": "cache",
            **splits,
        },
        parameters={
            "params:settings": f"params:experiments.{experiment}",
            "params:classes": "params:classes",
        },
    )


def create_joined_pipeline(
    experiment: str, members: Sequence[str], of_folds: bool = False
) -> Pipeline:
    """trained_model and records of each member -> join_members -> one trained_model."""
    place = f"{{}}.{BAG}" if of_folds else "{}"
    items = {"model": "trained_model", "report": "training_report", "tags": "training_tags"}
    parts = name_items(members, {item: f"{place}.{name}" for item, name in items.items()})
    return Pipeline(
        [
            Node(
                join_members,
                inputs={"settings": "params:settings", "classes": "params:classes"}
                | {name: name for name in parts},
                outputs=["trained_model", "training_report", "training_tags", "trained_with"],
                name="join_members",
                tags=_STAGE,
            )
        ],
        namespace=experiment,
        inputs=parts,
        parameters={
            "params:settings": f"params:experiments.{experiment}",
            "params:classes": "params:classes",
        },
    )


def create_cross_validation_pipeline(
    experiment: str,
    evaluation: str,
    folds: Sequence[Fold | SiteFold],
    own_features: bool = False,
) -> Pipeline:
    """The folds of one experiment, what they have in common, and the linear probe beside them.

    Args:
        experiment: name of the experiment.
        evaluation: `cross_validation` or another one.
        folds: of the cross-validation.
        own_features: whether each fold has features of its own, in its namespace; else they are
            those of `cross_validation`.
    """
    features = {
        fold.name: f"{experiment}.{evaluation}.{fold.name}"
        if own_features
        else f"{experiment}.cross_validation"
        for fold in folds
    }
    trainings = [
        _create_fold_pipeline(experiment, evaluation, fold, features[fold.name]) for fold in folds
    ]
    parts = name_items(
        [fold.name for fold in folds],
        {"predictions": "{}.uncalibrated_predictions", "record": "{}.fold_record"},
    )
    namespace = f"{experiment}.{evaluation}"
    gathered = Pipeline(
        [
            Node(
                gather_folds,
                inputs={name: name for name in parts},
                outputs=["uncalibrated_predictions", "training_report", "training_tags"],
                name="gather_folds",
                tags=_STAGE,
            ),
        ],
        namespace=namespace,
        inputs={name: f"{namespace}.{dataset}" for name, dataset in parts.items()},
    )
    return sum(trainings, gathered) + (
        _create_own_linear_probes_pipeline(experiment, evaluation, folds)
        if own_features
        else create_linear_probe_pipeline(experiment, evaluation, folds)
    )


def create_linear_probe_pipeline(
    experiment: str, evaluation: str, folds: Sequence[Fold | SiteFold], prefix: str = ""
) -> Pipeline:
    """<prefix>pooled_features, all splits -> uncalibrated_<prefix>linear_probe_predictions."""
    splits = {fold.name: f"{evaluation}.{fold.name}.split_manifest" for fold in folds}
    return Pipeline(
        [
            Node(
                update_wrapper(
                    partial(predict_with_linear_probe, folds=folds), predict_with_linear_probe
                ),
                inputs={
                    "pooled_features": "pooled_features",
                    "settings": "params:settings",
                    "classes": "params:classes",
                }
                | {name: name for name in splits},
                outputs=f"uncalibrated_{prefix}linear_probe_predictions",
                name=f"predict_with_{prefix}linear_probe",
                tags=_STAGE,
            ),
        ],
        namespace=f"{experiment}.{evaluation}",
        inputs={
            "pooled_features": f"{experiment}.cross_validation.{prefix}pooled_features",
            **splits,
        },
        parameters={
            "params:settings": f"params:experiments.{experiment}",
            "params:classes": "params:classes",
        },
    )


def _create_own_linear_probes_pipeline(
    experiment: str, evaluation: str, folds: Sequence[Fold | SiteFold]
) -> Pipeline:
    """Of each fold its own pooled_features -> predictions; of all -> one table."""
    namespace = f"{experiment}.{evaluation}"
    output = "uncalibrated_linear_probe_predictions"
    probes = [
        Pipeline(
            [
                Node(
                    update_wrapper(
                        partial(predict_fold_with_linear_probe, fold=fold),
                        predict_fold_with_linear_probe,
                    ),
                    inputs=[
                        "pooled_features",
                        "split_manifest",
                        "params:settings",
                        "params:classes",
                    ],
                    outputs=output,
                    name="predict_with_linear_probe",
                    tags=_STAGE,
                )
            ],
            namespace=f"{namespace}.{fold.name}",
            inputs={"split_manifest": f"{evaluation}.{fold.name}.split_manifest"},
            parameters={
                "params:settings": f"params:experiments.{experiment}",
                "params:classes": "params:classes",
            },
        )
        for fold in folds
    ]
    joined = Pipeline(
        [
            Node(
                join_tables,
                inputs={fold.name: fold.name for fold in folds},
                outputs=output,
                name="join_linear_probes",
                tags=_STAGE,
            )
        ],
        namespace=namespace,
        inputs={fold.name: f"{namespace}.{fold.name}.{output}" for fold in folds},
    )
    return sum(probes, joined)


def _create_fold_pipeline(
    experiment: str, evaluation: str, fold: Fold | SiteFold, features: str
) -> Pipeline:
    return Pipeline(
        [
            Node(
                update_wrapper(partial(train_fold, fold=fold), train_fold),
                inputs=["features", "pooled_features", "split_manifest", *_GIVEN],
                outputs=["uncalibrated_predictions", "fold_record", "trained_with"],
                name="train_fold",
                tags=_STAGE,
            )
        ],
        namespace=f"{experiment}.{evaluation}.{fold.name}",
        inputs={
            "features": f"{features}.features",
            "pooled_features": f"{features}.pooled_features",
            "split_manifest": f"{evaluation}.{fold.name}.split_manifest",
            "pretrained_weights": "pretrained_weights",
            "cache": "cache",
        },
        parameters={
            "params:settings": f"params:experiments.{experiment}",
            "params:classes": "params:classes",
        },
    )
