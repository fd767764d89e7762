"""What the handlers of one server share."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field

from starlette.requests import HTTPConnection

from voxmlx.engine.engine import Engine
from voxmlx.engine.request import TurnOptions, Update
from voxmlx.engine.turn import Turn
from voxmlx.server.metrics import Metrics
from voxmlx.server.places import Places
from voxmlx.server.protocols.common import ServedModel
from voxmlx.server.settings import ServerSettings

POLL_S = 0.02
"""How often a waiting client is looked at again: a quarter of a position."""


@dataclass
class Context:
    """One server.

    Attributes:
        engine: Does the work.
        settings: How the server behaves.
        model: Names of the model.
        metrics: What Prometheus is told.
        sockets: Places of WebSocket connections.
        uploads: Places of HTTP transcriptions.
        drain: Set when the server shall stop.
    """

    engine: Engine
    settings: ServerSettings
    model: ServedModel
    metrics: Metrics
    sockets: Places = field(init=False)
    uploads: Places = field(init=False)
    drain: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        """Make the counters."""
        settings = self.settings
        self.sockets = Places(settings.max_connections, settings.max_per_client)
        self.uploads = Places(settings.max_connections, settings.max_per_client)

    def open_turn(self, options: TurnOptions, tell: Callable[[Update], None]) -> Turn:
        """Open a turn whose news come to ``tell`` on the event loop."""
        loop = asyncio.get_running_loop()
        if options.delay_ms is None:
            options = dataclasses.replace(options, delay_ms=self.model.delay_ms)

        def from_engine(update: Update) -> None:
            try:
                loop.call_soon_threadsafe(tell, update)
            except RuntimeError:  # the loop has ended; nobody listens
                return

        return self.engine.open(options, from_engine)

    async def wait_for_room(self, turn: Turn) -> None:
        """Wait while too much of a turn's audio is undecoded."""
        while turn.backlog_s > self.settings.max_backlog_s:
            await asyncio.sleep(POLL_S)

    def start_draining(self) -> None:
        """Let nobody in any more and tell those inside."""
        self.sockets.draining = self.uploads.draining = True
        self.drain.set()


def context_of(connection: HTTPConnection) -> Context:
    """The server that a request came to."""
    context: Context = connection.app.state.context
    return context


def client_of(connection: HTTPConnection) -> str:
    """The address that a request came from."""
    return "unknown" if connection.client is None else connection.client.host
