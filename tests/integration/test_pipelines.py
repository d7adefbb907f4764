"""The registered pipelines: names, catalog, lineage, and what one more experiment makes of them."""

import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from kedro.framework.project import pipelines
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from kedro.io import DataCatalog
from kedro.pipeline import Pipeline

from busi_pipeline.config.schemas import JoinedSettings
from tests.factories import PROJECT
from tests.integration.projects import create_project, hide_machine, run_command, write_local

IN_DEFAULT = {"vgg16", "resnet50", "inceptionv3", "inceptionv3_adamw"}
OF_ALL = {
    "__default__",
    "ingestion",
    "deduplication",
    "splitting",
    "preprocessing",
    "cross_validation",
    "leakage",
    "model_comparison",
    "reporting",
    "leave_one_site_out",
    "validate_external",
    "adapt",
    "package",
    "predict",
    "rollback",
    "ledger",
    "sync_mlflow",
    "monitor",
}
OF_ONE = {
    "train",
    "cross_validate",
    "leakage",
    "bias_audit",
    "leave_one_site_out",
    "validate_external",
    "adapt",
    "package",
    "promote",
}
LAYERS = [
    "raw",
    "intermediate",
    "primary",
    "feature",
    "model_input",
    "models",
    "model_output",
    "reporting",
]
# Of an experiment that joins others, these audits are of its members.
OF_MEMBERS_ALONE = {"leakage", "bias_audit"}


class Opened(NamedTuple):
    """What a session sees."""

    pipelines: dict[str, Pipeline]
    catalog: DataCatalog


def open_project(
    project: Path, env: str | None = None, parameters: Mapping[str, Any] | None = None
) -> Opened:
    """Return the registered pipelines and the catalog of a session."""
    bootstrap_project(project)
    session = KedroSession.create(
        project_path=project, env=env, runtime_params=dict(parameters or {})
    )
    catalog = session.load_context().catalog
    return Opened(dict(pipelines), catalog)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project with its own conf/base alone."""
    with hide_machine():
        made = create_project(tmp_path_factory.mktemp("pipelines") / "project", {"benign": 1})
        (made / "conf/local/parameters.yml").unlink()
        yield made


@pytest.fixture(scope="module")
def opened(project: Path) -> Opened:
    return open_project(project)


def list_namespaces(pipeline: Pipeline, depth: int = 1) -> set[str]:
    """Return the first `depth` parts of the nodes' namespaces."""
    parts = [node.namespace.split(".") for node in pipeline.nodes if node.namespace]
    return {".".join(part[:depth]) for part in parts if len(part) >= depth}


def test_pipelines_have_the_names_users_type(opened: Opened) -> None:
    experiments = opened.catalog.load("params:experiments")
    assert set(experiments) > IN_DEFAULT
    joined = {name for name, own in experiments.items() if isinstance(own, JoinedSettings)}
    assert joined
    expected = OF_ALL | {
        f"{what}_{name}"
        for what in OF_ONE
        for name in experiments
        if name not in joined or what not in OF_MEMBERS_ALONE
    }
    assert set(opened.pipelines) == expected


def test_joined_experiments_have_all_their_members_do(opened: Opened) -> None:
    joined = opened.catalog.load("params:experiments")["lesion_ensemble"]
    trained = opened.pipelines["train_lesion_ensemble"]
    of_folds = {"cross_validation"}
    shared = {"ingestion", "deduplication", "splitting", "localization"}
    assert list_namespaces(trained) == {"lesion_ensemble", *joined.members} | of_folds | shared
    assert {f"{name}.bag.trained_model" for name in joined.members} <= trained.all_outputs()
    assert "lesion_ensemble.model" in trained.all_outputs()
    outside = opened.pipelines["validate_external_lesion_ensemble"]
    assert "lesion_ensemble.model" in outside.inputs()
    assert not list_namespaces(outside) & set(joined.members), "it is one model there"
    assert {f"{name}.model" for name in joined.members} & outside.inputs() == set()


def test_each_command_on_the_way_to_a_champion_leaves_what_the_next_needs(opened: Opened) -> None:
    given = {"promotion.registry", "external.raw_images"}
    known = {f"external.known_{what}" for what in ("images", "manifest", "split_manifest")}
    for name in opened.catalog.load("params:experiments"):
        trained = opened.pipelines[f"train_{name}"]
        there = trained.all_outputs() | trained.inputs() | given | known
        for what in ("package", "validate_external", "promote"):
            pipeline = opened.pipelines[f"{what}_{name}"]
            lacking = {own for own in pipeline.inputs() if not own.startswith("params:")} - there
            assert not lacking, f"{what}_{name}"
            there |= pipeline.all_outputs()


