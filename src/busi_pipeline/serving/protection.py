"""What every request goes through: an id, a key, limits of size and time, a line in the log."""

import asyncio
import hashlib
import hmac
import logging
import re
import time
import uuid
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from busi_pipeline.serving.measures import Measures
from busi_pipeline.serving.problems import RequestError, describe_problem
from busi_pipeline.serving.settings import ServiceSettings, is_loopback

logger = logging.getLogger("busi_pipeline.serving.requests")

_GIVEN_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")
# Whoever watches the service needs no key for these.
OPEN_PATHS = frozenset(("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"))
# Of the page, which asks for the key itself.
PAGE_PATH = "/page"
_HEADERS = {
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
}


@dataclass
class _Body:
    """Attributes: `is_open`, whether there is more to come; `size` in bytes so far."""

    is_open: bool
    size: int = 0


class Protection:
    """ASGI middleware around the routes."""

    def __init__(self, app: ASGIApp, settings: ServiceSettings, measures: Measures):
        """Take the settings, and what counts."""
        self._app, self._settings, self._measures = app, settings, measures
        key = settings.api_key
        self._key = None if key is None else digest_key(key)
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status = time.perf_counter(), 500
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if _GIVEN_ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {}).update(request_id=request_id, begun=begun)
        answered = False
        body = _Body("content-length" in headers or "transfer-encoding" in headers)

        async def send_on(message: Message) -> None:
            nonlocal status, answered
            if message["type"] == "http.response.start":
                status, answered = message["status"], True
                own = MutableHeaders(scope=message)
                own["x-request-id"] = request_id
                if body.is_open:  # what is left of it is not waited for
                    own["connection"] = "close"
                for name, value in _HEADERS.items():
                    own.setdefault(name, value)
            await send(message)

        try:
            self._check(scope, headers)
            await self._app(scope, self._limit(receive, body), send_on)
        except ClientDisconnect:
            status = 499  # as nginx has it: the client went before it had its answer
        except RequestError as error:
            if not answered:
                problem = describe_problem(error.status, error.detail, request_id, error.headers)
                await problem(scope, receive, send_on)
        except Exception:
            logger.exception("request %s failed", request_id)
            if not answered:
                problem = describe_problem(500, "the service failed: see its log", request_id)
                await problem(scope, receive, send_on)
        finally:
            self._held -= body.size
            seconds = time.perf_counter() - begun
            route = getattr(scope.get("route"), "path", "none")
            self._measures.count_request(route, status, seconds)
            logger.info(
                "request",
                extra={
                    "fields": {
                        "request_id": request_id,
                        "method": scope["method"],
                        "route": route,
                        "status": status,
                        "milliseconds": round(1000 * seconds, 1),
                        **scope["state"].get("logged", {}),
                    }
                },
            )

    def _check(self, scope: Scope, headers: Headers) -> None:
        if self._key is None and not is_loopback(_read_host(headers.get("host", ""))):
            # Else any website could reach this machine by a name of its own (DNS rebinding).
            raise RequestError(421, "without a key, only 127.0.0.1 and localhost are answered")
        is_open = scope["path"] in OPEN_PATHS or self._is_page(scope["path"])
        if self._key is not None and not is_open:
            scheme, _, token = headers.get("authorization", "").partition(" ")
            given = headers.get("x-api-key") or (token if scheme.lower() == "bearer" else "")
            if not hmac.compare_digest(digest_key(given), self._key):
                raise RequestError(
                    401,
                    "send the key as X-API-Key, or as Authorization: Bearer",
                    {"www-authenticate": "Bearer"},
                )
        length = headers.get("content-length")
        if length is not None and length.isdecimal() and int(length) > self._settings.max_bytes:
            raise self._too_large()

    def _is_page(self, path: str) -> bool:
        within = path in ("/", PAGE_PATH) or path.startswith(f"{PAGE_PATH}/")
        return within and self._settings.page

    def _limit(self, receive: Receive, body: "_Body") -> Receive:
        """Return `receive` that ends a body which is too large, or comes too slowly."""
        deadline = time.monotonic() + self._settings.body_seconds

        async def receive_on() -> Message:
            if not body.is_open:
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), max(0.0, deadline - time.monotonic()))
            except TimeoutError:
                raise RequestError(
                    408, f"the body took longer than {self._settings.body_seconds:g} s"
                ) from None
            if message["type"] == "http.request":
                size = len(message.get("body", b""))
                body.size, self._held = body.size + size, self._held + size
                body.is_open = message.get("more_body", False)
            if body.size > self._settings.max_bytes:
                raise self._too_large()
            if self._held > self._settings.max_held:
                self._measures.count_turned_away()
                raise RequestError(
                    503, "too much is being sent: try again in 5 s", {"retry-after": "5"}
                )
            return message

        return receive_on

    def _too_large(self) -> RequestError:
        return RequestError(413, f"a request may have {self._settings.max_bytes} bytes")


def _read_host(value: str) -> str:
    """Return the host of a Host header, without its port."""
    return value[1:].partition("]")[0] if value.startswith("[") else value.partition(":")[0]


def digest_key(text: str) -> bytes:
    """Return 32 bytes of a key, whatever its length: the time of comparing them says nothing."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
