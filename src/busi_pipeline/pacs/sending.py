"""Results go to the archive: again and again until it has them, or refuses them for good."""

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import requests
from dicomweb_client import DICOMwebClient
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE

from busi_pipeline.pacs.encryption import make_client_context
from busi_pipeline.pacs.quiet import describe_error
from busi_pipeline.pacs.records import REFUSED, Records
from busi_pipeline.pacs.results import read_file
from busi_pipeline.pacs.settings import NodeSettings, is_web, parse_store_address
from busi_pipeline.pacs.source import RESULT_CLASSES
from busi_pipeline.pacs.spool import ResultKey, Spool
from busi_pipeline.pacs.uids import shorten

logger = logging.getLogger(__name__)

REFUSALS: Final = 5
"""After so many an object stays refused."""
_FIRST_WAIT = 1.0
_CONNECT_SECONDS, _ANSWER_SECONDS, _LAST_SECONDS = 10, 60, 20

# Stored, as they are or with elements changed; or there already.
_STORED = (0x0000, 0xB000, 0xB006, 0xB007, 0x0111)
_OUT_OF_RESOURCES = range(0xA700, 0xA800)
_REFUSING_CODES = (400, 409, 413, 415, 422)


class UnreachableError(Exception):
    """The archive cannot take anything now."""


class RefusedError(Exception):
    """The archive does not take these objects."""


class Archive(Protocol):
    """Where results go."""

    def send(self, objects: Sequence[bytes]) -> None:
        """Have all objects stored; raises UnreachableError or RefusedError, without their text."""


