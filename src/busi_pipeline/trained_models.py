"""A run that goes on from an earlier one must have the settings that the earlier one had.

A part of a pipeline (`--from-nodes`, `--only-missing-outputs`) reads what an earlier run left. With
other settings, MLflow would show them for a model that never had them; with another order of
classes, every probability would count for another class.
"""

from collections.abc import Mapping
from typing import Any

from kedro.framework import project
from kedro.framework.hooks import hook_impl
from kedro.io import DataCatalog
from kedro.pipeline import Pipeline

from busi_pipeline.config.checking import Parameters
from busi_pipeline.config.given import flatten
from busi_pipeline.config.schemas import JoinedSettings
from busi_pipeline.errors import BadInputError
from busi_pipeline.learning.features import describe_joined, describe_settings

# Nodes of no experiment in these stages show the latest result of each, whatever it was made with.
_STAGES_OF_RESULTS = {"model_comparison", "reporting"}
_TRAINED_WITH, _OPERATING_POINT = ".trained_with", ".operating_point"


class CheckTrainedModels:
    """Stops a run that takes up a model or its predictions under other settings.

    The record of a training is the dataset `trained_with` beside its model or its predictions, that
    of a threshold the dataset `operating_point`.
    """

    @hook_impl(tryfirst=True)
    def before_pipeline_run(
        self, run_params: Mapping[str, Any], pipeline: Pipeline, catalog: DataCatalog
    ) -> None:
        """Raise BadInputError, one line, naming the first setting that differs."""
        parameters = catalog.get("parameters")
        if parameters is None:
            return
        session: Parameters = parameters.load()
        for record in find_records(pipeline, bool(run_params.get("only_missing_outputs"))):
            if not catalog.exists(record):
                continue
            made_by, now = _read(catalog.load(record), record, session)
            for key in [*made_by, *(key for key in now if key not in made_by)]:
                if made_by.get(key) != now.get(key):
                    raise BadInputError(_describe(record, key, made_by.get(key), now.get(key)))


def find_records(pipeline: Pipeline, only_missing: bool = False) -> list[str]:
    """Return the records of all that the pipeline takes from earlier runs, trainings first.

    Args:
        pipeline: of the run.
        only_missing: whether the run leaves out nodes whose outputs are there.
    """
    results = _STAGES_OF_RESULTS
    nodes = [n for n in pipeline.nodes if n.namespace not in results or not results & n.tags]
    made = pipeline.all_outputs()
    read = {name for node in nodes for name in node.inputs if "." in name} - made
    records = {name for name in made if _is_record(name)} if only_missing else set()
    for other in project.pipelines.values():
        known = read & other.all_outputs()
        if known:
            records |= {n for n in other.to_outputs(*known).all_outputs() if _is_record(n)} - made
            read -= known
    return sorted(records, key=lambda name: (name.endswith(_OPERATING_POINT), name))


def _is_record(dataset: str) -> bool:
    return dataset.endswith((_TRAINED_WITH, _OPERATING_POINT))


def _read(
    recorded: Mapping[str, Any], record: str, session: Parameters
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return {setting: value} as recorded, and as the session has it."""
    if record.endswith(_OPERATING_POINT):
        evaluation = session["evaluation"]
        point = recorded["operating_point"]
        now = {
            "evaluation.target_sensitivity": evaluation.target_sensitivity,
            "evaluation.threshold_rule": evaluation.threshold_rule,
            "positive_classes": list(session["classes"].positive),
        }
        known = {key: value for key in now if (value := point.get(key.rpartition(".")[2]))}
        return known, {key: now[key] for key in known}
    experiment = record.partition(".")[0]
    own = session["experiments"][experiment]
    settings = describe_joined(own) if isinstance(own, JoinedSettings) else describe_settings(own)
    return (
        {"classes": recorded["classes"], **dict(flatten(recorded["settings"]))},
        {"classes": list(session["classes"].names), **dict(flatten(settings))},
    )


def _describe(record: str, key: str, before: Any, now: Any) -> str:
    name = record.rpartition(".")[0]
    if record.endswith(_OPERATING_POINT):
        made, remedy = "evaluated", f"go on from {name}.calibrate_predictions"
    else:
        made, remedy = "trained", f"train again (`kedro run --pipeline={_name_pipeline(record)}`)"
    return (
        f"{name} was {made} with {key} {_format(before)}, but this run has {_format(now)}: "
        f"{remedy}, or run with the same value."
    )


def _name_pipeline(dataset: str) -> str:
    """Return the smallest registered pipeline that makes a dataset."""
    makers = {n: p for n, p in project.pipelines.items() if dataset in p.all_outputs()}
    return min(makers, key=lambda name: len(makers[name].nodes))


def _format(value: Any) -> str:
    if value is None:
        return "not set"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
