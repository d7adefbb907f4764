"""What lies at the top of the repository: it names what is there, and says one thing."""

import importlib.util
import json
import os
import re
import shutil
import stat
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.factories import PROJECT

MAKE = shutil.which("make")
needs_make = pytest.mark.skipif(MAKE is None, reason="make is not here")


def run_make(*arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    variables = {name: value for name, value in os.environ.items() if name != "MAKEFLAGS"}
    return subprocess.run(
        [str(MAKE), *arguments],
        cwd=PROJECT,
        env=variables | ({"PATH": path} if path else {}),
        capture_output=True,
        text=True,
        check=False,
    )


def list_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(), re.M))


def test_the_citation_names_the_version_and_no_person() -> None:
    citation = yaml.safe_load((PROJECT / "CITATION.cff").read_text())
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    assert citation["version"] == project["version"]
    assert citation["license"] == project["license"]
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title"} <= citation.keys()
    assert citation["authors"] == [{"name": "busi_pipeline contributors"}]


def test_the_development_container_installs_and_forwards() -> None:
    container = json.loads((PROJECT / ".devcontainer/devcontainer.json").read_text())
    assert container["forwardPorts"] == [4141, 5000, 8000]
    command, target = container["postCreateCommand"].split()
    assert command == "make"
    assert target in list_targets()


def test_the_documentation_is_deployed_as_it_is_built() -> None:
    jobs = yaml.safe_load((PROJECT / ".github/workflows/docs.yml").read_text())["jobs"]
    steps = jobs["docs"]["steps"]
    assert {"run": "make docs"} in steps
    published = next(own["with"]["path"] for own in steps if "upload" in own.get("uses", ""))
    assert published == "site"


def test_every_target_of_make_is_phony() -> None:
    phony = re.search(r"^\.PHONY: (.*)$", (PROJECT / "Makefile").read_text(), re.M)
    assert phony
    assert set(phony[1].split()) == list_targets()


@needs_make
def test_the_demo_ends_with_the_report_in_one_line() -> None:
    printed = run_make("-n", "demo").stdout.splitlines()
    runs = [line for line in printed if "kedro run" in line and "echo" not in line]
    assert "--pipeline=reporting --env=demo" in runs[-1]
    said = [line for line in printed[printed.index(runs[-1]) :] if line.startswith('echo "  ')]
    assert said[0].split() == ["echo", '"', "report", 'data/demo/08_reporting/report.html"']
    assert len(said) <= 3


@needs_make
def test_the_demo_installs_no_tools_of_developers(tmp_path: Path) -> None:
    fresh = f"VENV={tmp_path}/venv"
    printed = run_make("-n", "demo", fresh).stdout
    assert " -r requirements-run.lock" in printed
    assert " -r requirements-dev.lock" not in printed
    for target in ("test", "lint", "docs"):
        assert " -r requirements-dev.lock" in run_make("-n", target, fresh).stdout


def read_pins(lock: str) -> dict[str, str]:
    """Return {package and version: the rest of its entry} of a lock."""
    text = (PROJECT / lock).read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {re.split(r"[ ;]", line)[0]: line for line in lines}


OWN = ("requirements-run.lock", "requirements-dev.lock", "deploy/requirements.lock")
HASHED = (*OWN, "deploy/airflow.lock")


@pytest.mark.parametrize("lock", HASHED)
def test_what_is_installed_has_the_hash_that_was_locked(lock: str) -> None:
    entries = read_pins(lock)
    assert len(entries) > 30
    assert all(re.search(r" --hash=sha256:[0-9a-f]{64}\b", entry) for entry in entries.values())


def test_all_locks_have_the_same_versions() -> None:
    versions = set(read_pins("requirements.lock"))
    assert set(read_pins("requirements-dev.lock")) == versions
    for lock in OWN:
        assert set(read_pins(lock)) <= versions, lock


@pytest.mark.parametrize("lock", ["requirements.lock", *HASHED])
def test_a_lock_names_no_host_and_no_path(lock: str) -> None:
    for pin, entry in read_pins(lock).items():
        assert re.fullmatch(r"[a-z0-9._-]+==[\w.!+-]+", pin), pin
        assert "://" not in entry
        assert "@" not in entry


@needs_make
def test_a_python_that_is_not_here_is_said(tmp_path: Path) -> None:
    """`python9.1` is here and its tests fail, 9.2 is not: both are said, and the command fails."""
    python = tmp_path / "python9.1"
    python.write_text('#!/bin/sh\n[ "$1" = --version ] || exit 3\n')
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = run_make("test-all", "PYTHONS=9.1 9.2", path=path)
    assert done.returncode != 0
    assert "Python 9.2: not here, skipped" in done.stdout
    assert "failed on Python 9.1" in done.stdout
    assert not (PROJECT / ".venv-9.1").exists()


@needs_make
def test_no_python_at_all_is_no_success() -> None:
    done = run_make("test-all", "PYTHONS=9.2")
    assert done.returncode != 0
    assert "nothing was tested" in done.stdout


def test_the_readme_has_the_figures_of_the_results() -> None:
    """And the picture beside them is drawn from those."""
    place = PROJECT / "docs/draw_results.py"
    spec = importlib.util.spec_from_file_location("draw_results", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    figures = module.read_figures()
    assert list(figures) == list(module.MODELS)
    readme = (PROJECT / "README.md").read_text().replace("*", "")
    for model, values in figures.items():
        (line,) = re.findall(rf"^\| {model} \| (.+?) \|$", readme, re.M)
        found = [[float(number) for number in re.findall(r"\d+\.\d+", c)] for c in line.split("|")]
        assert found == [list(value) for value in values]
