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
        self.records = Records(settings.spool / "done.sqlite")
        self.sender = Sender(self.spool, self.records, archive, settings.retry_seconds)
        self.reader = Reader(self.spool, self.records, self.models, settings, self.sender.notify)
        self.door = Door(self.spool, settings, self.reader.notify)
        try:
            self.receiver = Receiver(self.door, settings)
            self.poller = (
                None if settings.poll is None else Poller(self.door, settings, self._is_known)
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
    """Run a node until the process is asked to stop (SIGTERM, SIGINT); see Node.stop."""
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
    asked.wait()
    counts = node.door.counts
    node_counts = node.records.count()
    node.stop()
    logger.info("the node stopped", extra={"fields": {**counts, **node_counts}})
