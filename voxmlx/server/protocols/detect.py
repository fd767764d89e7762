"""One address, several dialects: decide from what a client sends before audio is decoded.

OpenAI's sessions, vLLM's and the bare one share ``/v1/realtime``, but OpenAI means 24 kHz and the
others 16 kHz, so a wrong guess would garble the audio. Frames are held until the dialect is clear:

=====================================================  =======
``?intent=transcription``                              OpenAI
``session.update`` with a ``model`` beside the type    vLLM
``session.update`` with a ``session``                  OpenAI
``session.update`` with neither                        bare
``commit`` with ``final`` before anything else         vLLM
``commit`` or much audio, and ``?model=`` in the       OpenAI
address or ``event_id`` in a frame
``commit`` or much audio, without these                bare
=====================================================  =======
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from voxmlx.engine.request import Update
from voxmlx.server.protocols.common import (
    Action,
    ClientError,
    Protocol,
    Send,
    ServedModel,
    new_id,
)
from voxmlx.server.protocols.openai import OpenAiProtocol
from voxmlx.server.protocols.vllm import VllmProtocol

HOLD_CHARS = 131_072
"""Audio held for an undecided client, as base64: 3 s at 16 kHz."""


class RealtimeProtocol(Protocol):
    """The protocol of ``/v1/realtime``, whatever it turns out to be.

    Args:
        model: What is served.
        query: Parameters of the address.

    Raises:
        ClientError: If a parameter is wrong.
    """

    def __init__(self, model: ServedModel, query: Mapping[str, str]):
        self._model = model
        self._query = query
        self._openai = OpenAiProtocol(model, query)
        self._hints_openai = "model" in query
        self._held: list[dict[str, Any]] = []
        self._held_chars = 0
        self._inner: Protocol | None = None
        if query.get("intent") == "transcription":
            self._inner = self._openai

    @property
    def dialect(self) -> str:  # type: ignore[override]
        """The dialect, or ``undecided``."""
        return "undecided" if self._inner is None else self._inner.dialect

    def greet(self) -> list[Action]:
        """One ``session.created`` that every dialect can read."""
        actions = self._openai.greet()
        for action in actions:
            if isinstance(action, Send):
                action.frame.update(id=new_id("sess"), created=int(time.time()))
        return actions

    def handle(self, event: dict[str, Any]) -> list[Action]:
        """Decide, or pass the frame on."""
        if self._inner is not None:
            return self._inner.handle(event)
        if isinstance(event.get("event_id"), str):
            self._hints_openai = True
        inner = self._decide(event)
        if inner is None:
            self._held.append(event)
            return []
        self._inner = inner
        held, self._held = [*self._held, event], []
        actions: list[Action] = []
        for frame in held:
            # What earlier frames asked for stands, whatever is wrong with a later one.
            try:
                actions += inner.handle(frame)
            except ClientError as error:
                event_id = frame.get("event_id")
                actions.append(inner.error(error, event_id if isinstance(event_id, str) else None))
        return actions

    def error(self, error: ClientError, event_id: str | None = None) -> Send:
        """An error in the dialect; while that is open, one that all can read."""
        if self._inner is not None:
            return self._inner.error(error, event_id)
        send = self._openai.error(error, event_id)
        send.frame["code"] = error.code
        return send

    def news(self, turn: str, update: Update) -> list[Action]:
        """Pass news on; there are none before the dialect is known."""
        return [] if self._inner is None else self._inner.news(turn, update)

    def _decide(self, event: dict[str, Any]) -> Protocol | None:
        kind = event["type"]
        if kind == "session.update":
            if isinstance(event.get("model"), str):
                return self._vllm(bare=False)
            return self._openai if "session" in event else self._vllm(bare=True)
        if kind == "input_audio_buffer.append":
            audio = event.get("audio")
            self._held_chars += len(audio) if isinstance(audio, str) else 0
            return self._guess() if self._held_chars > HOLD_CHARS or len(self._held) > 99 else None
        if kind == "input_audio_buffer.commit":
            if event.get("final") is True and not self._held:
                return self._vllm(bare=False)
            return self._guess()
        if kind == "input_audio_buffer.clear":
            return self._openai
        raise ClientError("unknown_event", f"unknown event {kind[:100]!r}", "type")

    def _guess(self) -> Protocol:
        return self._openai if self._hints_openai else self._vllm(bare=True)

    def _vllm(self, bare: bool) -> Protocol:
        return VllmProtocol(self._model, self._query, bare)