class StoreArchive:
    """An archive that takes C-STORE."""

    def __init__(self, settings: NodeSettings):
        """Take its address; raises BadInputError where TLS cannot be used."""
        self._address = parse_store_address(settings.to)
        self._context = make_client_context(settings)
        self._entity = AE(settings.ae_title)
        self._entity.connection_timeout = _CONNECT_SECONDS
        self._entity.acse_timeout = _CONNECT_SECONDS
        self._entity.dimse_timeout = self._entity.network_timeout = _ANSWER_SECONDS
        for own in RESULT_CLASSES:
            self._entity.add_requested_context(
                own, [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
            )

    def send(self, objects: Sequence[bytes]) -> None:
        """Send all objects over one association."""
        datasets = [read_file(content) for content in objects]
        title, host, port = self._address
        association = self._entity.associate(
            host,
            port,
            ae_title=title,
            tls_args=None if self._context is None else (self._context, host),
        )
        if not association.is_established:
            raise UnreachableError(
                "it rejects the association" if association.is_rejected else "no association"
            )
        try:
            for dataset in datasets:
                _check_status(self._store(association, dataset))
        finally:
            if association.is_established:
                association.release()

    def _store(self, association: object, dataset: Dataset) -> int:
        try:
            answer = association.send_c_store(dataset)  # type: ignore[attr-defined]
        except ValueError:
            raise RefusedError("it takes no objects of this class") from None
        except RuntimeError:
            raise UnreachableError("the association ended") from None
        if "Status" not in answer:
            raise UnreachableError("no answer")
        return int(answer.Status)


class WebArchive:
    """An archive that takes STOW-RS."""

    def __init__(self, settings: NodeSettings):
        """Take its address."""
        self._client = make_web_client(settings.to, settings.to_credentials, settings)

    def send(self, objects: Sequence[bytes]) -> None:
        """Send all objects in one request."""
        try:
            answer = self._client.store_instances([read_file(content) for content in objects])
        except requests.HTTPError as error:
            response = error.response
            assert response is not None
            if response.status_code not in _REFUSING_CODES:
                raise UnreachableError(f"HTTP status {response.status_code}") from None
            answer = _read_failures(response)
            if not answer.get("FailedSOPSequence"):
                raise RefusedError(f"HTTP status {response.status_code}") from None
        except requests.RequestException as error:
            raise UnreachableError(type(error).__name__) from None
        for item in answer.get("FailedSOPSequence") or ():
            _check_status(int(item.get("FailureReason") or 0x0110))


def make_archive(settings: NodeSettings) -> Archive:
    """Return where results go; raises BadInputError, one line."""
    return WebArchive(settings) if is_web(settings.to) else StoreArchive(settings)


def make_web_client(
    address: str, credentials: str | None, settings: NodeSettings
) -> DICOMwebClient:
    """Return a client of a DICOMweb service.

    It tries once: sender and poller know themselves when to try again. And dicomweb-client sends
    nothing the second time where it sends in parts, so it has to send in one.
    """
    session = requests.Session()
    session.trust_env = False  # no proxy, and no password, that nobody named here
    session.verify = True if settings.tls_ca is None else str(settings.tls_ca)
    if settings.tls_certificate is not None and settings.tls_key is not None:
        session.cert = (str(settings.tls_certificate), str(settings.tls_key))
    if credentials is not None and credentials.startswith("Bearer "):
        session.headers["Authorization"] = credentials
    elif credentials is not None:
        name, _, password = credentials.partition(":")
        session.auth = (name, password)
    client = DICOMwebClient(
        address, session, chunk_size=1 << 40, timeout=(_CONNECT_SECONDS, _ANSWER_SECONDS)
    )
    client.set_http_retry_params(retry=False)
    return client


def _read_failures(response: requests.Response) -> Dataset:
    try:
        return Dataset.from_json(response.json())
    except Exception:
        return Dataset()


def _check_status(status: int) -> None:
    if status in _STORED:
        return
    if status in _OUT_OF_RESOURCES:
        raise UnreachableError(f"out of resources, status 0x{status:04X}")
    raise RefusedError(f"status 0x{status:04X}")


@dataclass
class _Waiting:
    """Attributes: `refusals` so far; `due`, the time from which it is sent (time.monotonic)."""

    refusals: int = 0
    due: float = 0.0


class Sender:
    """Sends what waits, in a thread of its own.

    Where the archive cannot be reached, all of it waits, longer each time. Where it refuses one
    image's results, only these do.
    """

    def __init__(self, spool: Spool, records: Records, archive: Archive, longest_wait: float):
        """Take what it needs; `longest_wait` in seconds."""
        self._spool, self._records, self._archive = spool, records, archive
        self._longest = longest_wait
        self._waiting: dict[ResultKey, _Waiting] = {}
        self._changed = threading.Condition()
        self._failures, self._open_from = 0, 0.0
        self._is_stopped = False
        self._thread = threading.Thread(target=self._run, name="sender", daemon=True)

    def start(self) -> None:
        """Send what waits from before, and go on."""
        for key in self._spool.list_results():
            self.notify(key)
        self._thread.start()

    def notify(self, key: ResultKey) -> None:
        """Send results that are in the spool now."""
        with self._changed:
            self._waiting.setdefault(key, _Waiting())
            self._changed.notify()

    def stop(self) -> None:
        """Send what has not failed yet, for some seconds; the rest stays in the spool."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(_LAST_SECONDS + _ANSWER_SECONDS)

    def _run(self) -> None:
        while (key := self._wait_for_due()) is not None:
            self._send(key)
        end = time.monotonic() + _LAST_SECONDS
        while not self._failures and time.monotonic() < end and (key := self._find_due()):
            self._send(key)

    def _wait_for_due(self) -> ResultKey | None:
        """Return what is to be sent; None once it is to stop."""
        with self._changed:
            while not self._is_stopped:
                if (key := self._find_due()) is not None:
                    return key
                moments = [max(own.due, self._open_from) for own in self._waiting.values()]
                wait = min(moments) - time.monotonic() if moments else None
                self._changed.wait(None if wait is None else max(0.0, wait))
            return None

    def _find_due(self) -> ResultKey | None:
        now = time.monotonic()
        if now < self._open_from:
            return None
        return next((key for key, own in list(self._waiting.items()) if own.due <= now), None)

    def _send(self, key: ResultKey) -> None:
        fields: dict[str, object] = {"image": shorten(key.image), "model_version": key.version}
        try:
            results = self._spool.read_results(key)
        except Exception as error:
            self._leave(key, f"they are damaged: {describe_error(error)}", fields)
            return
        try:
            self._archive.send(results.objects)
            self._records.add(key, results.content, results.outcome)
            self._spool.drop_results(key)
        except UnreachableError as error:
            self._fail(key, str(error), fields)
        except RefusedError as error:
            self._refuse(key, str(error), results.content, fields)
        except Exception as error:  # its text may be a patient's; the disk may be full
            self._fail(key, describe_error(error), fields)
        else:
            self._forget(key)
            self._failures = 0
            logger.info("results sent", extra={"fields": fields})

    def _fail(self, key: ResultKey, reason: str, fields: dict[str, object]) -> None:
        with self._changed:
            # The next time others come first: these may be why it hangs up.
            self._waiting[key] = self._waiting.pop(key)
        wait = self._grow(self._failures)
        self._failures += 1
        self._open_from = time.monotonic() + wait
        more = {"reason": reason, "seconds": wait, "waiting": len(self._waiting)}
        logger.warning("the archive cannot be reached", extra={"fields": fields | more})

    def _refuse(self, key: ResultKey, reason: str, content: str, fields: dict[str, object]) -> None:
        self._failures = 0
        with self._changed:
            own = self._waiting[key]
            own.refusals += 1
            own.due = time.monotonic() + self._grow(own.refusals - 1)
        more = {"reason": reason, "times": own.refusals}
        if own.refusals < REFUSALS:
            logger.warning("the archive refuses results", extra={"fields": fields | more})
            return
        self._records.add(key, content, REFUSED)
        self._leave(key, reason, fields)

    def _leave(self, key: ResultKey, reason: str, fields: dict[str, object]) -> None:
        """Put results where they hold up nobody."""
        logger.error("results stay here", extra={"fields": fields | {"reason": reason}})
        self._forget(key)
        try:
            self._spool.refuse_results(key)
        except OSError as error:
            logger.error("they cannot be moved: %s", describe_error(error))

    def _forget(self, key: ResultKey) -> None:
        with self._changed:
            del self._waiting[key]

    def _grow(self, failures: int) -> float:
        return min(self._longest, _FIRST_WAIT * 2 ** min(failures, 20))
