"""What stands between the routes and the model: room in the line, one answer an image."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

from starlette.requests import ClientDisconnect, Request

from busi_pipeline.errors import BadInputError
from busi_pipeline.imaging.decoding import UnusableImageError
from busi_pipeline.imaging.overlays import draw_finding, encode_png
from busi_pipeline.models.ledger import CHALLENGER
from busi_pipeline.models.packaged import READER, Answer, PackagedModel, decode_any
from busi_pipeline.serving.loaded import LoadedModels
from busi_pipeline.serving.measures import Measures
from busi_pipeline.serving.problems import RequestError
from busi_pipeline.serving.settings import ServiceSettings
from busi_pipeline.serving.shadow import Shadow
from busi_pipeline.serving.uploads import Upload
from busi_pipeline.serving.work import BusyError, Place, Work

_Result = TypeVar("_Result")


class Unusable(str):
    """Why an image cannot be used, one line."""

    __slots__ = ()


class Asked(NamedTuple):
    """Attributes: `model` that was asked, `answers` of each image, or why there is none."""

    model: PackagedModel
    answers: list[Answer | Unusable]


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

    async def ask(
        self, uploads: Sequence[Upload], request: Request, model: PackagedModel | None = None
    ) -> Asked:
        """Return the answers of one model on all images; raises RequestError.

        Args:
            uploads: the images.
            request: that asks.
            model: None for the one that answers now.
        """
        serving, answers = self.models.serving, []
        model = model or serving.model
        _note(request, len(uploads), model)
        places = self._take(len(uploads))
        try:
            for upload, place in zip(uploads, places, strict=True):
                if await request.is_disconnected():
                    raise ClientDisconnect
                answer = await self._compute(partial(_ask, model, upload), place)
                self.measures.count_answer(answer if isinstance(answer, Answer) else None)
                answers.append(answer)
        finally:
            _leave_unused(places)
        challenger = serving.roles.get(CHALLENGER)
        is_current = model is serving.model
        if self._shadow is not None and challenger is not None and is_current:
            for upload, answer in zip(uploads, answers, strict=True):
                if isinstance(answer, Answer):
                    self._shadow.ask(challenger, upload, answer, request.state.request_id)
        return Asked(model, answers)

    async def draw(self, upload: Upload, shows_attribution: bool, request: Request) -> bytes:
        """Return a PNG of an image with its box; raises RequestError where it cannot be used."""
        model = self.models.serving.model
        _note(request, 1, model)
        drawn = await self.compute(partial(_draw, model, upload, shows_attribution))
        if isinstance(drawn, Unusable):
            raise RequestError(422, str(drawn))
        return drawn

    async def compute(self, function: Callable[[], _Result]) -> _Result:
        """Return what a function returns that takes as long as an image; raises RequestError."""
        (place,) = self._take(1)
        return await self._compute(function, place)

    async def _compute(self, function: Callable[[], _Result], place: Place) -> _Result:
        try:
            return await self.work.compute(function, place)
        except TimeoutError:
            raise RequestError(
                503,
                f"an image took longer than {self.settings.answer_seconds:g} s, waiting included",
                {"retry-after": "5"},
            ) from None

    def _take(self, count: int) -> list[Place]:
        try:
            return self.work.take(count)
        except BusyError as error:
            self.measures.count_turned_away()
            raise RequestError(503, str(error), {"retry-after": str(error.seconds)}) from None


def _leave_unused(places: Sequence[Place]) -> None:
    for place in places:
        if not place.is_used:
            place.leave()


def _note(request: Request, images: int, model: PackagedModel) -> None:
    """Let the line in the log say what was asked."""
    request.state.logged = {"images": images, "model_version": model.version}


def _ask(model: PackagedModel, upload: Upload) -> "Answer | Unusable":
    try:
        return model.predict_bytes(upload.content, upload.box)
    except (UnusableImageError, BadInputError) as error:
        return Unusable(str(error))


def _draw(model: PackagedModel, upload: Upload, shows_attribution: bool) -> "bytes | Unusable":
    try:
        pixels = decode_any(upload.content)
        answer = model.predict_pixels(pixels, upload.box)
    except (UnusableImageError, BadInputError) as error:
        return Unusable(str(error))
    drawn = draw_finding(
        pixels,  # whole: a cover could hide a lesion, and who asks has the image
        answer.box,
        answer.box_source == READER,
        answer.attribution if shows_attribution else None,
    )
    return encode_png(drawn)
