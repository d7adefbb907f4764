"""The config loader: whose values it gives, where it looks, what it says where nothing is."""

import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from busi_pipeline.config.loader import (
    LOADER_ARGUMENTS,
    ProjectConfigLoader,
    activate,
    find_project_root,
    load_active_parameters,
)
from busi_pipeline.errors import BadInputError

PATTERNS = {"mlflow": ["mlflow*"]}


def open_loader(conf: Path, **arguments: object) -> ProjectConfigLoader:
    return ProjectConfigLoader(conf, config_patterns=PATTERNS, **LOADER_ARGUMENTS | arguments)


def test_two_environments_do_not_mix(make_conf: Callable[..., Path]) -> None:
    conf = make_conf()
    local, demo = open_loader(conf), open_loader(conf, env="demo")
    assert local["parameters"]["experiments"]["inceptionv3"].image_size == 299
    assert demo["parameters"]["experiments"]["inceptionv3"].image_size == 96
    assert local["parameters"]["evaluation"].n_resamples == 1000


def test_globals_are_those_of_the_loader(make_conf: Callable[..., Path]) -> None:
    """TRAP: OmegaConf has one set of resolvers; Kedro's last loader gives globals to all."""
    first, second = make_conf("first"), make_conf("second")
    (second / "local/globals.yml").write_text("synthetic: true\n")
    loaders = [open_loader(first), open_loader(second)]
    assert [loader["parameters"]["dataset"].synthetic for loader in loaders] == [False, True]


def test_banner_and_report_agree(make_conf: Callable[..., Path]) -> None:
    wrong = {"dataset": {"synthetic": True}}
    with pytest.raises(BadInputError, match=r"set `synthetic` in globals\.yml"):
        open_loader(make_conf(), runtime_params=wrong)["parameters"]


def test_folders_are_those_of_the_loader(make_conf: Callable[..., Path]) -> None:
    loaders = [open_loader(make_conf(folder)) for folder in ("first", "second")]
    for loader, folder in zip(loaders, ("first", "second"), strict=True):
        loader.project_root = Path("/somewhere") / folder
    for loader, folder in zip(loaders, ("first", "second"), strict=True):
        store = loader["mlflow"]["server"]["mlflow_tracking_uri"]
        assert store == f"sqlite:////somewhere/{folder}/mlflow.db"
        kept = loader["mlflow"]["tracking"]["experiment"]["create_experiment_kwargs"]
        assert kept["artifact_location"] == f"file:///somewhere/{folder}/mlartifacts"


def test_the_command_of_a_run_is_known_to_its_pages(make_conf: Callable[..., Path]) -> None:
    conf = make_conf()
    entry = "environment: ${run_environment:}\n  params: ${run_params:}\n"
    (conf / "base/catalog.yml").write_text(f"run:\n  type: text.TextDataset\n  {entry}")
    params = {"split": {"seed": 1}, "training": {"tta_horizontal_flip": False}}
    given = open_loader(conf, env="demo", runtime_params=params)["catalog"]["run"]
    assert given["environment"] == "demo"
    assert given["params"] == ["split.seed=1", "training.tta_horizontal_flip=false"]
    bare = open_loader(conf)["catalog"]["run"]
    assert (bare["environment"], bare["params"]) == (None, [])


def test_command_line_values_stay_with_their_loader(make_conf: Callable[..., Path]) -> None:
    conf = make_conf()
    first = open_loader(conf, runtime_params={"split": {"seed": 1}})
    second = open_loader(conf, runtime_params={"split": {"seed": 2}})
    assert (first["parameters"]["split"].seed, second["parameters"]["split"].seed) == (1, 2)


def test_parameters_are_checked_once(make_conf: Callable[..., Path]) -> None:
    conf = make_conf()
    loader = open_loader(conf)
    checked = loader["parameters"]
    (conf / "local/parameters.yml").write_text("split: {seed: 7}\n")
    assert loader["parameters"] is checked
    assert open_loader(conf)["parameters"]["split"].seed == 7


def test_command_line_is_checked_like_files(make_conf: Callable[..., Path]) -> None:
    loader = open_loader(make_conf(), runtime_params={"split": {"metod": "random"}})
    with pytest.raises(BadInputError, match=r"Did you mean split\.method\?"):
        loader["parameters"]


