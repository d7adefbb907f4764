"""What stands between the routes and the model: room in the line, one answer an image."""

import io
import logging
from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image

from busi_pipeline.imaging.decoding import UnusableImageError
from busi_pipeline.imaging.overlays import draw_finding
from busi_pipeline.models.ledger import CHALLENGER
from busi_pipeline.models.packaged import READER, Answer, PackagedModel, decode_any
from busi_pipeline.serving.loaded import LoadedModels
from busi_pipeline.serving.measures import Measures
from busi_pipeline.serving.problems import RequestError
from busi_pipeline.serving.settings import ServiceSettings
from busi_pipeline.serving.shadow import Shadow
from busi_pipeline.serving.uploads import Upload
from busi_pipeline.serving.work import BusyError, Work

logger = logging.getLogger(__name__)


class Asked(NamedTuple):
    """Attributes: `model` that was asked, `answers` of each image, or why there is none."""

    model: PackagedModel
    answers: list[Answer | UnusableImageError]


class Service:
    """Models, work and counters of one service."""

    def __init__(self, settings: ServiceSettings):
        """Load the model that answers; raises BadInputError, one line, where there is none."""
        self.settings, self.measures = settings, Measures()
        self.models = LoadedModels(settings.models, settings.model, settings.refresh_seconds)
        self.work = Work(settings.waiting, settings.threads, settings.answer_seconds)
        self._shadow = None if settings.shadow is None else Shadow(settings.shadow, self.measures)

    def start(self) -> None:
        """Follow the ledger."""
        self.models.start()

    def close(self) -> None:
        """Finish what has begun."""
        self.models.stop()
        self.work.close()
        if self._shadow is not None:
            self._shadow.close()

    async def ask(self, uploads: Sequence[Upload], request_id: str) -> Asked:
        """Return the answers of one model on all images; raises RequestError."""
        serving = self.models.serving
        model, answers = serving.model, []
        self._take(len(uploads))
        try:
            for upload in uploads:
                answer = await self._ask_one(model, upload)
                self.measures.count_answer(answer if isinstance(answer, Answer) else None)
                answers.append(answer)
        finally:
            self.work.leave(len(uploads))
        challenger = serving.roles.get(CHALLENGER)
        if self._shadow is not None and challenger is not None:
            for upload, answer in zip(uploads, answers, strict=True):
                if isinstance(answer, Answer):
                    self._shadow.ask(challenger, upload, answer, request_id)
        return Asked(model, answers)

    async def draw(self, upload: Upload, shows_attribution: bool) -> bytes:
        """Return a PNG of an image with its box; raises RequestError where it cannot be used."""
        model = self.models.serving.model

        def draw() -> bytes | UnusableImageError:
            try:
                pixels = decode_any(upload.content)
                answer = model.predict_pixels(pixels, upload.box)
            except UnusableImageError as error:
                return error
            drawn = draw_finding(
                pixels,
                answer.box,
                answer.box_source == READER,
                answer.attribution if shows_attribution else None,
            )
            buffer = io.BytesIO()
            Image.fromarray(drawn).save(buffer, format="PNG", compress_level=1)
            return buffer.getvalue()

        self._take(1)
        try:
            drawn = await self._compute(draw)
        finally:
            self.work.leave(1)
        if isinstance(drawn, UnusableImageError):
            raise RequestError(422, str(drawn))
        return drawn

    async def _ask_one(self, model: PackagedModel, upload: Upload) -> Answer | UnusableImageError:
        def ask() -> Answer | UnusableImageError:
            try:
                return model.predict_bytes(upload.content, upload.box)
            except UnusableImageError as error:
                return error

        return await self._compute(ask)

    async def _compute(self, function):  # type: ignore[no-untyped-def]
        try:
            return await self.work.compute(function)
        except TimeoutError:
            raise RequestError(
                503,
                f"an image took longer than {self.settings.answer_seconds:g} s, waiting included",
                {"retry-after": "5"},
            ) from None

    def _take(self, count: int) -> None:
        try:
            self.work.take(count)
        except BusyError as error:
            self.measures.count_turned_away()
            raise RequestError(503, str(error), {"retry-after": str(error.seconds)}) from None
