"""Drives a protocol over a WebSocket: frames in, actions out, with back-pressure both ways.

Reading stops while the engine is behind or the client runs ahead of the clock, so a fast client is
slowed by TCP instead of filling memory. Frames to the client wait in a bounded outbox; a client
that does not read is dropped. Nothing here waits for another connection.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from voxmlx.engine.request import Update
from voxmlx.engine.turn import Turn
from voxmlx.server.context import POLL_S, Context, client_of, context_of
from voxmlx.server.errors import ApiError, error_response
from voxmlx.server.logs import event
from voxmlx.server.protocols.common import (
    Action,
    Cancel,
    ClientError,
    Close,
    Feed,
    Finish,
    Flush,
    Protocol,
    Send,
    Start,
)
from voxmlx.server.protocols.detect import RealtimeProtocol
from voxmlx.server.protocols.mistral import MistralProtocol
from voxmlx.server.security import KEY_PROTOCOL, subprotocols

GOING_AWAY, POLICY, TOO_BIG, FAULT = 1001, 1008, 1009, 1011
"""WebSocket close codes (RFC 6455, 7.4.1)."""
GOODBYE_S = 5.0
"""How long a client may take to answer a close."""
_MAX_FAULTS = 100
"""Bad frames in a row, after which a client is not listened to any more."""

_logger = logging.getLogger(__name__)


async def realtime(websocket: WebSocket) -> None:
    """``/v1/realtime``: OpenAI's, vLLM's and the bare dialect."""
    await _serve(websocket, RealtimeProtocol)


async def mistral_realtime(websocket: WebSocket) -> None:
    """``/v1/audio/transcriptions/realtime``: Mistral's dialect."""
    await _serve(websocket, MistralProtocol)


async def _serve(
    websocket: WebSocket, dialect: type[RealtimeProtocol] | type[MistralProtocol]
) -> None:
    context = context_of(websocket)
    try:
        protocol = dialect(context.model, _query(websocket))
        with context.sockets.take(client_of(websocket)):
            await Connection(websocket, protocol, context).run()
    except ClientError as error:
        await _deny(websocket, ApiError(400, error.code, str(error), error.param))
    except ApiError as error:
        context.metrics.refused.labels(error.code).inc()
        await _deny(websocket, error)


async def _deny(websocket: WebSocket, error: ApiError) -> None:
    await websocket.send_denial_response(error_response(error))


def _query(websocket: WebSocket) -> Mapping[str, str]:
    return dict(websocket.query_params)


