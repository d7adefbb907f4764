"""How good a recipe is, out of fold: one template, as many experiments as there are rows."""

from collections.abc import Iterable

from kedro.pipeline import Node, Pipeline

from busi_pipeline.config import allow_dots
from busi_pipeline.experiments import ENSEMBLE, name_item
from busi_pipeline.pipelines.augmentation.nodes import plan_all_views
from busi_pipeline.pipelines.comparison.pairs import compare_rows
from busi_pipeline.pipelines.comparison.pipeline import create_pairing_pipeline
from busi_pipeline.pipelines.training.pipeline import list_feature_nodes

from .folds import assign_folds
from .leakage import assign_random_folds, draw_leakage, measure_leakage, report_leakage
from .nodes import cross_validate, judge_networks, probe_frozen_base, score_folds
from .plots import (
    draw_fold_calibration,
    draw_fold_confusion_matrix,
    draw_fold_decisions,
    draw_fold_ranking_curves,
)
from .rows import average_rows, score_ensemble

_STAGE = "cross_validation"


def create_pipeline() -> Pipeline:
    """manifest, image_groups -> assign_folds -> fold_manifest, fold_tags."""
    return Pipeline(
        [
            Node(
                assign_folds,
                inputs=["manifest", "image_groups", "params:split", "params:cross_validation"],
                outputs=["fold_manifest", "fold_tags"],
                name="assign_folds",
                tags=_STAGE,
            )
        ]
    )


def create_experiment_pipeline(experiment: str, image_size: int) -> Pipeline:
    """fold_manifest, images -> cv_features -> cross_validate -> folds -> cv_predictions, scores.

    Features are those of training, of every usable image: what a training has computed is not
    computed again. `kept_folds` is what `cross_validate` handed over in the run before. `cv_gain`
    pairs the row with its frozen probe.
    """
    images = f"images_{image_size}"
    nodes = [
        Node(
            plan_all_views,
            inputs=["fold_manifest", "settings"],
            outputs="cv_augmentation_plan",
            name="plan_all_views",
            tags=_STAGE,
        ),
        *list_feature_nodes(images, "cv_augmentation_plan", tags=_STAGE, of="cv_"),
        *_list_fold_nodes("fold_manifest", "folds", "cv_"),
        Node(
            score_folds,
            inputs=[
                "cv_predictions",
                "cv_probe_predictions",
                "settings",
                "fold_tags",
                "params:judging",
                "params:classes",
            ],
            outputs="cv_metrics",
            name="score_folds",
            tags=_STAGE,
        ),
        _make_gain_node(),
        *_list_plots(),
    ]
    return Pipeline(
        nodes,
        namespace=experiment,
        inputs={"fold_manifest", "fold_tags", "pretrained_weights", images},
        parameters={"params:classes", "params:judging", "params:cross_validation"},
    )


def create_random_folds_pipeline() -> Pipeline:
    """manifest, image_groups -> assign_random_folds -> random_fold_manifest, random_fold_tags."""
    return Pipeline(
        [
            Node(
                assign_random_folds,
                inputs=["manifest", "image_groups", "params:split", "params:cross_validation"],
                outputs=["random_fold_manifest", "random_fold_tags"],
                name="assign_random_folds",
                tags=_STAGE,
            )
        ]
    )


def create_leakage_pipeline(experiment: str) -> Pipeline:
    """random_fold_manifest, cv_features -> random_folds -> random_predictions -> leakage.

    The same recipe on the same features and images, copies parted.
    """
    return Pipeline(
        [
            *_list_fold_nodes("random_fold_manifest", "random_folds", "random_"),
            Node(
                measure_leakage,
                inputs=[
                    "cv_predictions",
                    "cv_probe_predictions",
                    "random_predictions",
                    "random_probe_predictions",
                    "params:judging",
                ],
                outputs="leakage",
                name="measure_leakage",
                tags=_STAGE,
            ),
        ],
        namespace=experiment,
        inputs={
            "random_fold_manifest",
            "pretrained_weights",
        },
        parameters={"params:classes", "params:judging", "params:cross_validation"},
    )


def create_leakage_report_pipeline(experiments: Iterable[str]) -> Pipeline:
    """<experiment>.leakage of all experiments -> leakage_report, leakage_plot."""
    with allow_dots():
        return Pipeline(
            [
                Node(
                    report_leakage,
                    inputs={row: f"{row}.leakage" for row in experiments},
                    outputs="leakage_report",
                    name="report_leakage",
                    tags=_STAGE,
                ),
                Node(
                    draw_leakage,
                    inputs="leakage_report",
                    outputs="leakage_plot",
                    name="draw_leakage",
                    tags=_STAGE,
                ),
            ]
        )


