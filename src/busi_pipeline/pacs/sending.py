"""Results go to the archive: again and again until it has them, or refuses them for good."""

import logging
import sqlite3
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

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
from busi_pipeline.pacs.spool import ResultKey, Results, Spool
from busi_pipeline.pacs.uids import shorten

logger = logging.getLogger(__name__)

REFUSALS: Final = 5
"""After so many an object stays refused."""
_FIRST_WAIT = 1.0
_CONNECT_SECONDS, _ANSWER_SECONDS, _LAST_SECONDS = 10, 60, 20
WEB_SECONDS: Final = (_CONNECT_SECONDS, _ANSWER_SECONDS)
"""To connect to a DICOMweb service, and between two parts of its answer."""

# Stored, as they are or with elements changed; or there already.
_STORED = (0x0000, 0xB000, 0xB006, 0xB007, 0x0111)
_OUT_OF_RESOURCES = range(0xA700, 0xA800)
_PROCESSING_FAILURE = 0x0110
# Of HTTP: those whose body says what became of each object, and those that refuse all.
_ANSWERING_CODES, _REFUSING_CODES = (200, 202, 409), (400, 409, 413, 415, 422)
_JSON = ("application/dicom+json", "application/json")
# Of DICOM JSON: sequences of an answer of STOW-RS, and what their items say.
_FAILED, _STORED_OBJECTS, _REASON, _INSTANCE = "00081198", "00081199", "00081197", "00081155"


class UnreachableError(Exception):
    """The archive cannot take anything now."""


class RefusedError(Exception):
    """The archive does not take some objects; attribute `refused`: their places, from 0."""

    def __init__(self, reason: str, refused: Sequence[int] = (0,)):
        super().__init__(reason)
        self.refused = tuple(refused)


class Archive(Protocol):
    """Where results go."""

    def send(self, objects: Sequence[bytes]) -> None:
        """Have all objects stored; each is tried, whether or not another one is refused.

        Raises UnreachableError where the archive does not say of each what became of it, and
        RefusedError, both without text of the objects.
        """


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
        refused: dict[int, str] = {}
        try:
            for place, dataset in enumerate(datasets):
                try:
                    _check_status(self._store(association, dataset))
                except RefusedError as error:
                    refused[place] = str(error)
        finally:
            if association.is_established:
                association.release()
        _raise_refusals(refused)

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
    """An archive that takes STOW-RS.

    Not by dicomweb-client: it says nothing where an answer is of a type that it does not know, and
    follows a redirection, which turns a POST into a GET.
    """

    def __init__(self, settings: NodeSettings):
        """Take its address."""
        self._address = f"{settings.to.rstrip('/')}/studies"
        self._session = make_session(settings.to_credentials, settings)

    def send(self, objects: Sequence[bytes]) -> None:
        """Send all objects in one request; in one each, where the archive refuses it as a whole."""
        answer = self._post(objects)
        if answer.code in _ANSWERING_CODES and answer.has_objects:
            _raise_refusals(_check_answer(answer, objects))
        elif answer.code not in _REFUSING_CODES:
            _raise_unconfirmed(answer.code)
        elif len(objects) == 1:
            raise RefusedError(f"HTTP status {answer.code}")
        else:
            self._send_each(objects)

    def _send_each(self, objects: Sequence[bytes]) -> None:
        refused: dict[int, str] = {}
        for place, content in enumerate(objects):
            try:
                self.send([content])
            except RefusedError as error:
                refused[place] = str(error)
        _raise_refusals(refused)

    def _post(self, objects: Sequence[bytes]) -> "_WebAnswer":
        boundary = uuid.uuid4().hex
        start = f"\r\n--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        body = b"".join(start + content for content in objects) + f"\r\n--{boundary}--".encode()
        kind = f'multipart/related; type="application/dicom"; boundary="{boundary}"'
        try:
            response = self._session.post(
                self._address,
                data=body,
                headers={"Content-Type": kind, "Accept": _JSON[0]},
                timeout=WEB_SECONDS,
                allow_redirects=False,
            )
            return _read_answer(response)
        except requests.RequestException as error:
            raise UnreachableError(type(error).__name__) from None


class _WebAnswer(NamedTuple):
    """What STOW-RS answers.

    Attributes:
        code: of HTTP.
        stored: SOP Instance UIDs of the objects that are.
        failed: {SOP Instance UID: status} of those that are not.
    """

    code: int
    stored: frozenset[str] = frozenset()
    failed: Mapping[str, int] = {}

    @property
    def has_objects(self) -> bool:
        """Whether it says of any object what became of it."""
        return bool(self.stored or self.failed)


def _read_answer(response: requests.Response) -> _WebAnswer:
    """Return what an answer says of each object; of one that is not DICOM JSON, the code alone."""
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind not in _JSON:
        return _WebAnswer(response.status_code)
    try:
        answer: dict[str, Any] = response.json()
        stored = frozenset(_read_value(item, _INSTANCE) for item in _list(answer, _STORED_OBJECTS))
        failed = {
            _read_value(item, _INSTANCE): int(_read_value(item, _REASON) or _PROCESSING_FAILURE)
            for item in _list(answer, _FAILED)
        }
    except (AttributeError, TypeError, ValueError):  # another form of JSON
        return _WebAnswer(response.status_code)
    return _WebAnswer(response.status_code, stored, failed)


def _list(answer: dict[str, Any], tag: str) -> list[dict[str, Any]]:
    return answer.get(tag, {}).get("Value") or []


