"""A challenger sees the champion's images; its answers are kept to compare, never returned."""

import hashlib
import json
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from busi_pipeline.models.packaged import Answer, PackagedModel
from busi_pipeline.serving.measures import Measures
from busi_pipeline.serving.uploads import Upload

logger = logging.getLogger(__name__)

# Images that may wait for the challenger; it must not hold up the champion.
_WAITING = 16


class Shadow:
    """Asks the challenger in a thread of its own, and keeps one line an image.

    A line has no name and no picture: SHA-256 of the file, the two versions, scores, flags.
    """

    def __init__(self, path: Path, measures: Measures):
        """Take the file, made where there is none."""
        self._path, self._measures = path, measures
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="shadow")
        self._room = threading.BoundedSemaphore(_WAITING)
        path.parent.mkdir(parents=True, exist_ok=True)

    def ask(
        self, challenger: PackagedModel, upload: Upload, answer: Answer, request_id: str
    ) -> None:
        """Ask about an image, later; it is left out, and counted, where too many wait."""
        if not self._room.acquire(blocking=False):
            self._measures.count_shadow("left_out")
            return
        self._pool.submit(self._compare, challenger, upload, answer, request_id)

    def close(self) -> None:
        """Finish the image that is computed; others are left out."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _compare(
        self, challenger: PackagedModel, upload: Upload, answer: Answer, request_id: str
    ) -> None:
        try:
            other = challenger.predict_bytes(upload.content, upload.box)
            line = describe_pair(upload, answer, other) | {"request_id": request_id}
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            self._measures.count_shadow("same" if other.flagged == answer.flagged else "other")
        except Exception:  # whatever it is, the champion has answered
            self._measures.count_shadow("failed")
            logger.exception("the challenger gave no answer for request %s", request_id)
        finally:
            self._room.release()


def describe_pair(upload: Upload, answer: Answer, other: Answer) -> dict[str, Any]:
    """Return the line of an image that champion and challenger saw."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "byte_sha256": hashlib.sha256(upload.content).hexdigest(),
        "box": ",".join(upload.box or ()),
        "champion": answer.model_version,
        "challenger": other.model_version,
        "champion_score": answer.positive_score,
        "challenger_score": other.positive_score,
        "champion_flagged": answer.flagged,
        "challenger_flagged": other.flagged,
        "champion_refer": answer.refer,
        "challenger_refer": other.refer,
    }
