"""What a run is asked for, checked before anything is computed or opened.

Each check raises BadInputError, one line: what is wrong, what is allowed, what to do.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from kedro.io import DataCatalog, DatasetError
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node
from kedro.runner import ParallelRunner
from kedro.utils import load_obj

from busi_pipeline.config.messages import suggest
from busi_pipeline.config.schemas import ExperimentSettings, LocalizationSettings
from busi_pipeline.errors import BadInputError, find_bad_input

_DASK_RUNNER = "busi_pipeline.runners.DaskRunner"
_RUNNERS = ("SequentialRunner", "ThreadRunner", "DaskRunner")
_WORKING = (
    "SequentialRunner (the default) works, ThreadRunner, which loads and saves beside computing, "
    f"and {_DASK_RUNNER}, which runs nodes in several processes"
)
_MOST_SUGGESTED = 3
_WEIGHTS = "pretrained_weights"


def check_runner_name(name: str | None) -> None:
    """Refuse a runner that cannot be imported; None is Kedro's own choice."""
    if name is None:
        return
    try:
        load_obj(name, "kedro.runner")
    except (ImportError, AttributeError, ValueError) as error:
        if getattr(error, "name", None) in ("dask", "distributed") and name == _DASK_RUNNER:
            raise BadInputError(
                f"{name} needs Dask: `pip install 'busi_pipeline[dask]'`."
            ) from None
        near = suggest(name.rpartition(".")[2], _RUNNERS, "--runner=")
        meant = near.replace("DaskRunner", _DASK_RUNNER)
        raise BadInputError(f"there is no runner {name!r}.{meant} {_WORKING}.") from None


def check_runner(runner: object) -> None:
    """Refuse ParallelRunner, which takes neither the catalog nor the run to its processes."""
    if isinstance(runner, ParallelRunner):
        raise BadInputError(
            "--runner=ParallelRunner does not work here: the datasets and the MLflow run belong to "
            f"one process. {_WORKING}."
        )


def check_environment() -> None:
    """Refuse MLFLOW_RUN_ID: MLflow would write the run into one that is there."""
    run_id = os.environ.get("MLFLOW_RUN_ID")
    if run_id is not None:
        raise BadInputError(
            f"the environment variable MLFLOW_RUN_ID is set, to {run_id!r}: MLflow would write "
            "this run into that one, over its figures. Every run here is one of its own: "
            "`unset MLFLOW_RUN_ID`."
        )


def check_pipeline_names(names: Iterable[str], registered: Iterable[str]) -> None:
    """Refuse a pipeline that is not registered, and name the nearest ones."""
    known = [name for name in registered if name != "__default__"]
    for name in names:
        if name not in known and name != "__default__":
            meant = suggest(name, known, "--pipeline=", _MOST_SUGGESTED)
            raise BadInputError(
                f"there is no pipeline {name!r}.{meant} `kedro registry list` lists all "
                f"{len(known)}."
            )


def check_selection(pipeline: Pipeline, request: Mapping[str, Any]) -> None:
    """Refuse nodes, tags, datasets and namespaces that the pipeline does not have.

    Args:
        pipeline: of which a part is asked for.
        request: {argument of KedroSession.run: what was asked for}.
    """
    nodes = pipeline.nodes
    named = [node.name for node in nodes]
    spaces = {space for node in nodes for space in _list_namespaces(node)}
    tags, datasets = {tag for node in nodes for tag in node.tags}, pipeline.datasets()
    for argument, option, noun, known in (
        ("node_names", "--nodes", "node", named),
        ("from_nodes", "--from-nodes", "node", named),
        ("to_nodes", "--to-nodes", "node", named),
        ("from_inputs", "--from-inputs", "dataset", datasets),
        ("to_outputs", "--to-outputs", "dataset", datasets),
        ("tags", "--tags", "tag", tags),
        ("namespaces", "--namespaces", "namespace", spaces),
    ):
        for name in request.get(argument) or ():
            if name not in known:
                raise BadInputError(_describe_unknown_part(option, noun, name, sorted(known)))
    wanted = {key: value for key, value in request.items() if value}
    try:
        pipeline.filter(
            **{
                key: wanted.get(key)
                for key in (
                    *("tags", "node_names", "from_nodes", "to_nodes"),
                    *("from_inputs", "to_outputs"),
                )
            },
            node_namespaces=wanted.get("namespaces"),
        )
    except ValueError:
        raise BadInputError(
            "no node is left: each of --nodes, --tags, --namespaces, --from-nodes, --to-nodes, "
            "--from-inputs and --to-outputs takes some away. Leave one of them out."
        ) from None


