"""C-ECHO and C-STORE: an image is taken once it lies on the disk."""

import io
import logging
import socket
import ssl
import struct
import threading
import weakref
from collections import Counter
from collections.abc import Callable
from socketserver import TCPServer
from typing import Any, Final

from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.events import Event
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]
from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from busi_pipeline.errors import BadInputError
from busi_pipeline.imaging.decoding import UnusableImageError
from busi_pipeline.imaging.dicom import TRANSFER_SYNTAXES
from busi_pipeline.pacs.encryption import make_server_context
from busi_pipeline.pacs.quiet import describe_error
from busi_pipeline.pacs.settings import NodeSettings
from busi_pipeline.pacs.source import (
    IMAGE_CLASSES,
    RESULT_CLASSES,
    hash_dataset,
    is_own_result,
    read_source,
)
from busi_pipeline.pacs.spool import OTHER_CONTENT, Spool
from busi_pipeline.pacs.uids import name_image, shorten

logger = logging.getLogger(__name__)

SUCCESS: Final = 0x0000
OUT_OF_RESOURCES: Final = 0xA700
OTHER_OBJECT: Final = 0xA900
NOT_UNDERSTOOD: Final = 0xC000
CLASS_NOT_SUPPORTED: Final = 0x0122

# Of one message; an association request with many contexts has some tens of thousands.
_LARGEST_PDU = 1 << 20
_PDU_BYTES = 128_000
_SECONDS = 30
_COMMAND, _LAST = 1, 2  # bits of a part of a command or object
TOO_LARGE: Final = "larger than --max-bytes"


class _TurnedAwayError(Exception):
    """An object is not taken; attributes `status` of its C-STORE, `reason` for the log."""

    def __init__(self, status: int, reason: str):
        super().__init__(reason)
        self.status, self.reason = status, reason


class Door:
    """Takes images in, from whatever way they come, and says what became of each."""

    def __init__(self, spool: Spool, settings: NodeSettings, notify: Callable[[str], None]):
        """Take what it needs.

        Args:
            spool: where images are kept.
            settings: with their limits.
            notify: is called with the name of each image that was kept.
        """
        self._spool, self._settings, self._notify = spool, settings, notify
        self.counts: Counter[str] = Counter()

    def admit(self, content: bytes, instance: str = "") -> int:
        """Keep an image, and return the status of its C-STORE.

        Args:
            content: of the DICOM file.
            instance: SOP Instance UID that was announced; "" for none.
        """
        try:
            name = self._check(content, instance)
            if name is None:
                self.counts["results"] += 1
            elif self._keep(name, content):
                self.counts["images"] += 1
                logger.info("image taken", extra={"fields": {"image": shorten(name)}})
                self._notify(name)
        except _TurnedAwayError as error:
            return self.turn_away(error.status, error.reason, instance)
        return SUCCESS

    def turn_away(self, status: int, reason: str, instance: str) -> int:
        """Count and log that an object is not taken, and return the status of its C-STORE."""
        self.counts["turned away"] += 1
        image = shorten(name_image(instance)) if instance else ""
        fields = {"image": image, "reason": reason, "status": f"0x{status:04X}"}
        logger.warning("object turned away", extra={"fields": fields})
        return status

    def _check(self, content: bytes, instance: str) -> str | None:
        """Return the name of an image; None for what is no image and needs no answer.

        That is a result of a node, which comes back, and a report or picture of another maker: an
        archive that forwards whole studies would send what is refused again, for ever.
        """
        if len(content) > self._settings.max_bytes:
            raise _TurnedAwayError(NOT_UNDERSTOOD, TOO_LARGE)
        try:
            source = read_source(content)
        except UnusableImageError as error:
            raise _TurnedAwayError(NOT_UNDERSTOOD, str(error)) from None
        if instance and source.instance != instance:
            raise _TurnedAwayError(OTHER_OBJECT, "not the object that was announced")
        if source.sop_class in RESULT_CLASSES:
            if not is_own_result(source):
                fields = {"image": shorten(name_image(source.instance))}
                logger.info("object of another maker ignored", extra={"fields": fields})
            return None
        if source.sop_class not in IMAGE_CLASSES:
            raise _TurnedAwayError(CLASS_NOT_SUPPORTED, "no ultrasound image")
        return name_image(source.instance)

    def _keep(self, name: str, content: bytes) -> bool:
        if self._spool.free_bytes - len(content) < self._settings.free_bytes:
            raise _TurnedAwayError(OUT_OF_RESOURCES, "the disk is full")
        try:
            while not self._spool.keep_image(name, content):
                waiting = self._spool.read_image(name)
                if waiting is None:  # it was answered just now; the reader says what this one is
                    continue
                if hash_dataset(waiting.content) != hash_dataset(content):
                    self.counts["other content"] += 1
                    logger.warning(OTHER_CONTENT, extra={"fields": {"image": shorten(name)}})
                return False
            return True
        except OSError as error:
            raise _TurnedAwayError(OUT_OF_RESOURCES, describe_error(error)) from None


