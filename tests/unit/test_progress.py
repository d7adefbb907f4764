"""Long work tells how far it is, wherever it is read."""

import io
import logging
import sys

import pytest

from busi_pipeline import progress


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A clock that an item takes 20 seconds of."""
    seconds = iter(range(0, 2000, 20))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(seconds)))
    caplog.set_level(logging.INFO, "busi_pipeline")


def test_a_log_file_has_lines_with_the_time_left(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert list(progress.track("abcde", "letters read", "letter")) == list("abcde")
    assert caplog.messages == [
        "letters read: 2 of 5, 01:00 left",
        "letters read: 4 of 5, 00:20 left",
        "letters read: 5 in 120.0 s",
    ]


def test_without_a_total_it_counts(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    list(progress.track(iter("abc"), "letters read", "letter"))
    assert caplog.messages == ["letters read: 2", "letters read: 3 in 80.0 s"]


def test_a_terminal_has_a_bar_and_one_line(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", terminal)
    list(progress.track("abcde", "letters read", "letter"))
    assert "letters read: " in terminal.getvalue()
    assert caplog.messages == ["letters read: 5 in 120.0 s"]


def test_nothing_to_do_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    assert list(progress.track([], "letters read", "letter")) == []
    assert caplog.messages == []
