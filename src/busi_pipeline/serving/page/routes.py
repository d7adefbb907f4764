"""The page's addresses: sign in, choose an image, read it, see the answer, decide."""

import asyncio
import csv
import hmac
import io
import logging
import time
import unicodedata
from collections.abc import Mapping
from importlib.resources import files
from typing import Any, Final
from urllib.parse import urlsplit

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import RedirectResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.staticfiles import StaticFiles

from busi_pipeline.errors import BadInputError
from busi_pipeline.imaging.decoding import UnusableImageError
from busi_pipeline.models.packaged import READER, REASONS, Answer
from busi_pipeline.models.reading import read_classes
from busi_pipeline.serving.page.meaning import Meanings
from busi_pipeline.serving.page.reading import EDGES, Desk, read_box
from busi_pipeline.serving.page.readings import COLUMNS, Readings, read_truths
from busi_pipeline.serving.page.sessions import Box, Case, Session, Sessions
from busi_pipeline.serving.page.views import find_sections, find_wording, render, render_card
from busi_pipeline.serving.page.worklist import Worklist, read_item
from busi_pipeline.serving.problems import RequestError
from busi_pipeline.serving.protection import PAGE_PATH, digest_key
from busi_pipeline.serving.service import Service
from busi_pipeline.serving.uploads import clean_name, clean_text, open_form
from busi_pipeline.stats.readers import CATEGORIES, INCOMPLETE, SUSPICIOUS, count_changes

logger = logging.getLogger(__name__)

SESSION_COOKIE: Final = "busi_session"
_LONGEST_NAME, _LONGEST_FIELD, _MOST_FIELDS = 60, 1_000, 20
_AFTER_WRONG_KEY_SECONDS = 1.0
# Sections of the model card that say how good the model is.
_FIGURES = ("At other sites", "On the test images")
# Under these the flag was not measured.
_MEANINGLESS: Final = frozenset({"out_of_distribution", "seen_in_training", "no_lesion_found"})
# Whether a script asked, which shows a line itself.
_SCRIPT_HEADER = "x-asked-by"


class SessionEndedError(Exception):
    """Nobody is signed in, or no longer."""


