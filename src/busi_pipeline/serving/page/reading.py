"""A reader reads an image, sees what the model says, and decides: in this order, and on record."""

import hashlib
import io
import secrets
import time
from collections.abc import Mapping
from typing import NamedTuple

from PIL import Image
from starlette.requests import Request

from busi_pipeline.imaging.decoding import UnusableImageError
from busi_pipeline.imaging.overlays import make_attribution_layer
from busi_pipeline.imaging.quality import check_pixels
from busi_pipeline.models.packaged import Answer, check_box, decode_any
from busi_pipeline.serving.page.readings import ANSWER, DECISION, READ, Readings
from busi_pipeline.serving.page.sessions import Box, Case, Session, Sessions
from busi_pipeline.serving.problems import RequestError
from busi_pipeline.serving.service import Service, Unusable
from busi_pipeline.stats.readers import CATEGORIES

EDGES = ("left", "top", "right", "bottom")


class Opened(NamedTuple):
    """Attributes: `picture`, PNG; `width`, `height` in pixels."""

    picture: bytes
    width: int
    height: int


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
        """Return a new case of an image; raises UnusableImageError or RequestError."""
        opened = await self.service.compute(lambda: _open(content))
        if isinstance(opened, Unusable):
            raise UnusableImageError(str(opened))
        digest = hashlib.sha256(content).hexdigest()
        case = Case(
            secrets.token_urlsafe(16),
            name,
            item,
            content,
            digest,
            *opened,
            time.monotonic(),
            not self.readings.has_seen_answer(session.reader, digest),
        )
        self.sessions.add(session, case)
        return case

    def read(self, session: Session, case: Case, category: str, box: Box) -> None:
        """Keep what the reader says before the answer shows; raises RequestError, BadInputError."""
        _check_category(category)
        if case.first:
            raise RequestError(409, "this read is on record, and is not changed")
        # Another window may have shown the answer since this one was opened.
        seen = self.readings.has_seen_answer(session.reader, case.byte_sha256)
        case.is_blinded = case.is_blinded and not seen
        self._record(
            READ,
            session,
            case,
            birads=category,
            blinded=case.is_blinded,
            seconds=round(time.monotonic() - case.opened, 1),
            box=",".join(box),
        )
        case.first, case.box = category, box or None

    async def answer(self, session: Session, case: Case, box: Box, request: Request) -> Answer:
        """Return the answer on a case; it is on record before it shows.

        Args:
            session: whose case it is.
            case: that was read.
            box: by the reader; () for the model's own.
            request: that asks.

        Raises RequestError where the case was not read, or the model has no answer.
        """
        if not case.first:
            raise RequestError(409, "the answer shows after your own read is on record")
        if box in case.answers:
            return case.answers[box]
        asked = await self.service.ask([case.as_upload(box)], request, case.model)
        (answer,) = asked.answers
        if isinstance(answer, Unusable):
            raise RequestError(422, str(answer))
        self._record(
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
        case.model = asked.model
        case.keep(box, answer)
        return answer

    def decide(self, session: Session, case: Case, category: str) -> None:
        """Keep what the reader says after the answer; raises RequestError."""
        _check_category(category)
        if not case.answers:
            raise RequestError(409, "a decision comes after the answer")
        if case.final:
            raise RequestError(409, "this decision is on record, and is not changed")
        self._record(DECISION, session, case, birads=category)
        case.final = category

    async def draw_attribution(self, case: Case, box: Box) -> bytes:
        """Return a PNG to lay over the picture; raises RequestError where there is none."""
        answer = case.answers.get(box)
        attribution = None if answer is None else answer.attribution
        if attribution is None:
            raise RequestError(404, "there is no attribution for this box")
        return await self.service.compute(
            lambda: _encode(make_attribution_layer(attribution, case.height, case.width))
        )

    def _record(self, event: str, session: Session, case: Case, **values: object) -> None:
        self.readings.add(
            event, session.reader, case=case.key, byte_sha256=case.byte_sha256, **values
        )


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
        pixels = check_pixels(decode_any(content)).pixels
    except UnusableImageError as error:
        return Unusable(str(error))
    height, width = pixels.shape[:2]
    # Whole: a cover over what looks like text could hide a lesion from whoever reads.
    return Opened(_encode(pixels), width, height)


def _encode(pixels: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=1)  # type: ignore[arg-type]
    return buffer.getvalue()
