"""One image after the other: from the spool to results."""

import hashlib
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable
from typing import Any, Final

from busi_pipeline.imaging.decoding import UnusableImageError
from busi_pipeline.models.packaged import PackagedModel
from busi_pipeline.pacs.picture import make_picture
from busi_pipeline.pacs.quiet import describe_error
from busi_pipeline.pacs.records import ANSWERED, OTHER_BODY_PART, UNUSABLE, Records
from busi_pipeline.pacs.report import make_refusal, make_report
from busi_pipeline.pacs.results import describe_algorithm
from busi_pipeline.pacs.seen import look_at
from busi_pipeline.pacs.settings import NodeSettings
from busi_pipeline.pacs.source import Source, is_breast, read_source
from busi_pipeline.pacs.spool import Arrived, ResultKey, Spool
from busi_pipeline.pacs.uids import shorten
from busi_pipeline.serving.loaded import LoadedModels

logger = logging.getLogger(__name__)

TRIES: Final = 3
"""An image that was begun so often, and never finished, is set aside."""
_DISK_SECONDS = 10
REPORT_FILE, PICTURE_FILE = "report.dcm", "picture.dcm"


class Reader:
    """Makes the results of images, in the order in which they came, in a thread of its own."""

    def __init__(
        self,
        spool: Spool,
        records: Records,
        models: LoadedModels,
        settings: NodeSettings,
        notify: Callable[[ResultKey], None],
    ):
        """Take what it needs; `notify` is called with the key of results that were made."""
        self._spool, self._records, self._models = spool, records, models
        self._settings, self._notify = settings, notify
        self._names: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._is_stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reader", daemon=True)

    def start(self) -> None:
        """Read what waits from before, and go on."""
        for name in self._spool.list_images():
            self.notify(name)
        self._thread.start()

    def notify(self, name: str) -> None:
        """Read an image that is in the spool now."""
        self._names.put(name)

    def stop(self) -> None:
        """Finish the image that is computed; the rest stays in the spool."""
        self._is_stopped.set()
        self._names.put(None)
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while (name := self._names.get()) is not None and not self._is_stopped.is_set():
            try:
                self._read(name)
            except (OSError, sqlite3.Error) as error:  # the disk is full, or away
                logger.error("image waits: %s", describe_error(error))
                self._spool.forget_tries(name)
                self._is_stopped.wait(_DISK_SECONDS)
                self.notify(name)
            except Exception as error:  # its text may be a patient's
                self._set_aside(name, describe_error(error))

    def _read(self, name: str) -> None:
        arrived = self._spool.read_image(name)
        if arrived is None:
            return
        if self._spool.count_try(name) > TRIES:
            self._set_aside(name, f"it was begun {TRIES} times, and never finished")
            return
        try:
            source = read_source(arrived.content)
        except UnusableImageError as error:
            self._set_aside(name, str(error))
            return
        model = self._models.serving.model
        key = ResultKey(name, model.version)
        content = hashlib.sha256(arrived.content).hexdigest()
        if self._is_done(key, content):
            self._spool.drop_image(name)
        elif is_breast(source) is False and not self._settings.any_body_part:
            self._records.add(key, content, OTHER_BODY_PART)
            self._spool.drop_image(name)
            self._log("image of another body part", key)
        else:
            self._answer(model, key, source, arrived, content)

    def _is_done(self, key: ResultKey, content: str) -> bool:
        if self._spool.holds_results(key):
            self._log("image came again", key)
            return True
        known = self._records.find_content(key)
        if known is None:
            return False
        again = "image came again"
        self._log(again if known == content else f"{again}, with other content", key)
        return True

    def _answer(
        self, model: PackagedModel, key: ResultKey, source: Source, arrived: Arrived, content: str
    ) -> None:
        algorithm = describe_algorithm(model)
        fields: dict[str, Any] = {}
        try:
            seen = look_at(model, arrived.content)
        except UnusableImageError as error:
            outcome, fields["reason"] = UNUSABLE, str(error)
            objects = {REPORT_FILE: make_refusal(source, str(error), algorithm, arrived.moment)}
        else:
            outcome = ANSWERED
            probability = self._settings.probability
            objects = {
                REPORT_FILE: make_report(source, seen, algorithm, arrived.moment, probability),
                PICTURE_FILE: make_picture(source, seen, algorithm, arrived.moment),
            }
        self._spool.keep_results(key, objects, content, outcome)
        self._spool.drop_image(key.image)
        self._log(f"image {outcome}", key, **fields)
        self._notify(key)

    def _set_aside(self, name: str, reason: str) -> None:
        fields = {"image": shorten(name), "reason": reason}
        logger.error("image set aside", extra={"fields": fields})
        try:
            self._spool.set_aside(name)
        except OSError as error:
            logger.error("image stays in the spool: %s", describe_error(error))

    def _log(self, message: str, key: ResultKey, **fields: object) -> None:
        own = {"image": shorten(key.image), "model_version": key.version}
        logger.info(message, extra={"fields": own | fields})
