"""A node that can be reached needs a list of callers; wrong settings are one line."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from busi_pipeline.errors import BadInputError
from busi_pipeline.pacs import node
from busi_pipeline.pacs.command_line import dicom_node
from busi_pipeline.pacs.settings import NodeSettings, make_node_settings, parse_store_address

TO = "ARCHIVE@10.0.0.5:104"
PASSWORD = "name:verysecret"


def test_on_loopback_no_list_of_callers_is_needed() -> None:
    assert make_node_settings(to=TO).allow == ()


def test_anywhere_else_one_is() -> None:
    with pytest.raises(BadInputError, match="--allow"):
        make_node_settings(to=TO, host="0.0.0.0")
    assert make_node_settings(to=TO, host="0.0.0.0", allow=("US1",)).allow == ("US1",)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A@archive:104", ("A", "archive", 104)),
        ("MY PACS@10.0.0.5:11112", ("MY PACS", "10.0.0.5", 11112)),
        ("A@[::1]:104", ("A", "::1", 104)),
    ],
)
def test_store_addresses_are_read(text: str, expected: tuple[str, str, int]) -> None:
    assert parse_store_address(text) == expected


WRONG: dict[str, dict[str, Any]] = {
    "to": {"to": "archive:104"},
    "to without port": {"to": "A@archive"},
    "to port": {"to": "A@archive:0"},
    "to title": {"to": "A_TITLE_OF_17_CHA@archive:104"},
    "to address": {"to": "https://name:secret@archive/dicom-web"},
    "to-tls": {"to": "https://archive/", "to_tls": True},
    "ae-title": {"ae_title": "A\\B"},
    "allow": {"allow": ("A", "")},
    "port": {"port": 70_000},
    "poll": {"poll": "ftp://archive"},
    "poll credentials": {"poll_credentials": PASSWORD},
    "to credentials form": {"to": "https://archive", "to_credentials": "verysecret"},
    "poll unencrypted": {"poll": "http://archive/dicom-web", "poll_credentials": PASSWORD},
    "tls-key": {"tls_key": Path("key.pem")},
    "tls-ca": {"tls_ca": Path("/nowhere/ca.pem")},
    "tls-ca alone": {"tls_ca": Path(__file__)},
    "probability": {"probability": "111047"},
    "poll_days": {"poll_days": 0},
    "colour": {"colour": "red"},
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_setting_is_one_line(name: str) -> None:
    with pytest.raises(BadInputError) as caught:
        make_node_settings(**{"to": TO} | WRONG[name])
    assert "\n" not in str(caught.value)
    assert name.partition(" ")[0] in str(caught.value).lower()
    assert "secret" not in str(caught.value)


def test_an_authority_serves_where_the_node_sends_with_tls() -> None:
    make_node_settings(to=TO, to_tls=True, tls_ca=Path(__file__))
    make_node_settings(to="https://archive/dicom-web", tls_ca=Path(__file__))


@pytest.mark.parametrize(
    ("text", "expected"),
    [("US1 US2", ("US1", "US2")), ("US ONE,US2", ("US ONE", "US2")), ("US ONE,", ("US ONE",))],
)
def test_titles_of_the_environment_may_have_spaces(
    text: str, expected: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[NodeSettings] = []
    monkeypatch.setattr(node, "run_node", given.append)
    finished = CliRunner().invoke(dicom_node, [], env={"BUSI_NODE_TO": TO, "BUSI_NODE_ALLOW": text})
    assert finished.exit_code == 0, finished.output
    assert given[0].allow == expected


def test_options_and_credentials_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: list[NodeSettings] = []
    monkeypatch.setattr(node, "run_node", given.append)
    variables = {
        "BUSI_NODE_TO": "https://archive/dicom-web",
        "BUSI_NODE_PORT": "4242",
        "BUSI_NODE_ALLOW": "US1 US2",
        "BUSI_NODE_TO_CREDENTIALS": PASSWORD,
    }
    finished = CliRunner().invoke(dicom_node, [], env=variables)
    assert finished.exit_code == 0, finished.output
    (settings,) = given
    assert (settings.port, settings.allow) == (4242, ("US1", "US2"))
    assert settings.to_credentials == PASSWORD
    assert settings == make_node_settings(
        to="https://archive/dicom-web", port=4242, allow=("US1", "US2"), to_credentials=PASSWORD
    ), "all other defaults are the settings' own"
