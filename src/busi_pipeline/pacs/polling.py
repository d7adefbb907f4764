"""Looks for images at an archive that cannot send them: QIDO-RS, then WADO-RS."""

import logging
import threading
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from email.message import Message
from functools import partial
from typing import Any, Final

import requests

from busi_pipeline.pacs.quiet import describe_error
from busi_pipeline.pacs.receiving import NOT_UNDERSTOOD, OUT_OF_RESOURCES, SUCCESS, TOO_LARGE, Door
from busi_pipeline.pacs.records import Records
from busi_pipeline.pacs.sending import WEB_SECONDS, make_session, make_web_client
from busi_pipeline.pacs.settings import NodeSettings
from busi_pipeline.pacs.source import IMAGE_CLASSES
from busi_pipeline.pacs.uids import name_image, shorten

logger = logging.getLogger(__name__)

_STUDY, _SERIES, _INSTANCE, _CLASS = "0020000D", "0020000E", "00080018", "00080016"
_MODALITIES, _PAGE = "00080061", 100
# As it was stored; else the archive would decompress it.
_AS_STORED = 'multipart/related; type="application/dicom"; transfer-syntax=*'
_CHUNK, _MOST_AROUND = 1 << 16, 10_000
_LAST_SECONDS: Final = 20


class Poller:
    """Looks at an archive in intervals, in a thread of its own."""

    def __init__(
        self,
        door: Door,
        settings: NodeSettings,
        records: Records,
        is_known: Callable[[str], bool],
    ):
        """Take what it needs; `is_known` says of an image's name whether it came before."""
        assert settings.poll is not None
        self._address = settings.poll.rstrip("/")
        self._session = make_session(settings.poll_credentials, settings)
        self._client = make_web_client(self._address, self._session)
        self._door, self._records, self._is_known = door, records, is_known
        self._seconds, self._days = settings.poll_seconds, settings.poll_days
        self._most = settings.max_bytes
        self._stop = threading.Event()
        self.thread = threading.Thread(target=self._run, name="poller", daemon=True)

    def start(self) -> None:
        """Look now, and go on."""
        self.thread.start()

    def stop(self) -> None:
        """Look no more; the image that is fetched is kept, or left after some seconds."""
        self._stop.set()
        if self.thread.is_alive():
            self.thread.join(_LAST_SECONDS)

    def look(self) -> int:
        """Fetch all images that are new, and return their number.

        A study that cannot be looked at holds up no other. The day of a look that missed nothing is
        kept, so that the next one goes back to it, however long the node or the archive was away.
        """
        today = date.today()
        fetched, is_complete = 0, True
        for study in self._list_studies(today):
            try:
                for series, instance in self._list_images(study):
                    if self._stop.is_set():
                        return fetched
                    name = name_image(instance)
                    if self._is_known(name) or self._records.holds_turned_away(name):
                        continue
                    status = self._fetch(study, series, instance)
                    fetched += status == SUCCESS
                    is_complete &= status not in (None, OUT_OF_RESOURCES)
            except Exception as error:  # its text may name the study
                is_complete = False
                fields = {"study": shorten(name_image(study)), "reason": describe_error(error)}
                logger.warning("a study cannot be looked at", extra={"fields": fields})
        if is_complete:
            self._records.keep_look(today)
        return fetched

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                fetched = self.look()
                if fetched:
                    logger.info("images fetched", extra={"fields": {"images": fetched}})
            except Exception as error:  # its text may name a study
                logger.warning("the archive cannot be looked at: %s", describe_error(error))
            self._stop.wait(self._seconds)

    def _find_start(self, today: date) -> date:
        """Return the day from which studies are looked at."""
        start = today - timedelta(days=self._days - 1)
        last = self._records.find_look()
        # A day more: the archive may be in another time zone.
        return start if last is None else min(start, last - timedelta(days=1))

    def _list_studies(self, today: date) -> Iterator[str]:
        dates = {"StudyDate": f"{self._find_start(today):%Y%m%d}-"}
        search = partial(self._client.search_for_studies, search_filters=dates)
        for study in _read_pages(search, _STUDY):
            modalities = study.get(_MODALITIES, {}).get("Value")
            if not modalities or "US" in modalities:
                yield _read(study, _STUDY)

    def _list_images(self, study: str) -> Iterator[tuple[str, str]]:
        """Yield series and instance of each ultrasound image of a study."""
        client = self._client
        search = partial(client.search_for_series, study, search_filters={"Modality": "US"})
        for found in _read_pages(search, _SERIES):
            series = _read(found, _SERIES)
            search = partial(client.search_for_instances, study, series)
            for instance in _read_pages(search, _INSTANCE):
                if _read(instance, _CLASS) in IMAGE_CLASSES:
                    yield series, _read(instance, _INSTANCE)

    def _fetch(self, study: str, series: str, instance: str) -> int | None:
        """Fetch an image, and return its status at the door; None where it cannot be fetched."""
        name = name_image(instance)
        try:
            content = self._read_instance(study, series, instance)
        except Exception as error:  # the next time, perhaps
            fields = {"image": shorten(name), "reason": describe_error(error)}
            logger.warning("image not fetched", extra={"fields": fields})
            return None
        if content is None:
            status = self._door.turn_away(NOT_UNDERSTOOD, TOO_LARGE, instance)
        else:
            status = self._door.admit(content, instance)
        if status not in (SUCCESS, OUT_OF_RESOURCES):
            self._records.add_turned_away(name)  # it is not fetched each time
        return status

    def _read_instance(self, study: str, series: str, instance: str) -> bytes | None:
        """Return the file of an image, as the archive has it; None where it is too large.

        dicomweb-client would hold all of it before it is known how large it is.
        """
        address = f"{self._address}/studies/{study}/series/{series}/instances/{instance}"
        with self._session.get(
            address, headers={"Accept": _AS_STORED}, timeout=WEB_SECONDS, stream=True
        ) as response:
            response.raise_for_status()
            body = bytearray()
            for chunk in response.iter_content(_CHUNK):
                body += chunk
                if len(body) > self._most + _MOST_AROUND:
                    return None
            return _take_part(response, bytes(body))


