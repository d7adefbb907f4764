"""The log of a node quotes nothing that came."""

import json
import logging
from collections.abc import Iterator

import pytest

from busi_pipeline.pacs.quiet import log_own_lines


@pytest.fixture
def _restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    own = logging.getLogger("busi_pipeline")
    root = logging.getLogger()
    before = (own.handlers, own.propagate, own.level, root.handlers)
    monkeypatch.setattr("threading.excepthook", None)
    monkeypatch.setattr("sys.excepthook", None)
    yield
    own.handlers, own.propagate, own.level, root.handlers = before
    logging.captureWarnings(False)


@pytest.mark.usefixtures("_restored")
def test_an_error_has_type_and_place_and_no_text(capsys: pytest.CaptureFixture[str]) -> None:
    log_own_lines()
    try:
        raise ValueError("DOE^JANE")
    except ValueError:
        logging.getLogger("busi_pipeline.serving.loaded").exception("the model stays")
    line = json.loads(capsys.readouterr().err)
    assert line["message"] == "the model stays"
    assert line["exception"].startswith("ValueError at test_an_error")
    assert "DOE" not in str(line)
