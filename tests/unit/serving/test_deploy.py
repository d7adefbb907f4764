"""The recipes of deploy/ ask for what the project asks for, and start what there is."""

import re
import tomllib
from configparser import RawConfigParser

from busi_pipeline.pacs.command_line import dicom_node
from tests.factories import PROJECT

DEPLOY = PROJECT / "deploy"


def read_requirements(texts: list[str]) -> dict[str, str]:
    named = [re.fullmatch(r"([\w.-]+)(?:\[.*\])?(.*)", text) for text in texts]
    return {found[1].lower(): found[2] for found in named if found}


def test_the_container_has_the_same_limits_of_versions() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = read_requirements([*project["dependencies"], *extras["serve"], *extras["dicom"]])
    recipe = (DEPLOY / "Containerfile").read_text()
    installed = read_requirements(re.findall(r'"([\w.-]+[<>=][^"]*)"', recipe))
    assert set(read_requirements(extras["serve"])) <= set(installed)
    beyond = {name for name in installed if name not in asked}
    assert beyond == {"click"}, "Kedro brings it"
    assert {name: installed[name] for name in set(installed) - beyond} == {
        name: asked[name] for name in set(installed) - beyond
    }


def test_both_recipes_start_the_service() -> None:
    unit = RawConfigParser(strict=False)
    unit.read(DEPLOY / "busi_pipeline.service")
    assert " -m busi_pipeline serve --models " in unit["Service"]["ExecStart"]
    assert int(unit["Service"]["TimeoutStopSec"]) > 60, "longer than it takes to answer all"
    recipe = (DEPLOY / "Containerfile").read_text()
    assert 'ENTRYPOINT ["python", "-m", "busi_pipeline", "serve"]' in recipe
    assert "USER busi" in recipe


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
