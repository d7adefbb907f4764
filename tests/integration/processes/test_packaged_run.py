"""The wheel and the archive of `kedro package`, in a folder that has no repository around it."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.factories import CLASSES, MACHINE_VARIABLES, PROJECT
from tests.integration.projects import create_store, read_table, write_images

PACKAGE = PROJECT / "src" / "busi_pipeline"


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the wheel of the project holds.

    Built as `kedro package` does it, but with the setuptools that are here: nothing is downloaded.
    """
    repository = tmp_path_factory.mktemp("repository")
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(PROJECT / "src", repository / "src", ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(PROJECT / name, repository)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "dist"]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    folder = tmp_path_factory.mktemp("installed")
    (wheel,) = (repository / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(folder)
    return folder


def test_the_wheel_holds_every_file_of_the_package(unpacked: Path) -> None:
    files = {
        path.relative_to(PACKAGE.parent)
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert not [str(name) for name in sorted(files) if not (unpacked / name).is_file()]


def test_the_package_runs_without_the_repository(unpacked: Path, tmp_path: Path) -> None:
    conf = tmp_path / "packing" / "conf"
    shutil.copytree(PROJECT / "conf", conf, ignore=shutil.ignore_patterns("local"))
    folder = tmp_path / "elsewhere"
    create_store(folder)
    archive = shutil.make_archive(str(folder / "conf"), "gztar", conf.parent, "conf")
    write_images(folder / "images", dict.fromkeys(CLASSES, 12))
    variables = {name: v for name, v in os.environ.items() if name not in MACHINE_VARIABLES}
    where = "import busi_pipeline, os; print(os.path.dirname(busi_pipeline.__file__))"
    run = ["-m", "busi_pipeline", f"--conf-source={Path(archive).name}", "--pipeline=ingestion"]
    imported, done = (
        subprocess.run(
            [sys.executable, *arguments],
            cwd=folder,
            env=variables | {"PYTHONPATH": str(unpacked), "BUSI_RAW_DIR": str(folder / "images")},
            capture_output=True,
            text=True,
            check=False,
        )
        for arguments in (["-c", where], run)
    )
    assert Path(imported.stdout.strip()) == unpacked / "busi_pipeline"
    assert done.returncode == 0, done.stderr[-2000:]
    manifest = read_table(folder / "data/02_intermediate/manifest.csv")
    assert manifest["label"].value_counts().to_dict() == dict.fromkeys(CLASSES, 12)
    assert "telemetry" not in (done.stdout + done.stderr).lower()