def _read_value(item: dict[str, Any], tag: str) -> str:
    values = _list(item, tag)
    return str(values[0]) if values else ""


def _check_answer(answer: _WebAnswer, objects: Sequence[bytes]) -> dict[int, str]:
    """Return {place: reason} of the objects that are refused.

    Raises UnreachableError where an object is neither stored nor refused.
    """
    refused: dict[int, str] = {}
    for place, content in enumerate(objects):
        instance = str(read_file(content).SOPInstanceUID)
        if instance in answer.failed:
            try:
                _check_status(answer.failed[instance])
            except RefusedError as error:
                refused[place] = str(error)
        elif instance not in answer.stored:
            _raise_unconfirmed(answer.code)
    return refused


def _raise_unconfirmed(code: int) -> None:
    raise UnreachableError(f"it does not say that it stored them, HTTP status {code}")


def _raise_refusals(refused: Mapping[int, str]) -> None:
    if refused:
        raise RefusedError("; ".join(dict.fromkeys(refused.values())), tuple(refused))


def make_archive(settings: NodeSettings) -> Archive:
    """Return where results go; raises BadInputError, one line."""
    return WebArchive(settings) if is_web(settings.to) else StoreArchive(settings)


def make_session(credentials: str | None, settings: NodeSettings) -> requests.Session:
    """Return what asks a DICOMweb service, once: its callers know when to try again."""
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
    return session


def make_web_client(address: str, session: requests.Session) -> DICOMwebClient:
    """Return a client that searches at a DICOMweb service."""
    client = DICOMwebClient(address, session, timeout=WEB_SECONDS)
    client.set_http_retry_params(retry=False)
    return client


def _check_status(status: int) -> None:
    if status in _STORED:
        return
    if status in _OUT_OF_RESOURCES:
        raise UnreachableError(f"out of resources, status 0x{status:04X}")
    raise RefusedError(f"status 0x{status:04X}")


@dataclass
class _Waiting:
    """What is known of results that wait.

    Attributes:
        refusals: so far.
        due: time from which they are sent (time.monotonic).
        is_sent: whether the archive has them, and only the record misses.
        failures: to record them.
    """

    refusals: int = 0
    due: float = 0.0
    is_sent: bool = False
    failures: int = 0


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
        self.thread = threading.Thread(target=self._run, name="sender", daemon=True)

    def start(self) -> None:
        """Send what waits from before, and go on."""
        for key in self._spool.list_results():
            self.notify(key)
        self.thread.start()

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
        if self.thread.is_alive():
            self.thread.join(_LAST_SECONDS + _ANSWER_SECONDS)

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
        own = self._waiting[key]
        try:
            if not own.is_sent:
                self._archive.send(results.objects)
                own.is_sent, self._failures = True, 0
                logger.info("results sent", extra={"fields": fields})
        except UnreachableError as error:
            self._fail(key, str(error), fields)
        except RefusedError as error:
            self._refuse(key, error, fields)
        except Exception as error:  # its text may be a patient's
            self._fail(key, describe_error(error), fields)
        else:
            self._record(key, results, fields)

    def _record(self, key: ResultKey, results: Results, fields: dict[str, object]) -> None:
        """Keep that results are sent; where that fails, again later, without sending."""
        try:
            self._records.add(key, results.outcome)
            self._spool.drop_results(key)
        except Exception as error:  # the disk may be full, the file damaged
            with self._changed:
                own = self._waiting[key]
                wait = self._grow(own.failures)
                own.failures += 1
                own.due = time.monotonic() + wait
            more = {"reason": describe_error(error), "seconds": wait}
            logger.error("results are sent, but not recorded", extra={"fields": fields | more})
        else:
            self._forget(key)

    def _fail(self, key: ResultKey, reason: str, fields: dict[str, object]) -> None:
        with self._changed:
            # The next time others come first: these may be why it hangs up.
            self._waiting[key] = self._waiting.pop(key)
        wait = self._grow(self._failures)
        self._failures += 1
        self._open_from = time.monotonic() + wait
        more = {"reason": reason, "seconds": wait, "waiting": len(self._waiting)}
        logger.warning("the archive cannot be reached", extra={"fields": fields | more})

    def _refuse(self, key: ResultKey, error: RefusedError, fields: dict[str, object]) -> None:
        self._failures = 0
        with self._changed:
            own = self._waiting[key]
            own.refusals += 1
            own.due = time.monotonic() + self._grow(own.refusals - 1)
        more = {"reason": str(error), "objects": len(error.refused), "times": own.refusals}
        if own.refusals < REFUSALS:
            logger.warning("the archive refuses results", extra={"fields": fields | more})
            return
        try:
            self._records.add(key, REFUSED)
        except sqlite3.Error as problem:  # the folder of what was refused says it, too
            logger.error("the refusal is not recorded: %s", describe_error(problem))
        self._leave(key, str(error), fields, error.refused)

    def _leave(
        self,
        key: ResultKey,
        reason: str,
        fields: dict[str, object],
        refused: Sequence[int] | None = None,
    ) -> None:
        """Put results, of some only the refused ones, where they hold up nobody."""
        logger.error("results stay here", extra={"fields": fields | {"reason": reason}})
        self._forget(key)
        try:
            self._spool.refuse_results(key, refused)
        except Exception as error:  # they may be damaged
            logger.error("they cannot be moved: %s", describe_error(error))

    def _forget(self, key: ResultKey) -> None:
        with self._changed:
            del self._waiting[key]

    def _grow(self, failures: int) -> float:
        return min(self._longest, _FIRST_WAIT * 2 ** min(failures, 20))
