"""uvicorn with limits on what a client may hold open."""

import asyncio
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from busi_pipeline.serving.app import create_app
from busi_pipeline.serving.logs import log_as_json
from busi_pipeline.serving.service import Service
from busi_pipeline.serving.settings import ServiceSettings

_HEADER_BYTES = 32_768
_KEEP_ALIVE_SECONDS, _STOP_SECONDS = 15, 60


class ImpatientProtocol(H11Protocol):
    """Closes a connection whose request line and headers do not come in time.

    uvicorn waits for them without end, so that a few slow clients could hold all connections.
    """

    seconds = 10.0
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Begin to wait."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Wait on while headers are not complete."""
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._wait_no_more()
        elif self._timer is None and self.conn.trailing_data[0]:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._wait_no_more()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._timer = self.loop.call_later(self.seconds, self.transport.close)

    def _wait_no_more(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def run_server(settings: ServiceSettings) -> None:
    """Load the model and answer until the process is asked to stop (SIGTERM, SIGINT).

    Requests that were accepted are answered first.
    """
    log_as_json()
    service = Service(settings)
    config = uvicorn.Config(
        create_app(service),
        host=settings.host,
        port=settings.port,
        http=type("Impatient", (ImpatientProtocol,), {"seconds": settings.header_seconds}),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_STOP_SECONDS,
        h11_max_incomplete_event_size=_HEADER_BYTES,
    )
    uvicorn.Server(config).run()