def create_ensemble_pipeline(experiments: Iterable[str]) -> Pipeline:
    """<experiment>.cv_predictions of all experiments -> ensemble.cv_predictions, scores, pairs."""
    rows = list(experiments)
    judged = {row: f"{row}.cv_predictions" for row in [*rows, ENSEMBLE]}
    with allow_dots():
        return Pipeline(
            [
                *(
                    Node(
                        average_rows,
                        inputs={"judging": "params:judging", "classes": "params:classes"}
                        | {name_item(row, "settings"): f"{row}.settings" for row in rows}
                        | {name_item(row, "predictions"): f"{row}.{predictions}" for row in rows},
                        outputs=f"{ENSEMBLE}.{predictions}",
                        name=f"average_{predictions.removeprefix('cv_')}",
                        tags=_STAGE,
                    )
                    for predictions in ("cv_predictions", "cv_probe_predictions")
                ),
                Node(
                    score_ensemble,
                    inputs=[
                        f"{ENSEMBLE}.cv_predictions",
                        f"{ENSEMBLE}.cv_probe_predictions",
                        "fold_tags",
                        "params:judging",
                        "params:classes",
                    ],
                    outputs=f"{ENSEMBLE}.cv_metrics",
                    name="score_ensemble",
                    tags=_STAGE,
                ),
                _make_gain_node(ENSEMBLE),
                *_list_plots(ENSEMBLE),
            ]
        ) + create_pairing_pipeline(judged, "cv_pairs", _STAGE)


def _list_fold_nodes(manifest: str, folds: str, of: str) -> list[Node]:
    """cv_features, <manifest> -> <folds> -> <of>predictions, and <of>probe_predictions."""
    return [
        Node(
            cross_validate,
            inputs=[
                "cv_features",
                "cv_pooled_features",
                manifest,
                "settings",
                "pretrained_weights",
                "params:cross_validation",
                "params:classes",
                f"kept_{folds}",
            ],
            outputs=folds,
            name=f"cross_validate_{folds}",
            tags=_STAGE,
        ),
        Node(
            judge_networks,
            inputs=[folds, manifest, "params:judging", "params:classes"],
            outputs=f"{of}predictions",
            name=f"judge_{folds}",
            tags=_STAGE,
        ),
        make_probe_node(manifest, of, tags=_STAGE),
    ]


def make_probe_node(manifest: str, of: str, *, tags: str, features: str = "cv_") -> Node:
    """<features>pooled_features, <manifest> -> <of>probe_predictions."""
    return Node(
        probe_frozen_base,
        inputs=[
            f"{features}pooled_features",
            manifest,
            "settings",
            "params:cross_validation",
            "params:judging",
            "params:classes",
        ],
        outputs=f"{of}probe_predictions",
        name=f"make_{of}probe_predictions",
        tags=tags,
    )


def _make_gain_node(row: str | None = None) -> Node:
    """cv_predictions, cv_probe_predictions -> cv_gain: is fine-tuning better than the probe?"""
    prefix = f"{row}." if row else ""
    return Node(
        compare_rows,
        inputs={
            "judging": "params:judging",
            "fine_tuned": f"{prefix}cv_predictions",
            "frozen_probe": f"{prefix}cv_probe_predictions",
        },
        outputs=f"{prefix}cv_gain",
        name=f"compare_with_probe{f'_of_{row}' if row else ''}",
        tags=_STAGE,
    )


def _list_plots(row: str | None = None) -> list[Node]:
    prefix = f"{row}." if row else ""
    return [
        Node(
            draw,
            inputs=[
                f"{prefix}cv_predictions",
                f"{prefix}cv_metrics",
                *(["params:judging"] if draw is draw_fold_decisions else []),
                "params:classes",
            ],
            outputs=f"{prefix}{draw.__name__.replace('draw_fold', 'cv')}",
            name=f"{draw.__name__}{f'_of_{row}' if row else ''}",
            tags=_STAGE,
        )
        for draw in (
            draw_fold_confusion_matrix,
            draw_fold_ranking_curves,
            draw_fold_calibration,
            draw_fold_decisions,
        )
    ]
