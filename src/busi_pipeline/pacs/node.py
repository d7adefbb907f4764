"""The node: what comes in, what is computed, what goes out, and how it ends."""

import logging
import os
import signal
import threading

from busi_pipeline.pacs.polling import Poller
from busi_pipeline.pacs.quiet import log_own_lines
from busi_pipeline.pacs.reading import Reader
from busi_pipeline.pacs.receiving import Door, Receiver
from busi_pipeline.pacs.records import Records
from busi_pipeline.pacs.sending import Sender, make_archive
from busi_pipeline.pacs.settings import NodeSettings
from busi_pipeline.pacs.spool import Spool
from busi_pipeline.serving.loaded import LoadedModels

logger = logging.getLogger(__name__)

_LOOK_SECONDS, _STUCK_SECONDS = 1.0, 120.0


class Node:
    """All parts of a node.

    The archive is asked for nothing that the spool does not have, so each part can end at any
    moment: an image lies in the spool, then its results do, then the record says that it is done.
    """

    def __init__(self, settings: NodeSettings):
        """Load the model and listen, without accepting; raises BadInputError, one line."""
        archive = make_archive(settings)
        self.models = LoadedModels(settings.models, settings.model, settings.refresh_seconds)
        self.spool = Spool(settings.spool)
        try:
            self.records = Records(settings.spool / "done.sqlite")
        except BaseException:
            self.spool.close()
            raise
        self.sender = Sender(self.spool, self.records, archive, settings.retry_seconds)
        self.reader = Reader(self.spool, self.records, self.models, settings, self.sender.notify)
        self.door = Door(self.spool, settings, self.reader.notify)
        try:
            self.receiver = Receiver(self.door, settings)
            self.poller = (
                None
                if settings.poll is None
                else Poller(self.door, settings, self.records, self._is_known)
            )
        except BaseException:
            self.records.close()
            self.spool.close()
            raise

    def start(self) -> None:
        """Go on with what is in the spool, and accept."""
        self.models.start()
        self.sender.start()
        self.reader.start()
        self.receiver.start()
        if self.poller is not None:
            self.poller.start()

    def find_ended(self) -> str | None:
        """Return the name of a thread that ended unasked; None while all of them run.

        A node without one would take images, and answer none.
        """
        parts = (self.receiver, self.reader, self.sender, self.poller)
        threads = (part.thread for part in parts if part is not None)
        return next((thread.name for thread in threads if not thread.is_alive()), None)

    def count(self) -> dict[str, int]:
        """Return what came, and what became of all images, by its name."""
        return {**(self.door.counts + self.reader.counts), **self.records.count()}

    def stop(self) -> None:
        """Accept nothing more, finish what is computed, and leave the rest in the spool."""
        self.receiver.stop()
        if self.poller is not None:
            self.poller.stop()
        self.reader.stop()
        self.sender.stop()
        self.models.stop()
        self.records.close()
        self.spool.close()

    def _is_known(self, name: str) -> bool:
        # By any model: an exchange of models is no reason to answer on all of the last days again.
        return self.spool.holds_image(name) or self.records.holds_image(name)


def run_node(settings: NodeSettings) -> None:
    """Run a node until the process is asked to stop (SIGTERM, SIGINT); see Node.stop.

    Raises SystemExit, with a status above 0, where one of its threads ends.
    """
    os.umask(0o077)  # what it writes is a patient's
    log_own_lines()
    asked = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: asked.set())
    node = Node(settings)
    if not settings.tls_certificate:
        logger.warning("the node listens without TLS")
    waiting = len(node.spool.list_images()) + len(node.spool.list_results())
    node.start()
    fields = {"port": node.receiver.port, "waiting": waiting, **node.records.count()}
    logger.info("%s listens at %s", settings.ae_title, settings.host, extra={"fields": fields})
    ended = None
    while ended is None and not asked.wait(_LOOK_SECONDS):
        ended = node.find_ended()
    # A part may be stuck; what is in the spool is safe, and whoever restarts it goes on.
    last = threading.Timer(_STUCK_SECONDS, os._exit, (1,))
    if ended is not None:
        logger.critical("the node stops: its %s ended", ended)
        last.start()
    counts = node.count()
    node.stop()
    last.cancel()
    logger.info("the node stopped", extra={"fields": counts})
    if ended is not None:
        raise SystemExit(1)