def test_environment_adds_to_base(make_conf: Callable[..., Path]) -> None:
    conf = make_conf(local="experiments: {vgg16: {training: {head_phase: {epochs: 3}}}}\n")
    experiments = open_loader(conf)["parameters"]["experiments"]
    assert experiments["vgg16"].training.head_phase.epochs == 3
    assert experiments["vgg16"].title == "VGG16"
    assert experiments["resnet50"].training.head_phase.epochs == 30


def test_new_experiment_is_one_entry(make_conf: Callable[..., Path]) -> None:
    conf = make_conf(local="experiments: {big: {backbone: resnet50, image_size: 320}}\n")
    experiments = open_loader(conf)["parameters"]["experiments"]
    assert experiments["big"].image_size == 320
    assert experiments["big"].training == experiments["resnet50"].training
    assert len(experiments) == 1 + len(open_loader(conf, env="base")["parameters"]["experiments"])


def test_root_is_the_project_of_the_conf_source(
    make_conf: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = make_conf("project")
    (tmp_path / "around").mkdir()
    for folder in ("project", "around"):
        (tmp_path / folder / "pyproject.toml").write_text('[tool.kedro]\npackage_name = "x"\n')
    monkeypatch.chdir(tmp_path / "around")
    assert open_loader(conf).project_root == tmp_path / "project"
    assert open_loader(make_conf("loose")).project_root == tmp_path / "around"
    monkeypatch.chdir(tmp_path)
    assert open_loader(tmp_path / "loose/conf").project_root == tmp_path
    assert find_project_root() == tmp_path, "never the folder that the package is installed in"


def test_archive_of_kedro_package_is_read(make_conf: Callable[..., Path], tmp_path: Path) -> None:
    archive = tmp_path / "conf.tar.gz"
    conf = make_conf(local="split: {seed: 7}\n")
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(conf / "base", "conf/base")
        tar.add(conf / "demo", "conf/demo")
    assert open_loader(archive)["parameters"]["split"].seed == 42, "local is not packed"
    assert open_loader(archive, env="demo")["parameters"]["dataset"].synthetic
    with pytest.raises(BadInputError, match=r"no environment 'x' in .*There are base, demo\."):
        open_loader(archive, env="x")["parameters"]


def test_conf_without_local_is_base(make_conf: Callable[..., Path]) -> None:
    conf = make_conf()
    (conf / "local/parameters.yml").unlink()
    (conf / "local").rmdir()
    assert open_loader(conf)["parameters"]["split"].seed == 42


def test_missing_configuration_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"^no configuration at .*--conf-source=") as caught:
        open_loader(tmp_path / "conf")["parameters"]
    assert "\n" not in str(caught.value)


def test_missing_environment_names_those_there_are(make_conf: Callable[..., Path]) -> None:
    with pytest.raises(
        BadInputError,
        match=r"no environment 'dmo'.* Did you mean --env=demo\? There are base, bus_bra, cluster",
    ):
        open_loader(make_conf(), env="dmo")["parameters"]


@pytest.mark.parametrize("kind", ["parameters", "catalog", "globals", "mlflow", "credentials"])
@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("a: {b: 1\n  x: [\n", "line 2: this is no YAML: did not find expected ',' or '}' while p"),
        ("a: [", "line 1: this is no YAML: "),
        ("a:\n\tb: 1\n", "line 2: this is no YAML: found character that cannot start any token"),
        ("# x\na: {b: 1, b: 2}", "line 2: this is no YAML: found duplicate key b"),
        ("# x\na: \xe4".encode("latin-1"), "line 2: this is no text in UTF-8."),
        ("- a\n- b\n", "this must be a mapping of names to values; got"),
    ],
)
def test_unreadable_file_is_named_with_its_line(
    make_conf: Callable[..., Path], kind: str, text: str | bytes, answer: str
) -> None:
    conf = make_conf()
    file = conf / f"local/{kind}.yml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(BadInputError) as caught:
        open_loader(conf)[kind]
    said = str(caught.value)
    assert said.startswith(str(file))
    assert answer in said
    assert "\n" not in said


