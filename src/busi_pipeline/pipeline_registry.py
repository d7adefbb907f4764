"""The house: data walks through the rooms from left to right and never turns back.

    ingestion -> copies -> split -> augmentation -> training(row) -> evaluation(row) -> comparison

Experiments are the rows under `experiments` in the parameters; each gets `train_<row>`.
"""

from kedro.pipeline import Pipeline

from busi_pipeline.config import load_active_parameters
from busi_pipeline.experiments import load_experiments
from busi_pipeline.pipelines import (
    augmentation,
    comparison,
    copies,
    evaluation,
    ingestion,
    split,
    training,
)


def register_pipelines() -> dict[str, Pipeline]:
    """Return the pipelines by name; raises ValueError where a row of parameters is wrong."""
    experiments = load_experiments(load_active_parameters())
    ingest, find, assign = (stage.create_pipeline() for stage in (ingestion, copies, split))
    before = ingest + find + assign
    views, trains = {}, {}
    for name, settings in experiments.items():
        views[name] = augmentation.create_pipeline(
            [settings.image_size]
        ) + augmentation.create_experiment_pipeline(name, settings.image_size)
        trains[name] = (
            views[name]
            + training.create_experiment_pipeline(name, settings.image_size)
            + evaluation.create_experiment_pipeline(name, settings.image_size)
        )
    compare = comparison.create_pipeline(experiments)
    in_default = [name for name, settings in experiments.items() if settings.in_default]
    return {
        "ingestion": ingest,
        "copies": find,
        "split": assign,
        "augmentation": sum((views[name] for name in in_default), Pipeline([])),
        "comparison": compare,
        **{f"train_{name}": before + pipeline for name, pipeline in trains.items()},
        "__default__": sum((trains[name] for name in in_default), before) + compare,
    }