class _Handler(RequestHandler):
    """Reads no message that is larger than any has to be."""

    def _create_association(self) -> Association:
        association = super()._create_association()
        connection = association.dul.socket
        assert connection is not None
        receive = connection.recv

        def receive_some(count: int) -> bytearray:
            # Its length is what the other side says, before anything is known of it.
            if count > _LARGEST_PDU:
                raise OSError("a message is too large")
            return receive(count)

        vars(connection)["recv"] = receive_some
        return association


class Server(ThreadedAssociationServer):
    """A server that no slow or silent client holds up.

    pynetdicom lets TLS shake hands in the thread that accepts connections, and waits without end
    for the rest of a message.
    """

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection; hands are shaken by its own thread."""
        assert self.socket is not None
        connection, address = self.socket.accept()
        connection.settimeout(_SECONDS)
        if self.ssl_context is not None:
            connection = self.ssl_context.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
        return connection, address

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Shake hands, then begin."""
        try:
            if isinstance(request, ssl.SSLSocket):
                request.do_handshake()
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", None) or type(error).__name__
            logger.warning("no TLS with a client", extra={"fields": {"reason": str(reason)}})
            self.shutdown_request(request)
            return
        super().process_request_thread(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Write no traceback: it may quote what came."""
        logger.error("a connection failed")

    def shutdown(self) -> None:
        """Accept nothing more."""
        TCPServer.shutdown(self)
        self.server_close()


class Receiver:
    """Listens for C-ECHO and C-STORE."""

    def __init__(self, door: Door, settings: NodeSettings):
        """Listen; raises BadInputError, one line, where the address or TLS cannot be used."""
        self._door, self._most = door, settings.max_bytes
        self._entity = AE(settings.ae_title)
        self._entity.require_calling_aet = list(settings.allow)
        self._entity.require_called_aet = True
        self._entity.maximum_associations = settings.associations
        self._entity.maximum_pdu_size = _PDU_BYTES
        self._entity.acse_timeout = self._entity.dimse_timeout = _SECONDS
        self._entity.network_timeout = 2 * _SECONDS
        self._entity.add_supported_context(Verification)
        for own in (*IMAGE_CLASSES, *RESULT_CLASSES):
            self._entity.add_supported_context(own, list(TRANSFER_SYNTAXES))
        handlers: list[Any] = [
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_C_ECHO, self._echo),
            (evt.EVT_PDU_RECV, self._measure),
            (evt.EVT_REJECTED, self._note_rejection),
        ]
        try:
            self._server = self._entity.make_server(
                (settings.host, settings.port),
                contexts=self._entity.supported_contexts,
                ssl_context=make_server_context(settings),
                evt_handlers=handlers,
                server_class=Server,
                request_handler=_Handler,
            )
        except (OSError, struct.error) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise BadInputError(
                f"cannot listen at {settings.host}, port {settings.port}: {reason}."
            ) from None
        self.thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="receiver", daemon=True
        )
        # Bytes of the object that each association is sending.
        self._sizes: weakref.WeakKeyDictionary[Association, int] = weakref.WeakKeyDictionary()
        # Those whose last object was too large.
        self._too_large: weakref.WeakSet[Association] = weakref.WeakSet()

    @property
    def port(self) -> int:
        """That it listens at."""
        assert self._server.socket is not None
        return int(self._server.socket.getsockname()[1])

    def start(self) -> None:
        """Accept connections."""
        self.thread.start()

    def stop(self) -> None:
        """Accept nothing more; what is half sent will be sent again."""
        self._server.shutdown()
        for association in self._entity.active_associations:
            association.abort()
        self.thread.join(_SECONDS)

    def _echo(self, event: Event) -> int:
        return SUCCESS

    def _store(self, event: Event) -> int:
        instance = str(getattr(event.request, "AffectedSOPInstanceUID", ""))
        if event.assoc in self._too_large:
            self._too_large.discard(event.assoc)
            return self._door.turn_away(NOT_UNDERSTOOD, TOO_LARGE, instance)
        try:
            return self._door.admit(event.encoded_dataset(), instance)
        except Exception as error:  # its text may be a patient's
            logger.error("an object was not taken: %s", describe_error(error))
            return NOT_UNDERSTOOD

    def _measure(self, event: Event) -> None:
        """Drop what comes of an object beyond what one may have; its C-STORE is refused then.

        pynetdicom gives a message to its handler before it puts it together, in the same thread.
        """
        for item in getattr(event.pdu, "presentation_data_value_items", ()):
            value = item.presentation_data_value
            size = self._sizes.get(event.assoc, 0) + len(value) - 1
            if size > self._most:
                self._drop(event.assoc, item)
            # After the last part another command or object begins.
            self._sizes[event.assoc] = 0 if value[0] & _LAST else size

    def _drop(self, association: Association, item: Any) -> None:
        if item.presentation_data_value[0] & _COMMAND:  # no command is of any size
            association.abort()
            return
        self._too_large.add(association)
        item.presentation_data_value = item.presentation_data_value[:1]
        message = association.dimse.message
        if message is not None:
            message.data_set = io.BytesIO()

    def _note_rejection(self, event: Event) -> None:
        title = str(event.assoc.requestor.ae_title)
        shown = title.encode("ascii", "replace").decode("ascii")
        logger.warning("association rejected", extra={"fields": {"calling": shown}})