def check_inputs(
    pipeline: Pipeline,
    catalog: DataCatalog,
    registered: Mapping[str, Pipeline],
    environment: str | None = None,
) -> None:
    """Refuse a part of the whole that runs before what feeds it, or with nothing to go by.

    Args:
        pipeline: to be run.
        catalog: of it.
        registered: all pipelines, among which the one is found that makes what is missing.
        environment: of the run, for the command to type.
    """
    command = f"kedro run --env={environment}" if environment else "kedro run"
    missing: list[str] = []
    there = False
    for name in sorted(pipeline.inputs()):
        makers = [key for key, other in registered.items() if name in other.all_outputs()]
        if not makers:
            continue
        if catalog.exists(name):
            there = True
        elif getattr(catalog.get(name), "optional", False):
            missing.append(name)
        else:
            maker = min(makers, key=lambda key: len(registered[key].nodes))
            raise BadInputError(
                f"{name} is not there yet: run `{command} --pipeline={maker}` first."
            )
    if missing and not there and not _reads_images(pipeline, catalog):
        stage = "+".join(sorted({tag for node in pipeline.nodes for tag in node.tags}))
        trained = next((key for key in registered if key.startswith("train_")), None)
        one = f", or `{command} --pipeline={trained}` for one experiment," if trained else ""
        raise BadInputError(
            f"{stage} has nothing to go by: none of its {len(missing)} inputs is there yet. Run "
            f"`{command}`{one} first."
        )


def check_images(pipeline: Pipeline, catalog: DataCatalog) -> None:
    """Refuse folders of images that are not there."""
    for name in sorted(pipeline.inputs()):
        check = getattr(catalog.get(name), "check", None)
        if check is not None:
            check()


def check_weights(pipeline: Pipeline, catalog: DataCatalog) -> None:
    """Refuse weights that cannot be had: they are found or downloaded, and read from end to end.

    Imports Keras where they are to be downloaded.
    """
    wanted = list_wanted_weights(pipeline, catalog)
    if wanted:
        try:
            weights = catalog.load(_WEIGHTS)
        except DatasetError as error:
            raise find_bad_input(error) or error from None
        for backbone, choice in wanted:
            weights.check(backbone, choice)


def list_wanted_weights(pipeline: Pipeline, catalog: DataCatalog) -> Sequence[tuple[str, str]]:
    """Return (backbone, `training.weights`) of all nodes that take pretrained weights."""
    found: dict[tuple[str, str], None] = {}
    for node in pipeline.nodes:
        if _WEIGHTS not in node.inputs:
            continue
        for name in node.inputs:
            settings = catalog.load(name) if name.startswith("params:") else None
            if isinstance(settings, ExperimentSettings):
                found[settings.backbone, settings.training.weights] = None
            elif isinstance(settings, LocalizationSettings):
                found |= dict.fromkeys((own, settings.weights) for own in settings.backbones)
    return list(found)


def _describe_unknown_part(option: str, noun: str, name: str, known: Sequence[str]) -> str:
    near = suggest(name, known, most=_MOST_SUGGESTED)
    if not near:  # `train_model` where `vgg16.train_model` is meant
        ends = [own for own in known if own.rpartition(".")[2] == name.rpartition(".")[2]]
        near = f" Did you mean {' or '.join(ends[:_MOST_SUGGESTED])}?" if ends else ""
    rest = f" It has {len(known)}; `kedro viz run` shows them."
    if len(known) <= 12:
        rest = f" It has {', '.join(known)}."
    return f"{option}: the pipeline has no {noun} {name!r}.{near}{rest}"


def _list_namespaces(node: Node) -> Iterator[str]:
    parts = (node.namespace or "").split(".")
    for length in range(1, len(parts) + 1):
        if parts[0]:
            yield ".".join(parts[:length])


def _reads_images(pipeline: Pipeline, catalog: DataCatalog) -> bool:
    return any(hasattr(catalog.get(name), "check") for name in pipeline.inputs())
