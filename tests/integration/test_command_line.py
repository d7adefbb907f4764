"""`kedro run` as users type it: wrong values, other folders, other configurations, a stop."""

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import mlflow
import pytest
from kedro.framework.startup import bootstrap_project

import busi_pipeline
from busi_pipeline.__main__ import main
from busi_pipeline.errors import BadInputError
from tests.integration.projects import (
    RAW,
    create_project,
    create_store,
    find_runs,
    hide_machine,
    read_json,
    run_command,
    run_pipeline,
    write_local,
)

ENDLESS = "training.fine_tuning.epochs=9999,training.fine_tuning.patience=9999"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with hide_machine():
        yield create_project(tmp_path_factory.mktemp("command") / "project")


@pytest.fixture
def own_project(tmp_path: Path) -> Iterator[Path]:
    with hide_machine():
        yield create_project(tmp_path / "project")


@pytest.mark.parametrize(
    ("parameter", "answer"),
    [
        ("split.metod=random", "split.metod is no setting. Did you mean split.method?"),
        ("trainng.weights=none", "trainng is no setting. Did you mean training?"),
        ("evaluation.prevalence=5", "prevalence must be a number, above 0 and below 1; got 5."),
        ("split.seed=abc", "split.seed must be a whole number"),
        ("evaluation.n_resamples=0", "n_resamples must be a whole number, at least 10; got 0."),
        ("evaluation.target_sensitivity=1.5", "target_sensitivity must be a number, above 0"),
        ("judging.draws=100", "judging.draws is now evaluation.n_resamples"),
        ("training.fine_tuning.optimizer.learning_rate=-1", "learning_rate must be a number, abo"),
    ],
)
def test_wrong_parameter_is_answered_in_one_line(
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    parameter: str,
    answer: str,
) -> None:
    monkeypatch.chdir(project)
    bootstrap_project(project)
    with pytest.raises(SystemExit) as ended:
        main(["--pipelines=train_vgg16", f"--params={parameter}"])
    said = capfd.readouterr().err
    assert ended.value.code == 1
    (line,) = (line for line in said.splitlines() if "Error" in line)
    assert line.startswith("Error: ")
    assert answer in line
    assert "Traceback" not in said
    assert not find_runs(project), "nothing was begun"