def test_default_pipelines_are_of_the_default_experiments(opened: Opened) -> None:
    default, folds = opened.pipelines["__default__"], opened.pipelines["cross_validation"]
    shared = {"ingestion", "deduplication", "preprocessing", "model_comparison"}
    assert list_namespaces(default) == IN_DEFAULT | shared | {"splitting"}
    assert {
        "model_comparison.compare_experiments",
        "ingestion.build_manifest",
        "splitting.split_images",
    } <= {node.name for node in default.nodes}
    assert list_namespaces(folds) == IN_DEFAULT | shared | {"ensemble", "cross_validation"}


def test_every_node_is_in_a_box_and_no_dataset_is_renamed(opened: Opened) -> None:
    for name, pipeline in opened.pipelines.items():
        assert all(node.namespace for node in pipeline.nodes), name
    shared = {"raw_images", "manifest", "image_groups", "split_manifest", "comparison_table"}
    assert shared <= opened.pipelines["__default__"].datasets()


@pytest.mark.parametrize("env", [None, "demo"])
def test_every_dataset_is_in_the_catalog(project: Path, env: str | None) -> None:
    """TRAP: a misspelt factory pattern silently becomes a MemoryDataset and nothing is saved."""
    opened = open_project(project, env)
    names = {name for pipeline in opened.pipelines.values() for name in pipeline.datasets()}
    for name in names:
        if name.startswith("params:"):
            assert name in opened.catalog, name
        else:
            assert type(opened.catalog.get(name)).__name__ != "MemoryDataset", name


@pytest.mark.parametrize("env", [None, "demo"])
def test_no_two_datasets_share_a_file(project: Path, env: str | None) -> None:
    opened = open_project(project, env)
    places: dict[str, str] = {}
    # A model's card is written by two pipelines: after training, and after an external validation.
    made = {name for pipeline in opened.pipelines.values() for name in pipeline.all_outputs()}
    for name in sorted(made):
        described = opened.catalog.get(name)._describe()
        place = str(described.get("filepath") or described["path"])
        assert place.startswith(str(project)), f"{name} is not below the project"
        assert place not in places, f"{name} and {places.get(place)} both write {place}"
        places[place] = name


def test_a_fold_is_a_node(project: Path) -> None:
    opened = open_project(project, parameters={"cross_validation": {"folds": 3, "repeats": 2}})
    nodes = opened.pipelines["cross_validate_resnet50"].nodes
    trainings = sorted(node.name for node in nodes if node.name.endswith(".train_fold"))
    assert trainings == [
        f"resnet50.cross_validation.repeat_{repeat}_fold_{fold}.train_fold"
        for repeat in (1, 2)
        for fold in (1, 2, 3)
    ]
    leakage = opened.pipelines["leakage_resnet50"].nodes
    random = [n for n in leakage if n.name.startswith("resnet50.random_folds.repeat")]
    assert len(random) == 3, "duplicates are parted once"


def test_a_fold_needs_no_other_fold(opened: Opened) -> None:
    pipeline = opened.pipelines["cross_validate_resnet50"]
    name = "resnet50.cross_validation.repeat_1_fold_1.train_fold"
    before = pipeline.to_nodes(name).nodes
    assert [n.name for n in before if n.name.endswith("train_fold")] == [name]


@pytest.mark.parametrize(
    ("entry", "size"), [("{backbone: densenet121}", 224), ("{backbone: vgg16, image_size: 96}", 96)]
)
def test_one_more_experiment_is_one_entry(project: Path, entry: str, size: int) -> None:
    before = open_project(project).pipelines
    opened = open_project(project, parameters={"experiments": {"mine": yaml.safe_load(entry)}})
    train = opened.pipelines["train_mine"]
    assert "mine" in list_namespaces(train)
    assert f"preprocessing.prepare_images_{size}" in {node.name for node in train.nodes}
    assert "mine.metrics" in opened.pipelines["model_comparison"].inputs()
    assert "mine" in list_namespaces(opened.pipelines["__default__"])
    added = {f"{what}_mine" for what in OF_ONE}
    assert set(opened.pipelines) == set(before) | added
    for name in before.keys() - OF_ALL:
        assert opened.pipelines[name].describe() == before[name].describe(), name


