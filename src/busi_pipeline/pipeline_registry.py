"""The house: data walks through the rooms from left to right and never turns back.

    ingestion -> copies -> split -> augmentation -> training(row) -> evaluation(row) -> comparison
                                                                          -> explanation(row)
                        -> cross_validation(row) -> its comparison, leakage, shortcuts(row)
                                                                                  all -> report

Experiments are the rows under `experiments` in the parameters; each gets `train_<row>`,
`cross_validate_<row>`, `leakage_<row>` and `shortcuts_<row>`.
"""

from kedro.pipeline import Pipeline

from busi_pipeline.config import load_active_parameters
from busi_pipeline.experiments import load_experiments
from busi_pipeline.pipelines import (
    augmentation,
    comparison,
    copies,
    cross_validation,
    evaluation,
    explanation,
    ingestion,
    report,
    shortcuts,
    split,
    training,
)


def register_pipelines() -> dict[str, Pipeline]:
    """Return the pipelines by name; raises ValueError where a row of parameters is wrong."""
    experiments = load_experiments(load_active_parameters())
    ingest, find, assign = (stage.create_pipeline() for stage in (ingestion, copies, split))
    before = ingest + find + assign
    deal = ingest + find + cross_validation.create_pipeline()
    mark = deal + shortcuts.create_pipeline()
    deal_blindly = deal + cross_validation.create_random_folds_pipeline()
    views, trains, validations, leaks, audits = {}, {}, {}, {}, {}
    for name, settings in experiments.items():
        views[name] = augmentation.create_pipeline(
            [settings.image_size]
        ) + augmentation.create_experiment_pipeline(name, settings.image_size)
        trains[name] = (
            views[name]
            + training.create_experiment_pipeline(name, settings.image_size)
            + evaluation.create_experiment_pipeline(name, settings.image_size)
            + explanation.create_pipeline([settings.image_size])
            + explanation.create_experiment_pipeline(name, settings.image_size)
            + report.create_experiment_pipeline(name)
        )
        validations[name] = augmentation.create_pipeline(
            [settings.image_size]
        ) + cross_validation.create_experiment_pipeline(name, settings.image_size)
        audits[name] = (
            validations[name]
            + explanation.create_pipeline([settings.image_size])
            + shortcuts.create_size_pipeline(settings.image_size)
            + shortcuts.create_experiment_pipeline(name, settings.image_size)
        )
        leaks[name] = validations[name] + cross_validation.create_leakage_pipeline(name)
    compare = comparison.create_pipeline(experiments)
    in_default = [name for name, settings in experiments.items() if settings.in_default]
    ensemble = cross_validation.create_ensemble_pipeline(in_default)
    return {
        "ingestion": ingest,
        "copies": find,
        "split": assign,
        "augmentation": sum((views[name] for name in in_default), Pipeline([])),
        "comparison": compare,
        "report": report.create_pipeline(in_default),
        **{f"train_{name}": before + pipeline for name, pipeline in trains.items()},
        **{f"cross_validate_{name}": deal + pipeline for name, pipeline in validations.items()},
        **{f"leakage_{name}": deal_blindly + pipeline for name, pipeline in leaks.items()},
        **{f"shortcuts_{name}": mark + pipeline for name, pipeline in audits.items()},
        "leakage": sum((leaks[name] for name in in_default), deal_blindly)
        + cross_validation.create_leakage_report_pipeline(in_default),
        "cross_validation": sum((validations[name] for name in in_default), deal) + ensemble,
        "__default__": sum((trains[name] for name in in_default), before) + compare,
    }
