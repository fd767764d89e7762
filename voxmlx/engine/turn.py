"""The caller's end of a turn. May be used from any thread; the device thread answers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from voxmlx.engine.request import TurnOptions, Update, UpdateCallback


@dataclass(frozen=True)
class Command:
    """Something the device thread shall do to a turn."""

    turn: Turn
    name: Literal["open", "feed", "flush", "finish", "cancel"]
    samples: np.ndarray | None = field(default=None, compare=False)
    sample_rate: int = 0

    @property
    def audio_s(self) -> float:
        """Audio in it."""
        return 0.0 if self.samples is None else len(self.samples) / self.sample_rate


class Turn:
    """One stretch of audio that is being transcribed.

    Args:
        number: Its number in the engine.
        options: How it is transcribed.
        callback: Gets every update, on the device thread.
        send: Hands a command to the device thread.
    """

    def __init__(
        self,
        number: int,
        options: TurnOptions,
        callback: UpdateCallback,
        send: Callable[[Command], None],
    ):
        self.number = number
        self.options = options
        self._callback = callback
        self._send = send
        self._lock = threading.Lock()
        self._queued_s = 0.0
        self._lag_s = 0.0
        self._over = False

    @property
    def backlog_s(self) -> float:
        """Audio fed and not decoded yet; 0 once the turn is over."""
        with self._lock:
            return 0.0 if self._over else self._queued_s + self._lag_s

    @property
    def over(self) -> bool:
        """Whether the last update was given, or the turn was cancelled."""
        return self._over

    def feed(self, samples: np.ndarray, sample_rate: int) -> None:
        """Queue audio, ``(n,)`` float32 in [-1, 1]; one rate a turn."""
        command = Command(self, "feed", samples, sample_rate)
        with self._lock:
            self._queued_s += command.audio_s
        self._send(command)

    def flush(self) -> None:
        """Settle what was said so far and go on."""
        self._send(Command(self, "flush"))

    def finish(self) -> None:
        """End the audio; the last update brings the result."""
        self._send(Command(self, "finish"))

    def cancel(self) -> None:
        """Drop the turn; no update follows."""
        with self._lock:
            self._over = True
        self._send(Command(self, "cancel"))

    def took(self, command: Command) -> None:
        """Note that the device thread has taken a command; its audio is still to be decoded."""
        with self._lock:
            self._queued_s = max(0.0, self._queued_s - command.audio_s)
            self._lag_s += command.audio_s

    def tell(self, update: Update) -> None:
        """Pass an update on, unless the turn is over."""
        with self._lock:
            if self._over:
                return
            self._lag_s = update.lag_s
            self._over = update.last
        self._callback(update)

    def decoded(self, lag_s: float) -> None:
        """Note how much audio waits for the device, without telling anybody."""
        with self._lock:
            self._lag_s = lag_s