def test_replications_have_the_published_settings(opened: Opened) -> None:
    experiments = opened.catalog.load("params:experiments")
    for name in IN_DEFAULT:
        settings = experiments[f"replication_{name}"]
        training, phase = settings.training, settings.training.head_phase
        assert settings.baseline_of == name
        assert not settings.fine_tunes, "the base stayed frozen"
        assert (training.head.dense_units, training.head.dropout) == (512, 0.5)
        assert training.head.batch_normalization
        assert training.label_smoothing == 0.1
        assert (phase.epochs, phase.patience) == (20, 5)
        assert phase.batch_size == (8 if "inception" in name else 16)
        assert phase.optimizer.name == ("rmsprop" if name == "inceptionv3" else "adamw")
        assert phase.optimizer.learning_rate == 1e-4
        assert (phase.optimizer.schedule, phase.optimizer.plateau_factor) == ("plateau", 0.2)
        assert settings.augmentation.per_image == 20


def draw_lineage(project: Path, env: str) -> Callable[[str], Any]:
    """Return what gives Kedro-Viz's drawing of a pipeline."""
    from kedro_viz.api.rest.responses.pipelines import get_pipeline_response
    from kedro_viz.data_access import data_access_manager
    from kedro_viz.server import load_and_populate_data

    data_access_manager.reset_fields()
    load_and_populate_data(project, env=env)
    return get_pipeline_response


def list_first_sight(drawing: Any) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Return {id: node} and the edges that Kedro-Viz shows before anything is expanded."""
    children = {child.id for child in drawing.modular_pipelines["__root__"].children}
    nodes = {n.id: n for n in drawing.nodes if n.id in children and n.type != "parameters"}
    edges = [(edge.source, edge.target) for edge in drawing.edges]
    return nodes, [edge for edge in edges if nodes.keys() >= set(edge)]


@pytest.fixture(scope="module")
def drawn(project: Path) -> Callable[[str], Any]:
    """What Kedro-Viz draws of a pipeline of the demo."""
    return draw_lineage(project, "demo")


def test_lineage_is_drawn_with_layers(drawn: Callable[[str], Any]) -> None:
    """TRAP: Kedro-Viz takes a circle of layers as no order at all and draws none."""
    for name in ("__default__", "train_resnet50", "train_resnet50_lesion"):
        assert drawn(name).layers == LAYERS, name
    layers = drawn("cross_validation").layers
    of_hold_out = ("models",)
    assert [layer for layer in layers if layer not in of_hold_out] == [
        layer for layer in LAYERS if layer not in of_hold_out
    ]


def test_lineage_opens_as_about_ten_boxes(drawn: Callable[[str], Any]) -> None:
    """With datasets hidden, as `kedro viz run` opens it."""
    nodes, _ = list_first_sight(drawn("__default__"))
    boxes = [node.name for node in nodes.values() if node.type == "modularPipeline"]
    assert 8 <= len(boxes) <= 12
    assert not [node.name for node in nodes.values() if node.type == "task"]
    ends = {end for edge in drawn("__default__").edges for end in (edge.source, edge.target)}
    assert set(boxes) <= ends


def test_plots_of_an_experiment_are_one_box(drawn: Callable[[str], Any]) -> None:
    tree = drawn("train_resnet50").modular_pipelines
    steps = {node.id: node.name for node in drawn("train_resnet50").nodes if node.type == "task"}
    of = {
        box: {steps[child.id] for child in tree[box].children if child.id in steps}
        for box in ("resnet50", "resnet50.plots")
    }
    assert {"plot_misclassified", "plot_learning_curves"} <= of["resnet50.plots"]
    assert not [name for name in of["resnet50"] if name.startswith("plot_")]
    assert "train_model" in of["resnet50"]


def test_lineage_is_that_of_the_environment(drawn: Callable[[str], Any]) -> None:
    """TRAP: Kedro-Viz runs no hooks, so a hook cannot give the registry its parameters."""
    assert "prepare_images_96" in {node.name for node in drawn("train_inceptionv3").nodes}


def test_lineage_shows_every_fold(drawn: Callable[[str], Any]) -> None:
    names = [node.name for node in drawn("cross_validate_resnet50").nodes]
    assert names.count("train_fold") == 3
    assert "resnet50.cross_validation.repeat_1_fold_1" in names


@pytest.mark.parametrize("env", ["demo", "two_sites"])
def test_layers_have_no_circle_and_nothing_floats(
    project: Path, env: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Of every pipeline, with one experiment of each kind; one site gives none to leave out."""
    from kedro_viz.api.rest.responses.pipelines import get_pipeline_response
    from kedro_viz.data_access import data_access_manager
    from kedro_viz.server import populate_data

    with warnings.catch_warnings():
        # Of Kedro, where a box is left and entered again.
        warnings.filterwarnings("error", message="Namespace .* is interrupted")
        opened = open_project(project, env)
    experiments = opened.catalog.load("params:experiments")
    kinds = {(type(own), own.input.needs_lesion): name for name, own in experiments.items()}
    assert len(kinds) >= 3
    names = OF_ALL | {f"{what}_{name}" for what in OF_ONE for name in kinds.values()}
    shown = {name: pipeline for name, pipeline in opened.pipelines.items() if name in names}
    data_access_manager.reset_fields()
    populate_data(data_access_manager, opened.catalog, shown, {})
    for name in shown:
        drawing = get_pipeline_response(name)
        assert not [r for r in caplog.records if "circular" in r.getMessage()], name
        assert not list(find_steps_back(drawing)), name
        nodes, edges = list_first_sight(drawing)
        floating = nodes.keys() - {end for edge in edges for end in edge}
        assert not [nodes[i].name for i in floating], name


