"""Options of `kedro run` that Kedro itself refuses: in one line, without usage or traceback."""

import pytest
from click.testing import CliRunner

from busi_pipeline.cli import run


@pytest.mark.parametrize(
    ("option", "answer"),
    [
        ("--runner=Sequental", "Did you mean --runner=SequentialRunner?"),
        ("--params=split", "`split` must contain a key and a value separated by `=`"),
        ("--params=split={", "has a value that is no YAML"),
        ("--conf-source=nowhere", "Path 'nowhere' does not exist"),
        ("--pipelin=x", "--pipeline"),
    ],
)
def test_wrong_option_is_answered_in_one_line(option: str, answer: str) -> None:
    done = CliRunner().invoke(run, [option])
    assert done.exit_code != 0
    (line,) = done.output.splitlines()
    assert line.startswith("Error: ")
    assert answer in line
