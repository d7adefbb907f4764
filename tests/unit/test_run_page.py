"""What a run is called in MLflow, and the command and the description on its page."""

from typing import Any

import pytest
from mlflow.entities import Metric, Param, Run, RunData, RunInfo, RunTag

from busi_pipeline.config.checking import check_parameters
from busi_pipeline.run_page import describe_command, describe_run, name_run


@pytest.mark.parametrize(
    ("pipelines", "changes", "name"),
    [
        (["train_vgg16"], {}, "train_vgg16 on BUSI"),
        (None, {"dataset": {"name": "ours"}}, "default on ours"),
        (["train_vgg16", "reporting"], {}, "train_vgg16+reporting on BUSI"),
        (
            ["validate_external"],
            {"external": {"site": "bus_bra"}},
            "validate_external on BUSI, external bus_bra",
        ),
        (["train_vgg16"], {"external": {"site": "bus_bra"}}, "train_vgg16 on BUSI"),
    ],
)
def test_run_is_named_after_pipeline_and_data(
    parameters: dict[str, Any],
    pipelines: list[str] | None,
    changes: dict[str, dict[str, Any]],
    name: str,
) -> None:
    for group, values in changes.items():
        parameters[group] = parameters[group] | values
    checked = check_parameters(parameters)
    assert name_run({"pipeline_names": pipelines}, checked) == name


@pytest.mark.parametrize(
    ("given", "command"),
    [
        ({}, "kedro run"),
        ({"pipeline_names": ["train_vgg16"]}, "kedro run --pipeline=train_vgg16"),
        ({"pipeline_names": ["a", "b"], "env": "demo"}, "kedro run --pipelines=a,b --env=demo"),
        (
            {
                "pipeline_names": ["train_vgg16"],
                "from_nodes": ["x", "y"],
                "runtime_params": {
                    "split": {"method": "random", "seed": 1},
                    "promotion": {"why": "a test", "who": None},
                },
            },
            "kedro run --pipeline=train_vgg16 --from-nodes=x,y "
            "'--params=split.method=random,split.seed=1,promotion.why=a test,promotion.who=null'",
        ),
    ],
)
def test_command_runs_the_same_again(given: dict[str, Any], command: str) -> None:
    assert describe_command(given) == command


def make_run(metrics: dict[str, float]) -> Run:
    tags = {
        "kedro_command": "kedro run --pipeline=train_vgg16",
        "experiments": "vgg16",
        "data_sha256": "0123456789abcdef",
    }
    data = RunData(
        [Metric(key, value, 0, 0) for key, value in metrics.items()],
        [Param("backbone", "vgg16")],
        [RunTag(key, value) for key, value in tags.items()],
    )
    return Run(RunInfo("1", "0", "u", "FINISHED", 0, 1, "active"), data)


def test_description_has_the_main_figures() -> None:
    scores = {"test.images": 115, "test.accuracy": 0.8434, "test.flag.missed": 2}
    assert describe_run(make_run(scores), "BUSI").splitlines() == [
        "`kedro run --pipeline=train_vgg16`",
        "",
        "On BUSI: data 0123456789ab.",
        "",
        "| test images of | images | accuracy | AUC | flag: sensitivity | specificity | missed |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        "| vgg16 | 115 | 0.843 | – | – | – | 2 |",
    ]


def test_description_names_each_experiment_of_several() -> None:
    scores = {"vgg16.test.images": 9, "resnet50.test.images": 9, "resnet50.test.accuracy": 1}
    rows = describe_run(make_run(scores), "BUSI").splitlines()[6:]
    assert [row.split("|")[1].strip() for row in rows] == ["resnet50", "vgg16"]


def test_run_without_scores_has_no_table() -> None:
    assert "|" not in describe_run(make_run({"images.all": 780}), "BUSI")