def find_steps_back(drawing: Any) -> Iterator[str]:
    """Yield what leads from a later layer to an earlier one, past datasets without a layer."""
    before: dict[str, set[str]] = {node.id: set() for node in drawing.nodes}
    for edge in drawing.edges:
        before[edge.target].add(edge.source)
    ranks = {n.id: LAYERS.index(n.layer) for n in drawing.nodes if getattr(n, "layer", None)}
    latest: dict[str, int] = {}
    for node in TopologicalSorter(before).static_order():
        latest[node] = max((latest[above] for above in before[node]), default=-1)
        rank = ranks.get(node, latest[node])
        if rank < latest[node]:
            yield f"{LAYERS[latest[node]]} -> {LAYERS[rank]}: {node}"
        latest[node] = max(latest[node], rank)


@pytest.mark.parametrize("env", [None, "demo"])
def test_previews_show_no_patient(project: Path, env: str | None) -> None:
    """A row an image names it, a plot of images shows them: those of the demo are of nobody."""
    opened = open_project(project, env)
    nodes = {node.name: node for pipeline in opened.pipelines.values() for node in pipeline.nodes}
    names = {name for node in nodes.values() for name in (*node.inputs, *node.outputs)}
    private = {name for name in names if name.endswith((".quarantine", "prediction.findings"))}
    private |= {"quarantine", "prediction.findings_parquet", "prediction.attribution"}
    for name in names:
        columns = getattr(opened.catalog.get(name), "_load_args", {}).get("dtype", {})
        if isinstance(columns, dict) and {"image_id", "image_a", "image"} & columns.keys():
            private.add(name)
    for node in nodes.values():
        shown = {given.rpartition(".")[2].partition("_")[0] for given in node.inputs}
        if {"raw", "images", "masks"} & shown:
            private |= {made for made in node.outputs if made.endswith("_plot")}
    assert {"manifest", "duplicate_pairs_plot", "resnet50.predictions"} <= private
    assert {"resnet50.misclassified_plot", "resnet50.gradcam_gallery_plot"} <= private
    assert not {"resnet50.per_class_metrics", "resnet50.roc_pr_curves_plot"} & private
    for name in private:
        metadata = opened.catalog.get(name).metadata
        assert metadata["kedro-viz"]["preview"] is (env == "demo"), name


def test_registry_does_not_wait_for_tensorflow() -> None:
    code = (
        "import sys, busi_pipeline.pipeline_registry as registry; registry.register_pipelines(); "
        "assert not {'tensorflow', 'keras'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PROJECT)


def test_the_configuration_names_no_folder_of_a_machine() -> None:
    declared = yaml.safe_load((PROJECT / "conf/base/globals.yml").read_text())
    assert not declared["data"].startswith("/")


def test_wrong_entry_is_answered_in_one_line(project: Path) -> None:
    write_local(project / "conf", {"experiments": {"mine": {"backbone": "resnet5"}}})
    done = run_command(project, "--pipeline=train_mine")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("Error: ")
    assert "backbone must be one of" in done.stderr.splitlines()[-1]
