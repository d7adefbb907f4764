"""Dockerfile and deploy/ ask for what the project asks for, and start what there is."""

import json
import re
import tomllib
from configparser import RawConfigParser

from busi_pipeline.pacs.command_line import dicom_node
from busi_pipeline.serving.command_line import serve
from tests.factories import PROJECT

DEPLOY = PROJECT / "deploy"


RECIPE = (PROJECT / "Dockerfile").read_text()


def read_names(texts: list[str]) -> set[str]:
    found = (re.match(r"[\w.-]+", text) for text in texts)
    return {one[0].lower().replace("_", "-") for one in found if one}


def list_installed() -> set[str]:
    """Return what the container is to have beside the package."""
    lines = (DEPLOY / "requirements.in").read_text().splitlines()
    return {line for line in lines if not line.startswith("#")}


def test_the_container_has_what_the_service_needs_as_locked() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    installed = list_installed()
    assert read_names(extras["serve"]) | read_names(extras["dicom"]) <= installed
    asked = read_names([*project["dependencies"], *extras["serve"], *extras["dicom"]])
    assert installed - asked == {"click", "setuptools"}, "Kedro brings it; it builds the package"
    assert not installed & {"tensorflow", "keras", "kedro", "mlflow"}
    locked = read_names((DEPLOY / "requirements.lock").read_text().splitlines())
    assert installed <= locked
    assert not locked & {"tensorflow", "keras", "kedro", "mlflow"}
    assert "pip install --no-deps -r /build/requirements.lock\n" in RECIPE
    assert "pip install --no-deps --no-build-isolation /build " in RECIPE, "or pip fetches more"


def test_the_container_copies_what_is_there_and_no_more() -> None:
    copied = {
        name for line in re.findall(r"^COPY (.*)$", RECIPE, re.M) for name in line.split()[:-1]
    }
    assert copied >= {"pyproject.toml", "deploy/requirements.lock", "src"}
    assert not [name for name in copied if not (PROJECT / name).exists()]
    ignored = (PROJECT / ".dockerignore").read_text().splitlines()
    rules = [line for line in ignored if line and not line.startswith("#")]
    assert rules[0] == "*"
    assert {line[1:] for line in rules if line.startswith("!")} == copied


def test_both_recipes_start_the_service() -> None:
    unit = RawConfigParser(strict=False)
    unit.read(DEPLOY / "busi_pipeline.service")
    assert " -m busi_pipeline serve --models " in unit["Service"]["ExecStart"]
    assert int(unit["Service"]["TimeoutStopSec"]) > 60, "longer than it takes to answer all"
    entry, command = (
        json.loads(re.findall(rf"^{word} (\[.*\])$", RECIPE, re.M)[-1])
        for word in ("ENTRYPOINT", "CMD")
    )
    assert [*entry, command[0]] == ["python", "-m", "busi_pipeline", "serve"]
    known = {option for parameter in serve.params for option in parameter.opts}
    assert {word for word in command if word.startswith("--")} <= known
    assert RECIPE.index("\nUSER busi\n") < RECIPE.index("\nENTRYPOINT")


def test_the_container_sends_nothing_about_its_use() -> None:
    for variable in ("MLFLOW_DISABLE_TELEMETRY=true", "KEDRO_DISABLE_TELEMETRY=true"):
        assert variable in RECIPE


def test_the_unit_of_the_node_starts_it_and_keeps_its_spool() -> None:
    unit = RawConfigParser(strict=False)
    unit.read(DEPLOY / "busi_pipeline_node.service")
    service = unit["Service"]
    name, options = service["ExecStart"].split(" -m busi_pipeline ")[1].split(" ", 1)
    assert name == dicom_node.name
    known = {option for parameter in dicom_node.params for option in parameter.opts}
    assert set(options.split()[::2]) <= known
    assert f"--spool /var/lib/{service['StateDirectory']}/" in options
    text = (DEPLOY / "busi_pipeline_node.service").read_text()
    variables = re.findall("BUSI_NODE_([A-Z_]+)=", text)
    assert {f"--{own.lower().replace('_', '-')}" for own in variables} <= known
    assert int(service["TimeoutStopSec"]) > 120, "longer than it takes to send what is computed"
    assert service["LimitCORE"] == "0", "a dump of its memory has patients in it"
    assert service["Restart"] == "always", "it ends where one of its threads does"
    assert "LoadCredential=key.pem:" in text, "its user can read no key of root"
