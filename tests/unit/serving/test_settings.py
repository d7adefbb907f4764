"""A service that can be reached from elsewhere needs a key; wrong settings are one line."""

from typing import Any

import pytest

from busi_pipeline.errors import BadInputError
from busi_pipeline.serving.settings import make_settings

KEY = "0123456789abcdef"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.5.5.5", "::1", "localhost"])
def test_on_loopback_no_key_is_needed(host: str) -> None:
    assert make_settings(host=host).api_key is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.5", "scanner.hospital.example", ""])
def test_anywhere_else_one_is(host: str) -> None:
    with pytest.raises(BadInputError, match="BUSI_SERVE_API_KEY"):
        make_settings(host=host)
    assert make_settings(host=host, api_key=KEY).api_key == KEY


WRONG: dict[str, dict[str, Any]] = {
    "api_key": {"api_key": KEY[:-1]},
    "api_key with a tab": {"api_key": KEY + "\t"},
    "api_key with a space": {"api_key": KEY + " "},
    "port": {"port": 70_000},
    "max_files": {"max_files": 0},
    "answer_seconds": {"answer_seconds": -1},
    "waiting": {"waiting": "many"},
    "colour": {"colour": "red"},
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_setting_is_one_line(name: str) -> None:
    with pytest.raises(BadInputError) as caught:
        make_settings(**WRONG[name])
    assert "\n" not in str(caught.value)
    assert name.partition(" ")[0].lower() in str(caught.value).lower()
    assert KEY not in str(caught.value)