class Page:
    """The routes around a service."""

    def __init__(self, service: Service):
        """Take what answers; raises BadInputError where the worklist is no folder."""
        settings = service.settings
        self._settings = settings
        readings = Readings(settings.find_readings())
        sessions = Sessions(60 * settings.session_minutes, settings.max_held)
        self._desk = Desk(service, readings, sessions)
        self._meanings = Meanings()
        self._worklist = None if settings.worklist is None else Worklist(settings.worklist)
        key = settings.api_key
        self._key = None if key is None else digest_key(key)

    def add_to(self, app: FastAPI) -> None:
        """Add the routes to an application."""
        router = APIRouter(prefix=PAGE_PATH, include_in_schema=False)
        for path, method, endpoint in (
            ("/", "GET", self.show_list),
            ("/session", "POST", self.sign_in),
            ("/session/end", "POST", self.sign_out),
            ("/prevalence", "POST", self.set_prevalence),
            ("/cases", "POST", self.take_files),
            ("/worklist/{item}", "POST", self.take_item),
            ("/cases/{case}", "GET", self.show_case),
            ("/cases/{case}/picture.png", "GET", self.show_picture),
            ("/cases/{case}/attribution.png", "GET", self.show_attribution),
            ("/cases/{case}/close", "POST", self.close_case),
            ("/cases/{case}/read", "POST", self.take_read),
            ("/cases/{case}/answer", "POST", self.show_answer),
            ("/cases/{case}/decision", "POST", self.take_decision),
            ("/readers", "GET", self.show_readers),
            ("/readings.csv", "GET", self.export_readings),
            ("/model", "GET", self.show_model),
        ):
            router.add_api_route(path, endpoint, methods=[method])
        app.include_router(router)
        folder = str(files(__package__) / "static")
        app.mount(f"{PAGE_PATH}/static", StaticFiles(directory=folder), name="static")

        @app.get("/", include_in_schema=False)
        @app.get(PAGE_PATH, include_in_schema=False)
        async def enter() -> Response:
            return RedirectResponse(f"{PAGE_PATH}/", 303)

        @app.exception_handler(SessionEndedError)
        async def say_ended(request: Request, error: SessionEndedError) -> Response:
            if _is_asked_by_script(request):
                return render(request, "ended", 401)
            return RedirectResponse(f"{PAGE_PATH}/?ended=1", 303)

        @app.exception_handler(BadInputError)
        async def say_unfit(request: Request, error: BadInputError) -> Response:
            if not request.url.path.startswith(PAGE_PATH):
                raise error
            # Of a setting or a file of the service, which the reader cannot mend.
            logger.error("%s", error)
            return self.describe_problem(request, RequestError(503, str(error)))

    def describe_problem(self, request: Request, error: RequestError) -> Response:
        """Return the page that says what is wrong."""
        translated = find_wording(request).translate(error.detail)
        response: Response
        if _is_asked_by_script(request):
            response = render(request, "line", error.status, detail=translated)
        else:
            response = self._render(
                request,
                "problem",
                error.status,
                detail=translated,
                is_english=translated == error.detail,
                case=_find_case_path(request.url.path),
            )
        response.headers.update(error.headers or {})
        return response

    async def show_list(self, request: Request) -> Response:
        """Show what there is to read; to whoever is not signed in, the way in."""
        session = self._find_session(request)
        if session is None:
            return self._render(
                request,
                "sign_in",
                needs_key=self._key is not None,
                ended="ended" in request.query_params,
                model=self._desk.service.models.serving.model.description,
            )
        problems, session.problems = session.problems, []
        items = [] if self._worklist is None else await run_in_threadpool(self._worklist.list_items)
        of_item = {case.item: case for case in session.cases.values() if case.item}
        has_read = self._desk.readings.has_read_item
        return self._render(
            request,
            "list",
            problems=problems,
            cases=list(session.cases.values()),
            items=[
                (item, of_item.get(item.key), has_read(session.reader, item.key)) for item in items
            ],
            has_worklist=self._worklist is not None,
            settings=self._settings,
        )

    async def sign_in(self, request: Request) -> Response:
        """Begin a session."""
        form = await _read_form(request)
        reader = clean_reader(str(form.get("reader") or ""))
        given = str(form.get("key") or "")
        if self._key is not None and not hmac.compare_digest(digest_key(given), self._key):
            await asyncio.sleep(_AFTER_WRONG_KEY_SECONDS)
            raise RequestError(401, "the key is wrong")
        if not reader:
            raise RequestError(422, "enter a name: your reads are kept under it")
        self.end(request)
        key = self._desk.sessions.begin(reader, self._settings.prevalence)
        response = RedirectResponse(f"{PAGE_PATH}/", 303)
        response.set_cookie(
            SESSION_COOKIE,
            key,
            path=PAGE_PATH,
            httponly=True,
            samesite="strict",
            # A proxy with TLS says so; whoever lies about it harms only their own cookie.
            secure=request.headers.get("x-forwarded-proto") == "https",
        )
        return response

    async def sign_out(self, request: Request) -> Response:
        """End the session."""
        _check_origin(request)
        self.end(request)
        response = RedirectResponse(f"{PAGE_PATH}/", 303)
        response.delete_cookie(SESSION_COOKIE, path=PAGE_PATH)
        return response

    def end(self, request: Request) -> None:
        """Forget the session of a browser, where there is one."""
        self._desk.sessions.end(request.cookies.get(SESSION_COOKIE, ""))

    async def set_prevalence(self, request: Request) -> Response:
        """Take the share of positive images where the reader works."""
        session = self._need_session(request)
        form = await _read_form(request)
        try:
            percent = float(str(form.get("percent") or "").replace(",", "."))
        except ValueError:
            percent = float("nan")
        if not 0.1 <= percent <= 99:
            raise RequestError(422, "enter a share from 0.1 to 99 percent")
        session.prevalence = round(percent / 100, 4)
        case = session.cases.get(str(form.get("case") or ""))
        if case is None:
            return RedirectResponse(f"{PAGE_PATH}/", 303)
        box = read_box(form, case)
        return RedirectResponse(f"{PAGE_PATH}/cases/{case.key}?{_as_query(box)}#answer", 303)

    async def take_files(self, request: Request) -> Response:
        """Open a case of each file; what cannot be used is said on the list."""
        session = self._need_session(request)
        _check_origin(request)
        opened = []
        most = self._settings.max_files
        async with open_form(request, most, _MOST_FIELDS, _LONGEST_FIELD) as form:
            for file in form.getlist("files"):
                if not isinstance(file, UploadFile):
                    continue
                name, content = clean_name(file.filename or ""), await file.read()
                if not name and not content:
                    continue
                try:
                    opened.append(await self._desk.open(session, name, content))
                except (UnusableImageError, RequestError) as error:
                    session.problems.append(f"{name}: {error}")
        if not opened and not session.problems:
            session.problems.append(find_wording(request).translate("choose at least one file"))
        alone = len(opened) == 1 and not session.problems
        return RedirectResponse(
            f"{PAGE_PATH}/cases/{opened[0].key}" if alone else f"{PAGE_PATH}/", 303
        )

    async def take_item(self, request: Request, item: str) -> Response:
        """Open a case of an image in the worklist."""
        session = self._need_session(request)
        _check_origin(request)
        async with session.turn:
            return await self._open_item(request, session, item)

    async def _open_item(self, request: Request, session: Session, item: str) -> Response:
        for case in session.cases.values():
            if case.item == item:
                return RedirectResponse(f"{PAGE_PATH}/cases/{case.key}", 303)
        found = None
        if self._worklist is not None:
            found = await run_in_threadpool(self._worklist.find, item)
        if found is None:
            raise RequestError(404, "this image is not in the worklist any more")
        try:
            content = await run_in_threadpool(read_item, found, self._settings.max_bytes)
            case = await self._desk.open(session, found.name, content, item)
        except UnusableImageError as error:
            session.problems.append(f"{found.name}: {error}")
            return RedirectResponse(f"{PAGE_PATH}/", 303)
        return RedirectResponse(f"{PAGE_PATH}/cases/{case.key}", 303)

    async def show_case(self, request: Request, case: str) -> Response:
        """Show an image, and after the reader's read what the model says."""
        session = self._need_session(request)
        own = _find_case(session, case)
        answer: Answer | None = None
        box: Box = ()
        if own.opened is None:
            own.opened = time.monotonic()
        if own.first:
            box = read_box(request.query_params, own)
            answer = await self._desk.answer(session, own, box, request)
        waiting = [
            other for other in session.cases.values() if not other.final and other is not own
        ]
        return self._render(
            request,
            "case",
            case=own,
            following=waiting[0] if waiting else None,
            categories=CATEGORIES,
            edges=EDGES,
            **await self._describe_answer(session, own, answer, box),
        )

    async def close_case(self, request: Request, case: str) -> Response:
        """Forget an image that was not read, or is decided on."""
        session = self._need_session(request)
        _check_origin(request)
        own = _find_case(session, case)
        if own.is_open:
            raise RequestError(409, "this image was read: decide on it first")
        del session.cases[case]
        return RedirectResponse(f"{PAGE_PATH}/", 303)

    async def show_picture(self, request: Request, case: str) -> Response:
        """Return the image."""
        own = _find_case(self._need_session(request), case)
        return Response(own.picture, media_type="image/png")

    async def show_attribution(self, request: Request, case: str) -> Response:
        """Return what speaks for and against, to lay over the image."""
        own = _find_case(self._need_session(request), case)
        box = read_box(request.query_params, own)
        return Response(await self._desk.draw_attribution(own, box), media_type="image/png")

    async def take_read(self, request: Request, case: str) -> Response:
        """Keep the reader's own read."""
        session = self._need_session(request)
        own = _find_case(session, case)
        form = await _read_form(request)
        box = read_box(form, own)
        await self._desk.read(session, own, str(form.get("birads") or ""), box)
        return RedirectResponse(f"{PAGE_PATH}/cases/{own.key}#answer", 303)

    async def show_answer(self, request: Request, case: str) -> Response:
        """Show what the model says with the reader's box."""
        session = self._need_session(request)
        own = _find_case(session, case)
        box = read_box(await _read_form(request), own)
        answer = await self._desk.answer(session, own, box, request)
        if not _is_asked_by_script(request):
            return RedirectResponse(f"{PAGE_PATH}/cases/{own.key}?{_as_query(box)}#answer", 303)
        described = await self._describe_answer(session, own, answer, box)
        return render(request, "answer", case=own, **described)

    async def take_decision(self, request: Request, case: str) -> Response:
        """Keep what the reader says after the answer."""
        session = self._need_session(request)
        own = _find_case(session, case)
        form = await _read_form(request)
        await self._desk.decide(session, own, str(form.get("birads") or ""))
        return RedirectResponse(f"{PAGE_PATH}/cases/{own.key}#decision", 303)

    async def show_readers(self, request: Request) -> Response:
        """Show how often readers changed their category, rightly or wrongly."""
        self._need_results(request)
        classes = read_classes(self._desk.service.models.serving.model.description)
        truths = await run_in_threadpool(read_truths, self._settings.truth, classes)
        reads = await run_in_threadpool(self._desk.readings.list_reads, truths)
        table = count_changes(reads)
        return self._render(
            request,
            "readers",
            rows=table.to_dict("records"),
            has_truth=self._settings.truth is not None,
            suspicious=SUSPICIOUS,
            incomplete=INCOMPLETE,
        )

    async def export_readings(self, request: Request) -> Response:
        """Return all events as CSV."""
        self._need_results(request)
        events = await run_in_threadpool(self._desk.readings.list_events)
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(event | {"reader": _as_cell(event["reader"])} for event in events)
        return Response(
            text.getvalue(),
            media_type="text/csv; charset=utf-8",
            headers={"content-disposition": 'attachment; filename="readings.csv"'},
        )

    async def show_model(self, request: Request) -> Response:
        """Show the model card."""
        if self._key is not None:
            self._need_session(request)
        model = self._desk.service.models.serving.model
        return self._render(
            request,
            "model",
            model=model.description,
            version=model.version,
            card=render_card(model.card),
        )

    def _find_session(self, request: Request) -> Session | None:
        return self._desk.sessions.find(request.cookies.get(SESSION_COOKIE, ""))

    def _need_session(self, request: Request) -> Session:
        session = self._find_session(request)
        if session is None:
            raise SessionEndedError
        return session

    def _need_results(self, request: Request) -> None:
        self._need_session(request)
        if not self._settings.results:
            raise RequestError(
                403, "results are not shown while readers read: start the service with --results"
            )

    def _render(
        self, request: Request, template: str, status: int = 200, **values: Any
    ) -> Response:
        session = self._find_session(request)
        reader = "" if session is None else session.reader
        return render(
            request,
            template,
            status,
            reader=reader,
            has_results=self._settings.results,
            shows_model=self._key is None or session is not None,
            **values,
        )

    async def _describe_answer(
        self, session: Session, case: Case, answer: Answer | None, box: Box
    ) -> Mapping[str, Any]:
        """Return what the templates say of an answer."""
        if answer is None or case.model is None:
            return {"answer": None, "drawn": case.box or ()}
        model = case.model
        try:
            meaning = await run_in_threadpool(self._meanings.find, model, session.prevalence)
        except (BadInputError, OSError):  # the answer is on record, and shows all the same
            logger.exception("what a flag means is not known")
            meaning = None
        automatic = case.answers[()]
        holds = answer.box_source != READER and not _MEANINGLESS & set(answer.reasons)
        return {
            "answer": answer,
            "drawn": box,
            "automatic": automatic,
            "title": model.description["title"],
            "looks_at_lesion": model.needs_lesion,
            "meaning": meaning,
            "meaning_holds": holds,
            "prevalence": session.prevalence,
            "positive": model.description["positive_classes"],
            "reasons": REASONS,
            "is_suspicious": case.first in SUSPICIOUS,
            "is_incomplete": case.first == INCOMPLETE,
            "figures": render_card(find_sections(model.card, _FIGURES)),
            "query": _as_query(box),
        }