class Connection:
    """One open socket.

    Args:
        websocket: Not accepted yet.
        protocol: Its dialect.
        context: The server.
    """

    def __init__(self, websocket: WebSocket, protocol: Protocol, context: Context):
        self._socket = websocket
        self._protocol = protocol
        self._context = context
        self._settings = context.settings
        self._turns: dict[str, _LiveTurn] = {}
        self._outbox: deque[str] = deque()
        self._outbox_bytes = 0
        self._wake = asyncio.Event()
        self._closing: Close | None = None
        self._left = asyncio.Event()
        self._stuck = asyncio.Event()
        self._gone = self._over = False
        self._pace = _Pace(self._settings.max_ahead_s, self._settings.max_speed)
        self._started_s = time.monotonic()
        self._n_frames = self._n_faults = 0
        self._audio_s = 0.0

    async def run(self) -> None:
        """Serve the client until either side has enough."""
        offered = subprotocols(self._socket.headers.getlist("sec-websocket-protocol"))
        plain = [name for name in offered if not name.startswith(KEY_PROTOCOL)]
        await self._socket.accept(plain[0] if plain else None)
        tasks = [
            asyncio.create_task(self._read(), name="reader"),
            asyncio.create_task(self._write(), name="writer"),
            asyncio.create_task(self._watch(), name="watcher"),
            asyncio.create_task(self._stuck.wait(), name="stuck"),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                if not task.cancelled() and task.exception() is not None:
                    raise task.exception() or RuntimeError("a task failed")
        except Exception:
            _logger.exception("a connection failed")
            await self._finish(Close(FAULT, "internal error"))
        finally:
            # A cancelled wait_for() returns a message that came at the same moment (Python 3.10 and
            # 3.11), so a client that floods would keep its reader alive without this flag.
            self._over = True
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for live in self._turns.values():
                live.turn.cancel()
            self._log()

    async def _read(self) -> None:
        await self._perform(self._protocol.greet())
        while not self._over:
            try:
                message = await asyncio.wait_for(
                    self._socket.receive(), self._settings.idle_timeout_s
                )
            except asyncio.TimeoutError:
                if not self._turns_wait():
                    self._close(Close(POLICY, "nothing was said for too long"))
                continue
            if message["type"] == "websocket.disconnect":
                self._gone = True
                self._left.set()
                return
            if self._closing is not None:
                continue  # what still comes is read and dropped, so that the goodbye comes through
            text = message.get("text")
            self._n_frames += 1
            frame = message.get("bytes", b"") if text is None else text
            actions = self._protocol.receive(frame)
            await self._perform(actions)
            self._count_faults(actions)

    async def _perform(self, actions: list[Action]) -> None:
        """Carry out what the protocol wants, in order; waits where the client is too fast."""
        for action in actions:
            if self._closing is not None:
                return
            if isinstance(action, Send):
                self._post(action.frame)
            elif isinstance(action, Close):
                self._close(action)
            elif isinstance(action, Start):
                await self._start(action)
            elif action.turn in self._turns:
                await self._on_turn(self._turns[action.turn], action)

    async def _start(self, start: Start) -> None:
        while sum(live.ended for live in self._turns.values()) >= self._settings.max_turns:
            await asyncio.sleep(POLL_S)
        live = _LiveTurn(start.turn)
        self._turns[start.turn] = live
        live.turn = self._context.open_turn(start.options, lambda update: self._news(live, update))

    async def _on_turn(self, live: _LiveTurn, action: Feed | Flush | Finish | Cancel) -> None:
        if isinstance(action, Feed):
            live.fed(action.duration_s)
            limit_s = self._settings.max_turn_s
            if limit_s is not None and live.audio_s > limit_s:
                self._close(Close(POLICY, f"a turn may last {limit_s:g} s"))
                return
            self._audio_s += action.duration_s
            live.turn.feed(action.samples, action.sample_rate)
            await asyncio.sleep(self._pace.wait_s(action.duration_s))
            await self._context.wait_for_room(live.turn)
        elif isinstance(action, Flush):
            live.turn.flush()
        elif isinstance(action, Finish):
            live.ended = True
            live.turn.finish()
        else:
            live.turn.cancel()
            del self._turns[action.turn]
            self._context.metrics.turns.labels("live", "cancelled").inc()

    def _news(self, live: _LiveTurn, update: Update) -> None:
        """Called on the event loop for every update of the engine."""
        if live.name not in self._turns:
            return
        metrics = self._context.metrics
        metrics.lag.observe(update.lag_s)
        if update.text and live.first_audio_s is not None and not live.spoke:
            live.spoke = True
            metrics.first_text.observe(time.monotonic() - live.first_audio_s)
        if update.last:
            del self._turns[live.name]
            metrics.audio.labels("live").inc(live.audio_s)
            metrics.turns.labels("live", "done" if update.error is None else "failed").inc()
        for action in self._protocol.news(live.name, update):
            if isinstance(action, Send):
                self._post(action.frame)
            elif isinstance(action, Close):
                self._close(action)
        if self._settings.log_text and update.result is not None:
            event(_logger, "text", dialect=self._protocol.dialect, text=update.result.text)

    def _post(self, frame: dict[str, Any]) -> None:
        if self._closing is not None:
            return
        text = json.dumps(frame)
        self._outbox.append(text)
        self._outbox_bytes += len(text)
        if self._outbox_bytes > self._settings.max_outbox_bytes:
            self._gone = True  # it does not read, so it would not read a goodbye either
            self._close(Close(POLICY, "the client does not read"))
            self._stuck.set()
        self._wake.set()

    def _close(self, close: Close) -> None:
        """Close once the frames before it are sent."""
        if self._closing is None:
            self._closing = close
            self._wake.set()

    async def _write(self) -> None:
        while not self._gone:
            while self._outbox and not self._gone:
                text = self._outbox.popleft()
                try:
                    await asyncio.wait_for(
                        self._socket.send_text(text), self._settings.send_timeout_s
                    )
                except (asyncio.TimeoutError, WebSocketDisconnect, RuntimeError):
                    self._gone = True
                    return
                self._outbox_bytes -= len(text)
            if self._closing is not None:
                await self._finish(self._closing)
                return
            self._wake.clear()
            await self._wake.wait()

    async def _finish(self, close: Close) -> None:
        if self._gone:
            return
        self._gone = True
        try:
            await asyncio.wait_for(self._socket.close(close.code, close.reason), GOODBYE_S)
            await asyncio.wait_for(self._left.wait(), GOODBYE_S)
        except (asyncio.TimeoutError, WebSocketDisconnect, RuntimeError):
            return

    async def _watch(self) -> None:
        """When the server stops: settle what was said, then close."""
        await self._context.drain.wait()
        for live in self._turns.values():
            if not live.ended:
                live.ended = True
                live.turn.finish()
        while self._turns:
            await asyncio.sleep(POLL_S)
        self._close(Close(GOING_AWAY, "the server stops"))
        await asyncio.Event().wait()

    def _turns_wait(self) -> bool:
        return any(live.ended or live.turn.backlog_s > 1 for live in self._turns.values())

    def _count_faults(self, actions: list[Action]) -> None:
        bad = any(isinstance(a, Send) and a.frame.get("type") == "error" for a in actions)
        self._n_faults = self._n_faults + 1 if bad else 0
        if self._n_faults >= _MAX_FAULTS:
            self._close(Close(POLICY, "too many bad frames"))

    def _log(self) -> None:
        close = self._closing
        event(
            _logger,
            "connection",
            client=client_of(self._socket),
            dialect=self._protocol.dialect,
            seconds=round(time.monotonic() - self._started_s, 3),
            audio_s=round(self._audio_s, 2),
            frames=self._n_frames,
            code=None if close is None else close.code,
            reason=None if close is None else close.reason,
        )


class _LiveTurn:
    """A turn and what its connection knows of it."""

    turn: Turn

    def __init__(self, name: str):
        self.name = name
        self.ended = False
        self.spoke = False
        self.audio_s = 0.0
        self.first_audio_s: float | None = None

    def fed(self, seconds: float) -> None:
        """Count audio."""
        if self.first_audio_s is None:
            self.first_audio_s = time.monotonic()
        self.audio_s += seconds


class _Pace:
    """How long a client must wait that sends faster than the clock."""

    def __init__(self, ahead_s: float, speed: float):
        self._ahead_s = ahead_s
        self._speed = speed
        self._credit_s = ahead_s
        self._last_s = time.monotonic()

    def wait_s(self, audio_s: float) -> float:
        """Take audio and say how long to wait before the next."""
        now = time.monotonic()
        self._credit_s = min(self._ahead_s, self._credit_s + (now - self._last_s) * self._speed)
        self._last_s = now
        self._credit_s -= audio_s
        return max(0.0, -self._credit_s / self._speed)
