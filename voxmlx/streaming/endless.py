"""A decoder that does not stop: where the model ends the stream, a fresh one goes on.

It knows embeddings and tokens; neither audio nor text.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import mlx.core as mx

from voxmlx.generation.row import GeneratedToken
from voxmlx.streaming.backend import Tokens

OnEos = Literal["restart", "stop"]
"""What the end of the stream in its middle means: begin afresh, or believe it."""

_logger = logging.getLogger(__name__)


class EndlessStream:
    """Decode embeddings, position by position, past every EOS.

    The model may write EOS while audio still comes. A restarted decoder gets the prompt that it was
    trained on: the stream's own silent positions on the left, then the latest positions, as many
    as the delay holds. So all audio whose words were not due yet is heard again, the encoder
    never stops, and token indices go on counting positions.

    Args:
        open_stream: Makes a decoder for the given number of restarts so far.
        n_left_pad: Silent positions that start the stream.
        n_delay: Delay in positions.
        on_eos: Whether to restart.
    """

    def __init__(
        self,
        open_stream: Callable[[int], Tokens],
        n_left_pad: int,
        n_delay: int,
        on_eos: OnEos,
    ):
        if on_eos not in ("restart", "stop"):
            raise ValueError(f"on_eos must be 'restart' or 'stop', got {on_eos!r}")
        self._open_stream = open_stream
        self._n_left_pad = n_left_pad
        self._n_recent = n_delay + 1
        self._on_eos = on_eos
        self._stream = open_stream(0)
        self._first_index = 0
        self._first_pass = 0
        self._silence: mx.array | None = None
        self._rows = _Rows()
        self.n_restarts = 0
        self.end: int | None = None
        """Positions that hold audio, once that is known; behind them EOS is believed."""

    @property
    def n_tokens(self) -> int:
        """Tokens so far."""
        return self._first_index + self._stream.n_tokens

    @property
    def n_passes(self) -> int:
        """Passes through the decoder so far."""
        return self._first_pass + self._stream.n_passes

    @property
    def n_heard(self) -> int:
        """Positions whose audio the tokens so far have heard."""
        n = self._stream.n_tokens
        start = self._n_left_pad + self._n_recent - 1
        return start + self.n_tokens if n or self._first_index else 0

    @property
    def n_ready(self) -> int:
        """Tokens that the embeddings at hand allow to decode."""
        return self._stream.n_ready

    @property
    def finished(self) -> bool:
        """Whether the model ended the stream for good."""
        return self._stream.finished

    def add(self, audio: mx.array) -> None:
        """Queue audio embeddings of the next positions, ``(1, n, D)``."""
        if not audio.shape[1]:
            return
        self._stream.add(audio)
        if self._on_eos == "restart":
            self._rows.add(audio)
            if self._silence is None and self._rows.end >= self._n_left_pad:
                self._silence = self._rows.since(0)[:, : self._n_left_pad]
                mx.eval(self._silence)

    def step(self, max_tokens: int) -> list[GeneratedToken]:
        """Decode up to ``max_tokens`` tokens of those ready."""
        first = self._first_index
        tokens = self._stream.step(max_tokens)
        if first:
            tokens = [replace(t, index=first + t.index) for t in tokens]
        if self._stream.finished and self._on_eos == "restart" and not self._all_due():
            self._restart()
        if self._silence is not None:
            self._rows.drop_before(self.n_heard - self._n_recent + 1)
        return tokens

    def _all_due(self) -> bool:
        return self.end is not None and self.n_heard + 1 - self._n_recent >= self.end

    def _restart(self) -> None:
        """Open a fresh decoder whose first output follows the EOS."""
        self.n_restarts += 1
        _logger.info("the model ended the stream at token %d; restarted", self.n_tokens - 1)
        start = self.n_heard + 1 - self._n_recent
        self._first_index, self._first_pass = self.n_tokens, self.n_passes
        self._stream = self._open_stream(self.n_restarts)
        if self._silence is None:
            raise RuntimeError("EOS before the silence on the left was heard")
        self._stream.add(self._silence)
        self._stream.add(self._rows.since(start))


class _Rows:
    """The newest embeddings of a stream, by position."""

    def __init__(self) -> None:
        self.end = 0
        self._chunks: list[mx.array] = []
        self._start = 0

    def add(self, rows: mx.array) -> None:
        self._chunks.append(rows)
        self.end += rows.shape[1]

    def drop_before(self, position: int) -> None:
        """Forget chunks that end before ``position``."""
        while self._chunks and self._start + self._chunks[0].shape[1] <= position:
            self._start += self._chunks.pop(0).shape[1]

    def since(self, position: int) -> mx.array:
        """Embeddings from ``position`` on, ``(1, n, D)``."""
        if position < self._start:
            raise RuntimeError(f"position {position} was dropped, the oldest is {self._start}")
        return mx.concatenate(self._chunks, axis=1)[:, position - self._start :]
