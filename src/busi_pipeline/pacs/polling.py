"""Looks for images at an archive that cannot send them: QIDO-RS, then WADO-RS."""

import io
import logging
import threading
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from functools import partial
from typing import Any, NamedTuple

from busi_pipeline.pacs.quiet import describe_error
from busi_pipeline.pacs.receiving import OUT_OF_RESOURCES, SUCCESS, Door
from busi_pipeline.pacs.sending import make_web_client
from busi_pipeline.pacs.settings import NodeSettings
from busi_pipeline.pacs.source import IMAGE_CLASSES
from busi_pipeline.pacs.uids import name_image, shorten

logger = logging.getLogger(__name__)

_STUDY, _SERIES, _INSTANCE, _CLASS = "0020000D", "0020000E", "00080018", "00080016"
_MODALITIES, _PAGE = "00080061", 100
# As it was stored; else the archive would decompress it.
_AS_STORED = (("application/dicom", "*"),)


class _Found(NamedTuple):
    study: str
    series: str
    instance: str


class Poller:
    """Looks at an archive in intervals, in a thread of its own."""

    def __init__(self, door: Door, settings: NodeSettings, is_known: Callable[[str], bool]):
        """Take what it needs; `is_known` says of an image's name whether it came before."""
        assert settings.poll is not None
        self._client = make_web_client(settings.poll, settings.poll_credentials, settings)
        self._door, self._is_known = door, is_known
        self._seconds, self._days = settings.poll_seconds, settings.poll_days
        # What was turned away is not fetched each time.
        self._turned_away: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="poller", daemon=True)

    def start(self) -> None:
        """Look now, and go on."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more; the image that is fetched is kept or left."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(self._seconds + 60)

    def look(self) -> int:
        """Fetch all images that are new, and return their number."""
        fetched = 0
        for found in self._search():
            if self._stop.is_set():
                break
            name = name_image(found.instance)
            if name in self._turned_away or self._is_known(name):
                continue
            fetched += self._fetch(found, name)
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

    def _search(self) -> Iterator[_Found]:
        client = self._client
        since = date.today() - timedelta(days=self._days - 1)
        dates = {"StudyDate": f"{since:%Y%m%d}-"}
        for study in _read_pages(partial(client.search_for_studies, search_filters=dates), _STUDY):
            modalities = study.get(_MODALITIES, {}).get("Value")
            if modalities and "US" not in modalities:
                continue
            uid = _read(study, _STUDY)
            search = partial(client.search_for_series, uid, search_filters={"Modality": "US"})
            for series in _read_pages(search, _SERIES):
                own = _read(series, _SERIES)
                search = partial(client.search_for_instances, uid, own)
                for instance in _read_pages(search, _INSTANCE):
                    if _read(instance, _CLASS) in IMAGE_CLASSES:
                        yield _Found(uid, own, _read(instance, _INSTANCE))

    def _fetch(self, found: _Found, name: str) -> bool:
        try:
            dataset = self._client.retrieve_instance(*found, media_types=_AS_STORED)
            buffer = io.BytesIO()
            dataset.save_as(buffer, enforce_file_format=True)
        except Exception as error:  # the next time, perhaps
            fields = {"image": shorten(name), "reason": describe_error(error)}
            logger.warning("image not fetched", extra={"fields": fields})
            return False
        status = self._door.admit(buffer.getvalue(), found.instance)
        if status not in (SUCCESS, OUT_OF_RESOURCES):
            self._turned_away.add(name)
        return status == SUCCESS


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
