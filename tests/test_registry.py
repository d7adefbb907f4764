"""The house as it stands in the registry: names, catalog, one row more."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from kedro.framework.project import pipelines
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from kedro.io import DataCatalog
from kedro.pipeline import Pipeline

from busi_pipeline.config.loader import ProjectConfigLoader
from tests.conftest import PROJECT

ROWS = ["vgg16", "resnet50", "inceptionv3", "inceptionv3_adamw"]
STAGES = ["ingestion", "copies", "split", "augmentation", "comparison", "report"]


@pytest.fixture
def open_project(
    make_project: Callable[..., Path],
) -> Iterator[Callable[..., tuple[dict[str, Pipeline], DataCatalog]]]:
    """Give the registered pipelines and the catalog of a project with changes in conf/local."""

    def open_with(
        local: str = "", env: str | None = None
    ) -> tuple[dict[str, Pipeline], DataCatalog]:
        project = make_project()
        (project / "conf/local/parameters_more.yml").write_text(local)
        bootstrap_project(project)
        with KedroSession.create(project_path=project, env=env) as session:
            return dict(pipelines), session.load_context().catalog

    yield open_with
    ProjectConfigLoader.latest = None


def test_pipelines_have_the_names_users_type(
    open_project: Callable[..., tuple[dict[str, Pipeline], DataCatalog]],
) -> None:
    registered, _ = open_project()
    expected = {"__default__", *STAGES}
    expected |= {f"train_{row}" for row in ROWS}
    expected |= {f"train_replication_{row}" for row in ROWS}
    expected |= {name.replace("train", "cross_validate") for name in expected if "train" in name}
    validate = {name for name in expected if name.startswith("cross_validate")}
    expected |= {name.replace("cross_validate", "leakage") for name in validate}
    expected |= {name.replace("cross_validate", "shortcuts") for name in validate}
    expected |= {"cross_validation", "leakage"}
    assert set(registered) == expected
    validated = registered["cross_validation"].nodes
    assert {n.namespace for n in validated if n.namespace} == set(ROWS)
    default = registered["__default__"].nodes
    assert {n.namespace for n in default if n.namespace} == set(ROWS)
    assert {"compare_experiments", "build_manifest", "split_images"} <= {n.name for n in default}


@pytest.mark.parametrize("env", [None, "demo"])
def test_every_dataset_of_every_pipeline_is_declared(
    open_project: Callable[..., tuple[dict[str, Pipeline], DataCatalog]], env: str | None
) -> None:
    """TRAP: a misspelt factory pattern silently becomes a MemoryDataset and nothing is saved."""
    registered, catalog = open_project(env=env)
    for name, pipeline in registered.items():
        for dataset in pipeline.datasets():
            if dataset.startswith("params:"):
                assert dataset in catalog, f"{name}: {dataset}"
            else:
                resolved = type(catalog.get(dataset)).__name__
                assert resolved != "MemoryDataset", f"{name}: {dataset} is not in the catalog"


def test_saved_files_of_two_experiments_are_apart(
    open_project: Callable[..., tuple[dict[str, Pipeline], DataCatalog]],
) -> None:
    registered, catalog = open_project()
    places: dict[str, str] = {}
    both = registered["__default__"] + registered["cross_validation"] + registered["leakage"]
    for dataset in sorted(both.all_outputs()):
        described = catalog.get(dataset)._describe()
        place = str(described.get("filepath") or described.get("path"))
        assert place not in places, f"{dataset} and {places.get(place)} both write {place}"
        places[place] = dataset


@pytest.mark.parametrize(
    "row",
    [
        "densenet121: {backbone: densenet121}",
        "resnet50_320: {backbone: resnet50, image_size: 320, title: ResNet50 at 320 pixels}",
    ],
)
def test_fifth_experiment_is_one_row(
    open_project: Callable[..., tuple[dict[str, Pipeline], DataCatalog]], row: str
) -> None:
    registered, catalog = open_project(f"experiments:\n  {row}\n")
    name = row.split(":", maxsplit=1)[0]
    nodes = registered[f"train_{name}"].nodes
    assert {n.namespace for n in nodes if n.namespace} == {name}
    size = 320 if "320" in name else 224
    assert f"prepare_images_{size}" in {n.name for n in nodes}
    assert f"{name}.metrics" in registered["comparison"].inputs()
    assert name in {n.namespace for n in registered["__default__"].nodes}
    settings = catalog.load(f"{name}.settings")
    assert settings["image_size"] == size
    assert settings["training"]["class_weights"] == "balanced"
    assert {f"train_{r}" for r in ROWS} <= set(registered), "the other rows must stay"


def test_one_value_in_an_environment_leaves_the_other_rows(
    open_project: Callable[..., tuple[dict[str, Pipeline], DataCatalog]],
) -> None:
    _, catalog = open_project("experiments:\n  vgg16:\n    training: {head_phase: {epochs: 3}}\n")
    assert catalog.load("vgg16.settings")["training"]["head_phase"]["epochs"] == 3
    assert catalog.load("vgg16.settings")["title"] == "VGG16"
    assert catalog.load("resnet50.settings")["training"]["head_phase"]["epochs"] != 3


def test_replication_rows_say_what_the_published_recipe_was(
    open_project: Callable[..., tuple[dict[str, Pipeline], DataCatalog]],
) -> None:
    _, catalog = open_project()
    for row in ROWS:
        settings = catalog.load(f"replication_{row}.settings")
        training, phase = settings["training"], settings["training"]["head_phase"]
        assert settings["baseline_of"] == row
        assert training["fine_tuning"]["epochs"] == 0, "the base stayed frozen"
        assert training["head"]["dense_units"] == 512
        assert training["head"]["batch_normalization"]
        assert training["head"]["dropout"] == 0.5
        assert training["label_smoothing"] == 0.1
        assert (phase["epochs"], phase["patience"]) == (20, 5)
        assert phase["batch_size"] == (8 if "inception" in row else 16)
        optimizer = phase["optimizer"]
        assert optimizer["name"] == ("rmsprop" if row == "inceptionv3" else "adamw")
        assert optimizer["learning_rate"] == 1e-4
        assert (optimizer["schedule"], optimizer["plateau_factor"]) == ("plateau", 0.2)
        assert settings["augmentation"]["views"] == 20


def test_wrong_row_is_answered_in_one_line(make_project: Callable[..., Path]) -> None:
    project = make_project()
    (project / "conf/local/parameters_more.yml").write_text(
        "experiments:\n  mine: {backbone: resnet5}\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "kedro", "run", "--pipeline=train_mine"],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "Error: backbone must be one of" in done.stderr


def test_registry_does_not_wait_for_tensorflow() -> None:
    code = (
        "import sys, busi_pipeline.pipeline_registry; "
        "assert 'tensorflow' not in sys.modules and 'keras' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PROJECT)


def test_no_registry_host_or_machine_path_in_the_pinned_set() -> None:
    lines = (PROJECT / "requirements.lock").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all("==" in line and "://" not in line and "@" not in line for line in pins)
    declared = yaml.safe_load((PROJECT / "conf/base/globals.yml").read_text())
    assert not declared["data"].startswith("/")
