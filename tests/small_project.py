"""The project's parameters as plain dictionaries, and a Kedro project of three small nodes."""

import copy
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import mlflow
import pytest
import yaml

from busi_pipeline.config.loader import activate
from tests.factories import PROJECT

REGISTRY = """
from kedro.pipeline import Node, Pipeline
from busi_pipeline.config.loader import load_active_parameters
from busi_pipeline.config.schemas import EvaluationSettings, ExperimentSettings
from busi_pipeline.stats.classes import Classes

def train(settings: ExperimentSettings, classes: Classes, evaluation: EvaluationSettings):
    return {"epochs": settings.training.fine_tuning.epochs, "classes": len(classes)}

def tabulate(metrics):
    import pandas as pd
    return pd.DataFrame([metrics])

def tag(table):
    return {"rows": len(table)}

def create_pipeline(name):
    nodes = [
        Node(train, ["params:s", "params:classes", "params:evaluation"], "metrics"),
        Node(tabulate, "metrics", "table"),
        Node(tag, "table", "tags"),
    ]
    given = {name: name for name in ("params:classes", "params:evaluation")}
    given["params:s"] = f"params:experiments.{name}"
    return Pipeline(nodes, namespace=name, parameters=given)

def register_pipelines():
    names = load_active_parameters()["experiments"]
    return {f"train_{name}": create_pipeline(name) for name in names}
"""

CATALOG = """
"{experiment}.metrics":
  type: busi_pipeline.datasets.record.RunRecordDataset
  filepath: data/metrics.json
  log_as: metrics
  experiment: "{experiment}"
"{experiment}.tags":
  type: busi_pipeline.datasets.record.RunRecordDataset
  filepath: data/tags.json
  log_as: tags
  experiment: "{experiment}"
"{experiment}.table":
  type: kedro_mlflow.io.artifacts.MlflowArtifactDataset
  dataset: {type: pandas.CSVDataset, filepath: data/table.csv}
"""


@pytest.fixture(scope="session")
def _base_parameters() -> dict[str, Any]:
    parameters: dict[str, Any] = {}
    for path in sorted((PROJECT / "conf/base").glob("parameters*.yml")):
        text = path.read_text().replace("${weights_choice:}", "imagenet")
        parameters |= yaml.safe_load(text.replace("${globals:synthetic}", "false"))
    kept = ("vgg16", "resnet50", "inceptionv3", "replication_vgg16")
    parameters["experiments"] = {name: parameters["experiments"][name] for name in kept}
    return parameters


@pytest.fixture(scope="session")
def _empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow store with its tables, which take MLflow a second to make."""
    store = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    mlflow.MlflowClient(f"sqlite:///{store}").search_experiments()
    return store


@pytest.fixture
def parameters(_base_parameters: dict[str, Any]) -> dict[str, Any]:
    """The parameters of conf/base as plain dictionaries, with four of the experiments."""
    return copy.deepcopy(_base_parameters)


@pytest.fixture
def make_conf(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Make `<tmp_path>/<folder>/conf`: the project's parameters, a small catalog, a `local`."""

    def make(folder: str = "project", local: str = "") -> Path:
        conf = tmp_path / folder / "conf"
        shutil.copytree(
            PROJECT / "conf", conf, ignore=shutil.ignore_patterns("local", "catalog*", "logging*")
        )
        (conf / "base/catalog.yml").write_text(CATALOG)
        (conf / "local").mkdir()
        (conf / "local/parameters.yml").write_text(local)
        return conf

    yield make
    activate(None)


@pytest.fixture
def make_small_project(
    make_conf: Callable[..., Path], _empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Path]]:
    """Make a Kedro project with the hooks and settings of this one, bootstrap it, stand in it."""
    from kedro.framework.startup import bootstrap_project

    monkeypatch.setattr(sys, "path", list(sys.path))

    def make(has_store: bool = True) -> Path:
        root = make_conf().parent
        if has_store:
            shutil.copy(_empty_store, root)
        package = f"small_{uuid4().hex}"
        code = root / "src" / package
        code.mkdir(parents=True)
        (code / "__init__.py").touch()
        (code / "settings.py").write_text("from busi_pipeline.settings import *\n")
        (code / "pipeline_registry.py").write_text(REGISTRY)
        keys = {"package_name": package, "project_name": package, "kedro_init_version": "1.7.0"}
        lines = [f'{key} = "{value}"' for key, value in keys.items()]
        (root / "pyproject.toml").write_text("\n".join(["[tool.kedro]", *lines]))
        monkeypatch.chdir(root)
        bootstrap_project(root)
        return root

    yield make
    while mlflow.active_run() is not None:
        mlflow.end_run()
    mlflow.set_tracking_uri(None)
    mlflow.set_registry_uri(None)
