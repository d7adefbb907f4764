"""What the session adds to a run, and what it makes of errors."""

import logging
import subprocess
import time
from pathlib import Path

import pytest
from kedro.io import DatasetError
from kedro.pipeline import Node

from busi_pipeline.errors import BadInputError
from busi_pipeline.hooks import ClearErrors, StageTimes, describe_git_commit


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def test_commit_is_told_and_changes_are_marked(tmp_path: Path) -> None:
    assert describe_git_commit(tmp_path) == "unknown"
    git(tmp_path, "init")
    (tmp_path / "a").write_text("1")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-m", "a")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert describe_git_commit(tmp_path) == commit
    (tmp_path / "a").write_text("2")
    assert describe_git_commit(tmp_path) == f"{commit}-dirty"


def test_bad_input_comes_out_of_its_wrapping() -> None:
    def wrapped(cause: Exception) -> DatasetError:
        error = DatasetError("Failed while loading")
        error.__cause__ = cause
        return error

    with pytest.raises(BadInputError, match=r"^the line$"):
        ClearErrors().on_pipeline_error(wrapped(BadInputError("the line")))
    ClearErrors().on_pipeline_error(wrapped(OSError("a real fault keeps its traceback")))


def test_time_is_booked_on_the_stage_that_spent_it(caplog: pytest.LogCaptureFixture) -> None:
    cut = Node(len, "a", "b", tags="split")
    fit = Node(len, "b", "c", tags="training")
    times = StageTimes()
    with caplog.at_level(logging.INFO, logger="busi_pipeline"):
        times.before_pipeline_run()
        times.after_node_run(cut)
        times.after_node_run(fit)
        time.sleep(0.3)  # an array is computed while it is saved
        times.after_dataset_saved(fit)
        times.after_pipeline_run()
    assert caplog.messages == ["seconds: split 0.0, training 0.3"]
