"""Runs an application until a signal comes, then lets running work finish."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Callable, Iterator

import h11
import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from voxmlx.server.context import POLL_S, Context
from voxmlx.server.logs import event
from voxmlx.server.settings import ServerSettings

HEAD_TIMEOUT_S = 20.0
"""How long a client may take to send the head of its first request."""
MAX_HEAD_BYTES = 64 * 1024
ABORT_S = 5.0
"""How long what was already sent may take to leave for a client that is being dropped."""

_logger = logging.getLogger(__name__)


class GuardedHttp(H11Protocol):
    """HTTP by h11, which limits heads, and which drops a client that never finishes one."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock."""
        super().connection_made(transport)
        self.loop.call_later(HEAD_TIMEOUT_S, self._expire)

    def send_400_response(self, msg: str) -> None:
        """Answer bytes that are not HTTP, unless an answer has begun: then the end says it all."""
        try:
            super().send_400_response(msg)
        except h11.LocalProtocolError:
            self.transport.close()

    def _expire(self) -> None:
        # After an upgrade the transport belongs to a WebSocket protocol.
        if self.cycle is None and self.transport.get_protocol() is self:
            self.transport.close()


class GuardedWebSocket(WebSocketsSansIOProtocol):
    """A WebSocket that ends, although its client does not read or is no longer there.

    To close a transport is to wait until it has sent everything, which may be for ever.
    """

    async def run_asgi(self) -> None:
        """Serve, then let go of the wire."""
        await super().run_asgi()
        self._abort_later()

    def keepalive_timeout(self) -> None:
        """Let go of the wire after a ping that nobody answered."""
        super().keepalive_timeout()
        self._abort_later()

    def _abort_later(self) -> None:
        self.loop.call_later(ABORT_S, self.transport.abort)


class Server(uvicorn.Server):
    """Uvicorn with a gentler end.

    On SIGTERM or SIGINT nobody is let in any more, live clients get the rest of their text and
    files are finished, at most for ``drain_s``. A second signal ends it at once.

    Args:
        app: What :func:`voxmlx.server.app.create_app` made.
        settings: How the server behaves.
        started: Called once it listens, with the port.
    """

    def __init__(
        self,
        app: Starlette,
        settings: ServerSettings,
        started: Callable[[int], None] | None = None,
    ):
        self._context: Context = app.state.context
        self._settings = settings
        self._started = started
        self._draining: asyncio.Task[None] | None = None
        config = uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ws_max_size=settings.max_frame_bytes,
            ws_max_queue=4,
            ws_per_message_deflate=False,  # no bombs; audio does not shrink anyway
            timeout_graceful_shutdown=5,
            timeout_keep_alive=30,
            http=GuardedHttp,
            ws=GuardedWebSocket,
            h11_max_incomplete_event_size=MAX_HEAD_BYTES,
            lifespan="off",
        )
        super().__init__(config)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen and say so."""
        await super().startup(sockets)
        if self.should_exit:
            return
        port = next(
            (sock.getsockname()[1] for server in self.servers for sock in server.sockets),
            self._settings.port,
        )
        event(_logger, "listening", host=self._settings.host, port=port)
        if self._started is not None:
            self._started(port)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Drain on a signal."""
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGINT, signal.SIGTERM)
        for number in numbers:
            try:
                loop.add_signal_handler(number, self._on_signal)
            except (RuntimeError, ValueError):  # not the main thread, as in tests
                break
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)

    def _on_signal(self) -> None:
        if self._draining is not None:
            self.force_exit = self.should_exit = True
            return
        self._draining = asyncio.ensure_future(self.drain())

    async def drain(self) -> None:
        """Let running work finish, then stop."""
        context = self._context
        event(_logger, "draining", connections=context.sockets.n, uploads=context.uploads.n)
        context.start_draining()
        waits = round(self._settings.drain_s / POLL_S)
        for _ in range(waits):
            if not context.sockets.n and not context.uploads.n:
                break
            await asyncio.sleep(POLL_S)
        self.should_exit = True
