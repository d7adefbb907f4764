"""`kedro viz run` opens the lineage as boxes."""

import webbrowser
from typing import Any

import pytest
from click.testing import CliRunner, Result
from kedro.framework.cli.cli import KedroCLI
from kedro_viz.launchers.cli import run as of_kedro_viz

from tests.factories import PROJECT


class Browser(webbrowser.BaseBrowser):
    """Remembers what it was to open."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: list[str] = []

    def open(self, url: str, new: int = 0, autoraise: bool = True) -> bool:
        self.opened.append(url)
        return True


@pytest.fixture
def browser(monkeypatch: pytest.MonkeyPatch) -> Browser:
    """The machine's browser; Kedro-Viz's server is not started, but its page is opened."""

    def serve(browser: bool, host: str, port: int, **_: Any) -> None:
        if browser:
            webbrowser.open_new(f"http://{host}:{port}/")

    own = Browser()
    monkeypatch.setattr(webbrowser, "_tryorder", ["own"])
    monkeypatch.setattr(webbrowser, "_browsers", {"own": [None, own]})
    monkeypatch.setattr(of_kedro_viz.run, "callback", serve)
    return own


def call(*words: str) -> Result:
    """Call `kedro`, as in the project's folder."""
    return CliRunner().invoke(KedroCLI(PROJECT), words)


@pytest.mark.parametrize("words", [["viz", "run"], ["viz"], ["viz", "run", "--port", "4242"]])
def test_the_browser_opens_boxes(browser: Browser, words: list[str]) -> None:
    done = call(*words)
    assert done.exit_code == 0, done.output
    port = words[-1] if "--port" in words else "4141"
    address = f"http://127.0.0.1:{port}/?types=nodes"
    assert browser.opened == [address]
    assert address in done.output


def test_without_a_browser_the_address_is_named(browser: Browser) -> None:
    done = call("viz", "run", "--no-browser")
    assert done.exit_code == 0, done.output
    assert browser.opened == []
    assert "http://127.0.0.1:4141/?types=nodes" in done.output


def test_other_commands_of_kedro_viz_stay() -> None:
    listed = call("viz", "--help").output
    assert all(name in listed for name in ("build", "deploy", "run"))
