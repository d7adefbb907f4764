"""The log of a node, in which no text of an image's header can stand.

pydicom, pynetdicom, highdicom and others quote what they read, and Python quotes it in tracebacks.
So only this package's own lines are written, and of an unexpected error its type and its place.
"""

import logging
import sys
import threading
import traceback
from types import TracebackType
from typing import Any

from busi_pipeline.serving.logs import JsonLines

logger = logging.getLogger("busi_pipeline.pacs")


class _QuietLines(JsonLines):
    """A log record as one line of JSON, of an error its type and place."""

    def formatException(self, ei: Any) -> str:  # noqa: N802  # a name of logging
        """Return what may stand in the log of an error."""
        return "" if ei[1] is None else describe_error(ei[1])


def log_own_lines() -> None:
    """Write this package's own lines to standard error, as JSON, and nobody else's."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_QuietLines())
    own = logging.getLogger("busi_pipeline")
    own.handlers, own.propagate = [handler], False
    own.setLevel(logging.INFO)
    logging.basicConfig(handlers=[logging.NullHandler()], force=True)
    logging.captureWarnings(True)
    threading.excepthook = _log_of_thread
    sys.excepthook = _log_of_process


def describe_error(error: BaseException) -> str:
    """Return type and place of an error, not its text."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {frames[-1].name}, line {frames[-1].lineno}" if frames else ""
    return type(error).__name__ + place


def _log_of_thread(given: threading.ExceptHookArgs) -> None:
    if given.exc_value is not None:
        logger.error("a thread ended: %s", describe_error(given.exc_value))


def _log_of_process(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    logger.critical("the node ended: %s", describe_error(error))