def _take_part(response: requests.Response, body: bytes) -> bytes:
    """Return the one part of an answer; raises ValueError where there is none."""
    header = Message()
    header["Content-Type"] = response.headers.get("Content-Type", "")
    if header.get_content_type() == "application/dicom":
        return body
    boundary = header.get_boundary()
    if boundary is None:
        raise ValueError("neither a DICOM file nor parts")
    delimiter = b"\r\n--" + boundary.encode()
    _, found, part = (b"\r\n" + body).partition(delimiter)
    part, ends, _ = part.partition(delimiter)
    _, starts, content = part.partition(b"\r\n\r\n")
    if not (found and ends and starts):
        raise ValueError("no part, or a part of one")
    return content


def _read_pages(search: Callable[..., list[dict[str, Any]]], tag: str) -> Iterator[dict[str, Any]]:
    """Yield what a search finds, page by page, each thing once.

    dicomweb-client's own `get_remaining` never ends where a server ignores `offset`, as Orthanc
    does when it is asked for ModalitiesInStudy. So that is not asked for, and a page without
    anything new is the last one.
    """
    seen: set[str] = set()
    offset = 0
    while page := search(limit=_PAGE, offset=offset):
        offset += len(page)
        new = [answer for answer in page if _read(answer, tag) not in seen]
        if not new:
            return
        seen.update(_read(answer, tag) for answer in new)
        yield from new


def _read(answer: dict[str, Any], tag: str) -> str:
    """Return the first value of an element of DICOM JSON, "" where there is none."""
    values = answer.get(tag, {}).get("Value") or [""]
    return str(values[0])
