"""A reader reads an image, sees what the model says, and decides: in this order, and on record."""

import hashlib
import secrets
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from busi_pipeline.errors import BadInputError
from busi_pipeline.imaging.decoding import UnusableImageError, hash_pixels
from busi_pipeline.imaging.dicom import is_dicom, read_header, select_frames
from busi_pipeline.imaging.overlays import encode_png, make_attribution_layer
from busi_pipeline.imaging.quality import check_pixels
from busi_pipeline.models.packaged import SHOWN_FRAME, Answer, check_box, decode_any
from busi_pipeline.serving.page.readings import ANSWER, DECISION, READ, Readings
from busi_pipeline.serving.page.sessions import Box, Case, Session, Sessions
from busi_pipeline.serving.problems import RequestError
from busi_pipeline.serving.service import Service, Unusable
from busi_pipeline.stats.readers import CATEGORIES

EDGES = ("left", "top", "right", "bottom")


class Opened(NamedTuple):
    """Attributes: see Case."""

    pixel_sha256: str
    picture: bytes
    width: int
    height: int
    frame: int
    frames: int


class Desk:
    """Where readers read.

    Attributes:
        service: that answers.
        readings: what readers said.
        sessions: of all readers.
    """

    def __init__(self, service: Service, readings: Readings, sessions: Sessions):
        """Put them together."""
        self.service, self.readings, self.sessions = service, readings, sessions

    async def open(self, session: Session, name: str, content: bytes, item: str = "") -> Case:
        """Return a case of an image; raises UnusableImageError or RequestError.

        One that the reader has read, and not decided on, goes on.
        """
        opened = await self.service.compute(lambda: _open(content))
        if isinstance(opened, Unusable):
            raise UnusableImageError(str(opened))
        digest = hashlib.sha256(content).hexdigest()
        undecided = self.readings.find_undecided(session.reader, digest)
        if undecided is not None and undecided.case in session.cases:
            return session.cases[undecided.case]
        seen = self.readings.has_seen_answer(session.reader, digest, opened.pixel_sha256)
        key = secrets.token_urlsafe(16)
        case = Case(key, name, item, content, digest, *opened, is_blinded=not seen)
        if undecided is not None:
            case.key, case.first, case.box = undecided.case, undecided.first, undecided.box
            case.is_blinded = undecided.is_blinded
        self.sessions.add(session, case)
        return case

    async def read(self, session: Session, case: Case, category: str, box: Box) -> None:
        """Keep what the reader says before the answer shows.

        Raises RequestError where it says something else than before, BadInputError where it cannot
        be kept.
        """
        _check_category(category)
        async with case.turn:
            if case.first:
                if (category, box or None) == (case.first, case.box):
                    return  # a button that was pressed twice
                raise RequestError(409, "this read is on record, and is not changed")
            # Another window may have shown the answer since this one was opened.
            hashes = case.byte_sha256, case.pixel_sha256
            seen = self.readings.has_seen_answer(session.reader, *hashes)
            case.is_blinded = case.is_blinded and not seen
            opened = time.monotonic() if case.opened is None else case.opened
            await self._record(
                READ,
                session,
                case,
                item=case.item,
                width=case.width,
                height=case.height,
                frame=case.frame,
                birads=category,
                blinded=case.is_blinded,
                seconds=round(time.monotonic() - opened, 1),
                box=",".join(box),
            )
            case.first, case.box = category, box or None

    async def answer(self, session: Session, case: Case, box: Box, request: Request) -> Answer:
        """Return the answer on a case; it is on record before it shows.

        The one on the model's own box comes first, whatever is asked.

        Args:
            session: whose case it is.
            case: that was read.
            box: by the reader; () for the model's own.
            request: that asks.

        Raises RequestError where the case was not read, or the model has no answer.
        """
        if not case.first:
            raise RequestError(409, "the answer shows after your own read is on record")
        async with case.turn:
            for own in dict.fromkeys(((), box)):
                if own not in case.answers:
                    await self._ask(session, case, own, request)
            return case.answers[box]

    async def _ask(self, session: Session, case: Case, box: Box, request: Request) -> None:
        asked = await self.service.ask([case.as_upload(box)], request, case.model)
        (answer,) = asked.answers
        if isinstance(answer, Unusable):
            raise RequestError(422, str(answer))
        case.model = asked.model
        await self._record(
            ANSWER,
            session,
            case,
            box="" if answer.box is None else ",".join(f"{edge:g}" for edge in answer.box),
            box_source=answer.box_source,
            model=answer.model,
            model_version=answer.model_version,
            positive_score=answer.positive_score,
            threshold=answer.threshold,
            flagged=answer.flagged,
            refer=answer.refer,
            reasons=";".join(answer.reasons),
        )
        case.keep(box, answer)

    async def decide(self, session: Session, case: Case, category: str) -> None:
        """Keep what the reader says after the answer; raises as `read` does."""
        _check_category(category)
        async with case.turn:
            if not case.answers:
                raise RequestError(409, "a decision comes after the answer")
            if case.final:
                if category == case.final:
                    return  # a button that was pressed twice
                raise RequestError(409, "this decision is on record, and is not changed")
            await self._record(DECISION, session, case, birads=category)
            case.final = category

    async def draw_attribution(self, case: Case, box: Box) -> bytes:
        """Return a PNG to lay over the picture; raises RequestError where there is none."""
        answer = case.answers.get(box)
        attribution = None if answer is None else answer.attribution
        if attribution is None:
            raise RequestError(404, "there is no attribution for this box")
        return await self.service.compute(
            lambda: encode_png(make_attribution_layer(attribution, case.height, case.width))
        )

    async def _record(self, event: str, session: Session, case: Case, **values: Any) -> None:
        values |= {"case": case.key, "byte_sha256": case.byte_sha256}
        values["pixel_sha256"] = case.pixel_sha256
        await run_in_threadpool(lambda: self.readings.add(event, session.reader, **values))


def read_box(given: Mapping[str, object], case: Case) -> Box:
    """Return a reader's box of a form's fields, () where all are empty; raises RequestError."""
    texts = tuple(str(given.get(edge) or "").strip().replace(",", ".") for edge in EDGES)
    if not any(texts):
        return ()
    try:
        box = check_box(texts, case.width, case.height)
    except UnusableImageError as error:
        raise RequestError(422, str(error)) from None
    return tuple(f"{edge:g}" for edge in box)


def _check_category(category: str) -> None:
    if category not in CATEGORIES:
        raise RequestError(422, f"choose a BI-RADS category: {', '.join(CATEGORIES)}")


def _open(content: bytes) -> "Opened | Unusable":
    try:
        frame, frames = 1, 1
        if is_dicom(content):
            frames = read_header(content).frames
            frame = select_frames(SHOWN_FRAME, frames)[0]
        pixels: np.ndarray = check_pixels(decode_any(content)).pixels
    except (UnusableImageError, BadInputError) as error:
        return Unusable(str(error))
    height, width = pixels.shape[:2]
    # Whole: a cover over what looks like text could hide a lesion from whoever reads.
    return Opened(hash_pixels(pixels), encode_png(pixels), width, height, frame, frames)
