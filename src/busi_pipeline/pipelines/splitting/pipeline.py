"""Which image is in which part: the hold-out split, and the folds of a cross-validation."""

from collections.abc import Callable, Sequence
from functools import partial, update_wrapper

import pandas as pd
from kedro.pipeline import Node, Pipeline

from busi_pipeline.learning.folds import Fold, SiteFold, select_fold, select_site_fold

from .folds import Folds, assign_folds, assign_random_folds
from .nodes import split_images

_STAGE = "splitting"


def create_hold_out_pipeline() -> Pipeline:
    """manifest, image_groups -> split_images -> split_manifest, split_summary, split_tags."""
    return Pipeline(
        [
            Node(
                split_images,
                inputs=["manifest", "image_groups", "params:split"],
                outputs=["split_manifest", "split_summary", "split_tags"],
                name="split_images",
                tags=_STAGE,
            )
        ]
    )


def create_folds_pipeline(folds: Sequence[Fold]) -> Pipeline:
    """manifest, image_groups -> assign_folds -> fold_manifest -> <fold>.split_manifest of each."""
    return _create_pipeline("cross_validation", assign_folds, folds)


def create_random_folds_pipeline(folds: Sequence[Fold]) -> Pipeline:
    """As `create_folds_pipeline`, of folds that part duplicates, in `random_folds`."""
    return _create_pipeline("random_folds", assign_random_folds, folds)


def _create_pipeline(
    evaluation: str, assign: Callable[..., Folds], folds: Sequence[Fold]
) -> Pipeline:
    assigning = Pipeline(
        [
            Node(
                assign,
                inputs=["manifest", "image_groups", "params:split", "params:cross_validation"],
                outputs=["fold_manifest", "fold_tags"],
                name=assign.__name__,
                tags=_STAGE,
            )
        ],
        namespace=evaluation,
        inputs={"manifest", "image_groups"},
        parameters={"params:split", "params:cross_validation"},
    )
    return assigning + _create_splits(evaluation, folds, select_fold, evaluation)


def create_site_folds_pipeline(evaluation: str, folds: Sequence[SiteFold]) -> Pipeline:
    """cross_validation.fold_manifest -> <evaluation>.<fold>.split_manifest of each."""
    return _create_splits(evaluation, folds, select_site_fold, "cross_validation")


def _create_splits(
    evaluation: str,
    folds: Sequence[Fold] | Sequence[SiteFold],
    select: Callable[..., pd.DataFrame],
    assigned_in: str,
) -> Pipeline:
    splits = [
        Pipeline(
            [
                Node(
                    update_wrapper(partial(select, fold=fold), select),
                    inputs={
                        "fold_manifest": "fold_manifest",
                        "cross_validation": "params:cross_validation",
                    },
                    outputs="split_manifest",
                    name="select_fold",
                    tags=_STAGE,
                )
            ],
            namespace=f"{evaluation}.{fold.name}",
            inputs={"fold_manifest": f"{assigned_in}.fold_manifest"},
            parameters={"params:cross_validation"},
        )
        for fold in folds
    ]
    return sum(splits, Pipeline([]))