def clean_reader(name: str) -> str:
    """Return a reader's name: one line, in one way of writing it."""
    return clean_text(" ".join(unicodedata.normalize("NFC", name).split()))[:_LONGEST_NAME]


def _find_case(session: Session, key: str) -> Case:
    if key not in session.cases:
        raise RequestError(404, "this image is not open: choose it again")
    return session.cases[key]


async def _read_form(request: Request) -> dict[str, str]:
    """Return the fields of a form of this page that has no files; raises RequestError."""
    _check_origin(request)
    async with open_form(request, 0, _MOST_FIELDS, _LONGEST_FIELD) as form:
        return {name: str(value) for name, value in form.items()}


def _check_origin(request: Request) -> None:
    """Refuse forms of other sites, also of those at another port of this machine."""
    origin, host = request.headers.get("origin"), request.headers.get("host", "")
    site = request.headers.get("sec-fetch-site", "same-origin")
    if (origin is not None and urlsplit(origin).netloc != host) or site not in (
        "same-origin",
        "none",
    ):
        raise RequestError(403, "this form was sent by another site")


def _as_query(box: Box) -> str:
    return "&".join(f"{edge}={value}" for edge, value in zip(EDGES, box, strict=False))


def _find_case_path(path: str) -> str:
    """Return the address of the case that an address is of; "" for none."""
    parts = path.split("/")
    return "/".join(parts[:4]) if parts[2:3] == ["cases"] and len(parts) > 4 else ""


def _is_asked_by_script(request: Request) -> bool:
    return _SCRIPT_HEADER in request.headers


def _as_cell(text: str) -> str:
    """Return a text that no spreadsheet takes for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text