def test_other_configuration_is_taken_whole(
    own_project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Experiments, parameters and catalog come from there, and `--params` reaches them."""
    conf = tmp_path / "elsewhere"
    shutil.copytree(own_project / "conf", conf)
    write_local(conf, {"experiments": {"mine": {"backbone": "vgg16", "image_size": 48}}})
    globals_file = conf / "base/globals.yml"
    globals_file.write_text(globals_file.read_text().replace("data: data", "data: other"))
    monkeypatch.chdir(own_project)
    bootstrap_project(own_project)
    with pytest.raises(SystemExit) as ended:
        main(
            [
                "--pipelines=train_mine",
                f"--conf-source={conf}",
                "--params=experiments.mine.image_size=40,ingestion.min_side=33",
                "--to-nodes=preprocessing.prepare_images_40",
            ]
        )
    assert ended.value.code == 0
    assert (own_project / "other/04_feature/images_40.json").is_file()
    assert not (own_project / "data/04_feature").exists()
    (run,) = find_runs(own_project)
    assert run.data.params["ingestion.min_side"] == "33"


def test_store_is_the_same_from_any_folder(own_project: Path) -> None:
    """TRAP: a relative path follows the current folder; Kedro mends `filepath` and `path` alone."""
    before = {path.name for path in (own_project / "conf").iterdir()}
    for folder in (own_project, own_project / "conf"):
        done = run_command(
            folder, "--pipeline=preprocessing", "--to-nodes=preprocessing.prepare_images_32"
        )
        assert done.returncode == 0, done.stderr[-2000:]
    assert {path.name for path in (own_project / "conf").iterdir()} == before
    assert [p.relative_to(own_project) for p in own_project.rglob("mlflow.db")] == [
        Path("mlflow.db")
    ]
    statuses = [run.info.status for run in find_runs(own_project)]
    assert statuses == ["FINISHED"] * 2, "also when the process has ended"


def test_verbose_run_says_what_is_loaded(own_project: Path) -> None:
    plain = run_command(own_project, "--pipeline=ingestion").stdout
    verbose = run_command(own_project, "--pipeline=ingestion", "--verbose").stdout
    assert "36 images" in plain
    assert "Loading data" not in plain
    assert "Loading data from" in verbose
    assert "Running node" in verbose


def test_runs_are_linked_beside_each_other(own_project: Path) -> None:
    mlflow.set_tracking_uri(f"sqlite:///{own_project}/mlflow.db")
    client = mlflow.MlflowClient()
    own = client.create_experiment(
        "busi_pipeline", artifact_location=(own_project / "mlartifacts").as_uri()
    )
    ids = []
    for name in ("train_vgg16 on BUSI", "train_vgg16 on BUSI", "train_resnet50 on BUSI", "failed"):
        run = client.create_run(own, run_name=name).info.run_id
        for key in ("run_seconds", "test.images"):
            client.log_metric(run, key, 1)
        client.set_terminated(run, "FAILED" if name == "failed" else "FINISHED")
        ids.append(run)
    done = run_command(own_project, "--links", command=("kedro", "runs"))
    assert done.returncode == 0, done.stderr
    places = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert (
        places["runs"]
        == f"http://127.0.0.1:5000/#/experiments/{own}/runs?workflowType=machine_learning"
    )
    compared = json.loads(unquote(places["compared"]).partition("runs=")[2].partition("&")[0])
    assert compared == [ids[2], ids[1]], "the latest of each name, and none that failed"


def test_raw_folder_and_server_come_from_the_environment(
    own_project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = tmp_path / "elsewhere"
    shutil.move(own_project / RAW, moved)
    monkeypatch.setenv("BUSI_RAW_DIR", str(moved))
    server = create_store(tmp_path / "server")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{server}")
    run_pipeline(own_project, "ingestion")
    assert read_json(own_project / "data/02_intermediate/data_summary.json")["images"]["all"] == 36
    assert len(find_runs(server.parent)) == 1
    assert not find_runs(own_project)


def test_packaged_project_runs_outside_its_folder(project: Path, tmp_path: Path) -> None:
    """TRAP: an installed package has no conf beside it."""
    site, folder = tmp_path / "site", tmp_path / "anywhere"
    folder.mkdir()
    shutil.copytree(Path(busi_pipeline.__file__).parent, site / "busi_pipeline")
    installed = {"PYTHONPATH": str(site)}
    command = ("busi_pipeline", "--pipelines=ingestion")
    without = run_command(folder, command=command, environment=installed)
    assert without.returncode == 1
    assert "Traceback" not in without.stderr
    assert without.stderr.splitlines()[-1].startswith("Error: no configuration at ")
    there = installed | {"BUSI_RAW_DIR": str(project / RAW)}
    done = run_command(
        folder, f"--conf-source={project / 'conf'}", command=command, environment=there
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (folder / "data/02_intermediate/manifest.csv").is_file()
    assert len(find_runs(folder)) == 1


def test_stage_without_its_input_names_the_stage_to_run(own_project: Path) -> None:
    with pytest.raises(BadInputError, match="image_groups is not there yet: run `kedro run --pipe"):
        run_pipeline(own_project, "splitting", node_names=["splitting.split_images"])
    assert not find_runs(own_project)


def test_failed_run_is_marked_failed(own_project: Path) -> None:
    shutil.rmtree(own_project / RAW / "malignant")
    with pytest.raises(BadInputError, match="too few images of class malignant"):
        run_pipeline(own_project, "train_inceptionv3")
    (run,) = find_runs(own_project)
    assert run.info.status == "FAILED"
    assert run.data.params["backbone"] == "inception_v3", "what failed must be known"


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_is_marked_killed(own_project: Path, how: signal.Signals) -> None:
    # Where tests run in the background, a shell has them and their children ignore SIGINT.
    heeds = "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code = f"{heeds}runpy.run_module('kedro', run_name='__main__', alter_sys=True)"
    command = [sys.executable, "-c", code, "run", "--pipeline=train_vgg16", "--params", ENDLESS]
    with subprocess.Popen(
        command,
        cwd=own_project,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        manifest = own_project / "data/02_intermediate/manifest.csv"
        deadline = time.monotonic() + 300
        while not manifest.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        while process.poll() is None and time.monotonic() < deadline:
            # An interrupt that falls into the import of a C library can be lost: press again.
            process.send_signal(how)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=20)
        process.kill()  # no test waits for ever
    assert manifest.exists()
    assert process.returncode != 0
    (run,) = find_runs(own_project)
    assert run.info.status == "KILLED"
