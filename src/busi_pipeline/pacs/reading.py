"""One image after the other: from the spool to results."""

import logging
import queue
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

from busi_pipeline.imaging.decoding import UnusableImageError
from busi_pipeline.models.packaged import PackagedModel
from busi_pipeline.pacs.picture import make_picture
from busi_pipeline.pacs.quiet import describe_error
from busi_pipeline.pacs.records import (
    ANSWERED,
    FAILED,
    OTHER_BODY_PART,
    REFUSED,
    UNUSABLE,
    Records,
)
from busi_pipeline.pacs.report import make_refusal, make_report
from busi_pipeline.pacs.results import describe_algorithm
from busi_pipeline.pacs.seen import look_at
from busi_pipeline.pacs.settings import NodeSettings
from busi_pipeline.pacs.source import Source, hash_dataset, is_breast, read_source
from busi_pipeline.pacs.spool import OTHER_CONTENT, Arrived, ResultKey, Spool
from busi_pipeline.pacs.uids import shorten
from busi_pipeline.serving.loaded import LoadedModels

logger = logging.getLogger(__name__)

TRIES: Final = 3
"""An image that was begun so often, and never finished, is set aside."""
INTERNAL_ERROR: Final = "internal error"
"""What the report of an image that failed gives as the reason; the log says more."""
_HASH_LENGTH = 16
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
        self.counts: Counter[str] = Counter()
        self.thread = threading.Thread(target=self._run, name="reader", daemon=True)

    def start(self) -> None:
        """Read what waits from before, and go on."""
        for name in self._spool.list_images():
            self.notify(name)
        self.thread.start()

    def notify(self, name: str) -> None:
        """Read an image that is in the spool now."""
        self._names.put(name)

    def stop(self) -> None:
        """Finish the image that is computed; the rest stays in the spool."""
        self._is_stopped.set()
        self._names.put(None)
        if self.thread.is_alive():
            self.thread.join()

    def _run(self) -> None:
        while (name := self._names.get()) is not None and not self._is_stopped.is_set():
            try:
                self._read(name)
            except (OSError, sqlite3.Error) as error:  # the disk is full, or away
                logger.error("image waits: %s", describe_error(error))
                with suppress(OSError):
                    self._spool.forget_tries(name)
                self._is_stopped.wait(_DISK_SECONDS)
                self.notify(name)
            except Exception as error:  # its text may be a patient's
                self._fail(name, describe_error(error))

    def _read(self, name: str) -> None:
        arrived = self._spool.read_image(name)
        if arrived is None:
            return
        if (tries := self._spool.count_try(name)) > TRIES:
            # Even its header may be what ends the process: the next time no report is tried.
            end = self._fail if tries == TRIES + 1 else self._set_aside
            end(name, f"it was begun {TRIES} times, and never finished")
            return
        try:
            source = read_source(arrived.content)
        except UnusableImageError as error:
            self._set_aside(name, str(error))
            return
        model = self._models.serving.model
        key = _make_key(name, model, arrived)
        if self._is_done(key):
            self._spool.drop_image(name)
        elif self._is_dropped(source):
            self._records.add(key, OTHER_BODY_PART)
            self._spool.drop_image(name)
            self._log("image of another body part", key)
        else:
            self._answer(model, key, source, arrived)

    def _is_dropped(self, source: Source) -> bool:
        return is_breast(source) is False and not self._settings.any_body_part

    def _is_done(self, key: ResultKey) -> bool:
        """Return whether an image needs no results: it has some, or a copy of it does.

        What failed, or was another body part by its header, is looked at again; so is an image
        that was unusable and now has other content.
        """
        known = self._spool.find_outcomes(key.image, key.version)
        recorded = self._records.find_outcome(key.image, key.version)
        if recorded is not None:
            known = {recorded[0]: recorded[1]} | known
        if known.get(key.content, FAILED) not in (FAILED, OTHER_BODY_PART):
            self._log("image came again", key)
            return True
        if not {ANSWERED, REFUSED} & set(known.values()):
            return False
        self.counts["other content"] += 1
        logger.warning(OTHER_CONTENT, extra={"fields": _describe(key)})
        return True

    def _answer(
        self, model: PackagedModel, key: ResultKey, source: Source, arrived: Arrived
    ) -> None:
        algorithm = describe_algorithm(model)
        try:
            seen = look_at(model, arrived.content)
        except UnusableImageError as error:
            refusal = make_refusal(source, str(error), algorithm, arrived.moment)
            self._keep(key, {REPORT_FILE: refusal}, UNUSABLE, reason=str(error))
        else:
            probability = self._settings.probability
            objects = {
                REPORT_FILE: make_report(source, seen, algorithm, arrived.moment, probability),
                PICTURE_FILE: make_picture(source, seen, algorithm, arrived.moment),
            }
            self._keep(key, objects, ANSWERED)
        self._spool.drop_image(key.image)

    def _keep(
        self, key: ResultKey, objects: Mapping[str, bytes], outcome: str, **fields: object
    ) -> None:
        self._spool.keep_results(key, objects, outcome)
        self._log(f"image {outcome}", key, **fields)
        self._notify(key)

    def _fail(self, name: str, reason: str) -> None:
        """Set an image aside, and report that it has no answer, where that can be done."""
        try:
            self._report_failure(name)
        except Exception as error:  # what failed before may fail again
            fields = {"image": shorten(name), "reason": describe_error(error)}
            logger.error("no report of an image that failed", extra={"fields": fields})
        self._set_aside(name, reason)

    def _report_failure(self, name: str) -> None:
        arrived = self._spool.read_image(name)
        if arrived is None:
            return
        model = self._models.serving.model
        # Beside the results of its content, which may be made later.
        key = ResultKey(name, model.version, FAILED)
        source, algorithm = read_source(arrived.content), describe_algorithm(model)
        refusal = make_refusal(source, INTERNAL_ERROR, algorithm, arrived.moment)
        self._keep(key, {REPORT_FILE: refusal}, FAILED)

    def _set_aside(self, name: str, reason: str) -> None:
        fields = {"image": shorten(name), "reason": reason}
        logger.error("image set aside", extra={"fields": fields})
        try:
            self._spool.set_aside(name)
        except OSError as error:
            logger.error("image stays in the spool: %s", describe_error(error))

    def _log(self, message: str, key: ResultKey, **fields: object) -> None:
        logger.info(message, extra={"fields": _describe(key) | fields})


def _make_key(name: str, model: PackagedModel, arrived: Arrived) -> ResultKey:
    return ResultKey(name, model.version, hash_dataset(arrived.content)[:_HASH_LENGTH])


def _describe(key: ResultKey) -> dict[str, object]:
    return {"image": shorten(key.image), "model_version": key.version}
