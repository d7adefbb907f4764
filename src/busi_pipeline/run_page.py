"""What a person sees of a run in MLflow: name, description, data set, scores of the model."""

import json
import logging
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

import mlflow
from kedro.framework.hooks import hook_impl
from kedro.io import DataCatalog
from kedro.pipeline import Pipeline
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT
from mlflow.utils.time import get_current_time_millis
from mlflow.utils.validation import MAX_DATASET_DIGEST_SIZE

from busi_pipeline.config.given import list_given

logger = logging.getLogger(__name__)

_NOTE = "mlflow.note.content"
# Figures of a run, for its description: {what stands there: the end of its key}.
_HEADLINE = {
    "images": "test.images",
    "accuracy": "test.accuracy",
    "AUC": "test.positive.auc",
    "flag: sensitivity": "test.flag.sensitivity",
    "specificity": "test.flag.specificity",
    "missed": "test.flag.missed",
}
_COUNTS = ("images", "missed")
# Of an experiment's model: its own keys, without those of folds.
_OF_MODEL = ("test.", "operating_point.")


def list_pipelines(run_params: Mapping[str, Any]) -> list[str]:
    """Return the names of the pipelines of a run."""
    names = run_params.get("pipeline_names") or run_params.get("pipeline_name") or ["__default__"]
    return [names] if isinstance(names, str) else list(names)


def name_run(run_params: Mapping[str, Any], parameters: Mapping[str, Any]) -> str:
    """Return `train_resnet50 on BUSI`: what a list of runs is read by.

    Args:
        run_params: of the session.
        parameters: of `config.checking.Parameters`.
    """
    pipelines = list_pipelines(run_params)
    name = "+".join("default" if name == "__default__" else name for name in pipelines)
    named = f"{name} on {parameters['dataset'].name}"
    site = parameters["external"].site
    return f"{named}, external {site}" if site and _is_external(pipelines) else named


def _is_external(pipelines: Iterable[str]) -> bool:
    return any(name.startswith(("validate_external", "adapt_")) for name in pipelines)


def describe_command(run_params: Mapping[str, Any]) -> str:
    """Return the command that runs the same again; places on this machine are left out."""
    words = ["kedro", "run"]
    pipelines = list_pipelines(run_params)
    if pipelines != ["__default__"]:
        option = "--pipeline" if len(pipelines) == 1 else "--pipelines"
        words.append(f"{option}={','.join(pipelines)}")
    if run_params.get("env"):
        words.append(f"--env={run_params['env']}")
    for key, option in (
        ("tags", "--tags"),
        ("node_names", "--nodes"),
        ("from_nodes", "--from-nodes"),
        ("to_nodes", "--to-nodes"),
        ("from_inputs", "--from-inputs"),
        ("to_outputs", "--to-outputs"),
        ("namespaces", "--namespaces"),
    ):
        if run_params.get(key):
            words.append(f"{option}={','.join(run_params[key])}")
    versions = run_params.get("load_versions") or {}
    if versions:
        words.append(f"--load-versions={','.join(f'{k}:{v}' for k, v in versions.items())}")
    if run_params.get("only_missing_outputs"):
        words.append("--only-missing-outputs")
    given = run_params.get("runtime_params") or run_params.get("extra_params") or {}
    if given:
        words.append(f"--params={','.join(list_given(given))}")
    return shlex.join(words)


class RunPage:
    """Fills the pages of a run and of its models once it is done."""

    @hook_impl(tryfirst=True)
    def after_pipeline_run(
        self, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog
    ) -> None:
        """Write description and data set of the run, and scores and card of its models."""
        active = mlflow.active_run()
        parameters: Any = catalog.get("parameters")
        if active is None or parameters is None:
            return
        name = parameters.load()["dataset"].name
        try:
            client = MlflowClient()
            run = client.get_run(active.info.run_id)
            client.set_tag(run.info.run_id, _NOTE, describe_run(run, name))
            _log_data(client, run, name)
            _fill_models(client, run, catalog, pipeline)
        except MlflowException as error:  # the run is done, and its figures are logged
            line = str(error).splitlines()[0]
            logger.warning("MLflow's pages of the run and its model are not complete: %s", line)


def describe_run(run: Run, data: str) -> str:
    """Return the description of a run in Markdown: command, data, code, and its main figures.

    Args:
        run: with its tags and metrics.
        data: name of the data set.
    """
    tags, metrics = run.data.tags, run.data.metrics
    known = [
        f"{kind} {tags[key][:12]}"
        for kind, key in (
            ("data", "data_sha256"),
            ("split", "split_sha256"),
            ("code", "git_commit"),
        )
        if tags.get(key)
    ]
    lines = [f"`{tags.get('kedro_command', 'kedro run')}`", "", f"On {data}: {', '.join(known)}."]
    heads = sorted(key.removesuffix(_HEADLINE["images"]) for key in metrics if _is_count(key))
    if heads:
        lines += ["", f"| test images of | {' | '.join(_HEADLINE)} |", "| --- " * 7 + "|"]
        for head in heads:
            figures = (_format(what, metrics.get(head + key)) for what, key in _HEADLINE.items())
            named = head.rstrip(".") or tags.get("experiments", "")
            lines.append(f"| {named} | {' | '.join(figures)} |")
    return "\n".join(lines)


def _is_count(key: str) -> bool:
    return key == _HEADLINE["images"] or key.endswith(f".{_HEADLINE['images']}")


def _format(what: str, value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.0f}" if what in _COUNTS else f"{value:.3f}"


def _log_data(client: MlflowClient, run: Run, name: str) -> None:
    digest = run.data.tags.get("data_sha256")
    if digest is None:
        return
    counts = {
        key.removeprefix("images."): int(value)
        for key, value in run.data.metrics.items()
        if key.startswith("images.")
    }
    data = Dataset(
        name=name,
        digest=digest[:MAX_DATASET_DIGEST_SIZE],
        source_type="code",  # where the images lie is nobody's business elsewhere
        source=json.dumps({"tags": {"data_sha256": digest}}),
        profile=json.dumps({"images": counts}),
    )
    context = InputTag(key=MLFLOW_DATASET_CONTEXT, value="training")
    client.log_inputs(run.info.run_id, datasets=[DatasetInput(data, [context])])


def _fill_models(client: MlflowClient, run: Run, catalog: DataCatalog, pipeline: Pipeline) -> None:
    """Give each model that the run logged its scores, its threshold and its card."""
    outputs = pipeline.all_outputs()
    models = run.outputs.model_outputs if run.outputs else []
    several = len(run.data.tags.get("experiments", "").split(",")) > 1
    now = get_current_time_millis()
    for output in models:
        model = client.get_logged_model(output.model_id)
        prefix = f"{model.name}." if several else ""
        own = {
            key.removeprefix(prefix): value
            for key, value in run.data.metrics.items()
            if key.startswith(prefix) and key.removeprefix(prefix).startswith(_OF_MODEL)
        }
        points = [
            Metric(prefix + key, value, now, 0, model_id=model.model_id, run_id=run.info.run_id)
            for key, value in own.items()
        ]
        if points:
            client.log_batch(run.info.run_id, metrics=points)
        tags = {}
        if "operating_point.threshold" in own:
            tags["threshold"] = f"{own['operating_point.threshold']:.6g}"
        card = f"{model.name}.model_card"
        if card in outputs:
            tags[_NOTE] = catalog.load(card)
        if tags:
            client.set_logged_model_tags(model.model_id, tags)
