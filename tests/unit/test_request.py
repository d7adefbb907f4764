"""A wrong request is answered in one line before anything is computed: what is near, what to do."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Node, Pipeline
from kedro.runner import ParallelRunner, SequentialRunner, ThreadRunner

from busi_pipeline.__main__ import check_logging
from busi_pipeline.datasets.optional_table import OptionalTableDataset
from busi_pipeline.datasets.pretrained_weights import PretrainedWeightsDataset
from busi_pipeline.datasets.raw_images import RawImagesDataset
from busi_pipeline.errors import BadInputError
from busi_pipeline.request import (
    check_environment,
    check_images,
    check_inputs,
    check_pipeline_names,
    check_runner,
    check_runner_name,
    check_selection,
    check_weights,
)
from tests.factories import make_settings

READ = Node(len, "raw", "manifest", name="read", tags="ingestion")
FIT = Node(len, "manifest", "vgg16.model", name="fit", namespace="vgg16", tags="training")
REPORT = Node(len, "vgg16.table", "report", name="write", tags="reporting")


def answer_of(check: Callable[..., object], *arguments: Any) -> str:
    """Return what a check says, which must be one line."""
    with pytest.raises(BadInputError) as caught:
        check(*arguments)
    said = str(caught.value)
    assert "\n" not in said
    return said


def test_parallel_runner_names_those_that_work() -> None:
    said = answer_of(check_runner, ParallelRunner())
    assert "SequentialRunner (the default) works, ThreadRunner" in said
    check_runner(SequentialRunner())
    check_runner(ThreadRunner())
    check_runner(None)


@pytest.mark.parametrize("name", ["Sequental", "SequentialRuner", "nowhere.SequentialRuner"])
def test_unknown_runner_names_the_nearest(name: str) -> None:
    assert "Did you mean --runner=SequentialRunner?" in answer_of(check_runner_name, name)
    check_runner_name("kedro.runner.ThreadRunner")
    check_runner_name(None)


def test_mlflow_run_of_the_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    check_environment()
    monkeypatch.setenv("MLFLOW_RUN_ID", "abc")
    assert "MLFLOW_RUN_ID is set, to 'abc'" in (said := answer_of(check_environment))
    assert "`unset MLFLOW_RUN_ID`" in said


def test_unknown_pipeline_names_the_nearest_first() -> None:
    known = ["__default__", "train_vgg16", "train_resnet50_both", "train_resnet50"]
    check_pipeline_names(["train_vgg16", "__default__"], known)
    said = answer_of(check_pipeline_names, ["train_resnet5"], known)
    assert said.index("--pipeline=train_resnet50 ") < said.index("--pipeline=train_resnet50_both")
    assert "`kedro registry list` lists all 3" in said
    assert "vgg16" not in said


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        ({"node_names": ["vgg16.fti"]}, "--nodes: the pipeline has no node 'vgg16.fti'. Did you m"),
        ({"node_names": ["fit"]}, "Did you mean vgg16.fit?"),
        (
            {"from_nodes": ["rad"]},
            "--from-nodes: the pipeline has no node 'rad'. Did you mean read",
        ),
        ({"to_nodes": ["rad"]}, "--to-nodes: "),
        (
            {"tags": ("trainin",)},
            "--tags: the pipeline has no tag 'trainin'. Did you mean training?",
        ),
        ({"from_inputs": ["manifst"]}, "--from-inputs: the pipeline has no dataset 'manifst'. Did"),
        ({"to_outputs": ["manifst"]}, "--to-outputs: "),
        (
            {"namespaces": ["vgg"]},
            "--namespaces: the pipeline has no namespace 'vgg'. Did you mean",
        ),
        ({"tags": ("ingestion",), "node_names": ["vgg16.fit"]}, "no node is left"),
    ],
)
def test_unknown_part_of_a_pipeline_is_named(request_: Mapping[str, Any], answer: str) -> None:
    assert answer in answer_of(check_selection, Pipeline([READ, FIT]), request_)


def test_known_parts_of_a_pipeline_pass() -> None:
    whole = Pipeline([READ, FIT])
    check_selection(whole, {})
    check_selection(whole, {"tags": ("ingestion",), "to_outputs": ["manifest"]})
    check_selection(whole, {"namespaces": ["vgg16"], "from_inputs": ["manifest"]})


def test_missing_input_names_the_command(tmp_path: Path) -> None:
    catalog = DataCatalog({"manifest": MemoryDataset()})
    registered = {"ingestion": Pipeline([READ]), "train_vgg16": Pipeline([READ, FIT])}
    said = answer_of(check_inputs, Pipeline([FIT]), catalog, registered, "demo")
    assert said == (
        "manifest is not there yet: run `kedro run --env=demo --pipeline=ingestion` first."
    )
    catalog["manifest"] = [1]
    check_inputs(Pipeline([FIT]), catalog, registered)


def test_report_of_nothing_names_the_commands(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    catalog = DataCatalog({"vgg16.table": OptionalTableDataset(filepath=str(table))})
    make = Node(len, "manifest", "vgg16.table", name="make")
    registered = {"train_vgg16": Pipeline([make]), "reporting": Pipeline([REPORT])}
    said = answer_of(check_inputs, Pipeline([REPORT]), catalog, registered)
    assert said.startswith("reporting has nothing to go by: ")
    assert "Run `kedro run`, or `kedro run --pipeline=train_vgg16` for one experiment, f" in said
    table.write_text("a\n1\n")
    check_inputs(Pipeline([REPORT]), catalog, registered)


def test_missing_images_are_answered_before_a_run(tmp_path: Path) -> None:
    catalog = DataCatalog({"raw": RawImagesDataset({"busi": str(tmp_path / "nowhere")})})
    assert "nowhere is missing" in answer_of(check_images, Pipeline([READ]), catalog)


@pytest.mark.parametrize(
    ("content", "answer"),
    [(None, "vgg16_notop.weights.h5 is missing"), (b"damaged", "is damaged, or no HDF5 file")],
)
def test_bad_weights_are_answered_before_a_run(
    tmp_path: Path, content: bytes | None, answer: str
) -> None:
    if content is not None:
        (tmp_path / "vgg16_notop.weights.h5").write_bytes(content)
    taken = Node(
        lambda weights, settings: None,
        ["pretrained_weights", "params:experiments.vgg16"],
        "vgg16.model",
        name="fit",
    )
    settings = make_settings(backbone="vgg16", training={"weights": "directory"})
    catalog = DataCatalog(
        {
            "pretrained_weights": PretrainedWeightsDataset(str(tmp_path)),
            "params:experiments.vgg16": MemoryDataset(settings, copy_mode="assign"),
        }
    )
    assert answer in answer_of(check_weights, Pipeline([taken]), catalog)
    catalog["pretrained_weights"] = PretrainedWeightsDataset(str(tmp_path / "nowhere"))
    assert "which is no folder" in answer_of(check_weights, Pipeline([taken]), catalog)


def test_broken_logging_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TRAP: Kedro reads it when it is imported, before any code of a project runs."""
    monkeypatch.delenv("KEDRO_LOGGING_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)
    check_logging()
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf/logging.yml").write_text("version: 1\nroot: [\n")
    with pytest.raises(SystemExit) as ended:
        check_logging()
    assert str(ended.value.code).startswith("Error: conf/logging.yml, line 2: this is no YAML: ")