def test_wrong_reference_is_named_with_its_line(make_conf: Callable[..., Path]) -> None:
    loader = open_loader(make_conf(local="split:\n  seed: ${globals:nothing}\n"))
    with pytest.raises(
        BadInputError, match=r"local/parameters\.yml, line 2: split\.seed: Globals k"
    ):
        loader["parameters"]


@pytest.mark.parametrize(
    ("local", "answer"),
    [
        (
            "# x\nexperiments:\n  resnet50:\n    backbon: vgg16\n",
            "line 4: experiments.resnet50.bac",
        ),
        (
            "experiments:\n  mine:\n    image_size: 64\n    backbon: vgg16\n",
            "line 4: experiments.m",
        ),
        ("experiments:\n  mine: {image_size: 64}\n", "line 2: experiments.mine names no backbone"),
        (
            "\ntraining:\n  fine_tuning: {epochs: many}\n",
            "line 3: training.fine_tuning.epochs must",
        ),
        ("backbon: vgg16\n", "line 1: backbon is no setting."),
        (
            "\ningestion: {sites: [bsi]}\n",
            "line 2: ingestion.sites names 'bsi', which is no site. D",
        ),
        (
            "\nsites: {rio: {folder: /a}}\nexternal: {site: rio, folder: /data/Lima}\n",
            "line 3: external.site is 'rio', which lies in /a, but external.folder is /data/Lima: "
            "give that folder a site of another name, external.site=lima.",
        ),
    ],
)
def test_wrong_setting_is_named_with_its_file(
    make_conf: Callable[..., Path], local: str, answer: str
) -> None:
    conf = make_conf(local=local)
    with pytest.raises(BadInputError) as caught:
        open_loader(conf)["parameters"]
    assert str(caught.value).startswith(f"{conf / 'local/parameters.yml'}, {answer}")


@pytest.mark.parametrize(
    "wrong",
    [
        {"trainng": {"weights": "none"}},
        {"split": {"sed": 3}},
        {"experiments": {"resnet5": {"training": {"x": 1}}}},
        {"experiments": {"resnet50": {"training": {"x": 1}}}},
        {"training": {"weights": "some"}},
    ],
)
def test_wrong_setting_of_the_command_is_named(
    make_conf: Callable[..., Path], wrong: dict[str, object]
) -> None:
    with pytest.raises(BadInputError, match=r"^--params: "):
        open_loader(make_conf(), runtime_params=wrong)["parameters"]


def test_shared_value_is_found_behind_an_experiment(make_conf: Callable[..., Path]) -> None:
    """What is wrong with an experiment alone may stand under the values for all."""
    conf = make_conf(local="augmentation: {scanner_variation: true}\ninput: {grey: false}\n")
    with pytest.raises(BadInputError, match=r"line 1: experiments|yml, line \d+: experiments"):
        open_loader(conf)["parameters"]


def test_without_session_kedro_env_decides(
    make_conf: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = make_conf()
    monkeypatch.chdir(conf.parent)
    assert not load_active_parameters()["dataset"].synthetic
    monkeypatch.setenv("KEDRO_ENV", "demo")
    assert load_active_parameters()["dataset"].synthetic


def test_open_session_goes_before_the_folder(
    make_conf: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(make_conf("here").parent)
    activate(open_loader(make_conf("there"), env="demo"))
    assert load_active_parameters()["dataset"].synthetic
    activate(None)
    assert not load_active_parameters()["dataset"].synthetic


def test_machine_gives_folder_weights_and_server(
    make_conf: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = make_conf()
    monkeypatch.setenv("BUSI_RAW_DIR", "~/images")
    monkeypatch.setenv("BUSI_WEIGHTS_DIR", "/weights")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server")
    loader = open_loader(conf)
    assert loader["globals"]["raw_dir"] == str(Path.home() / "images")
    assert loader["parameters"]["training"].weights == "directory"
    assert loader["mlflow"]["server"]["mlflow_tracking_uri"] == "http://server"
    experiment = loader["mlflow"]["tracking"]["experiment"]
    assert experiment["create_experiment_kwargs"]["artifact_location"] is None
