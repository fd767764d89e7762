"""Sessions that share one encoder batch and one decoder batch. Runs on the device thread alone.

A session is the ordinary :class:`voxmlx.streaming.session.StreamingSession`; only where its
embeddings and tokens are computed differs. A tick is: encode what all sessions have ready, hand
the rows on, run passes of the decoder, hand the tokens on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import mlx.core as mx
import numpy as np

from voxmlx.cache.store import RowSlots
from voxmlx.config import KVCacheConfig
from voxmlx.generation.batch import BatchDecoder
from voxmlx.generation.encode import BatchEncoder
from voxmlx.generation.row import GeneratedToken, RowOptions, SpecialIds
from voxmlx.models.voxtral_realtime import VoxtralRealtime
from voxmlx.streaming.embedder import MelQueue, take_together


class Pool:
    """The two batches.

    Args:
        model: The network.
        ids: Special ids of its tokenizer.
        max_rows: Most sessions at a time.
        max_positions: Most positions (80 ms) of a session that one encoder pass takes.
        max_step: Most positions of a session that one decoder pass takes.
        kv: How keys and values are compressed; ``None`` keeps them as they are.
        reserve: Whether memory for all sessions with full windows is held from the start. Then
            nothing is copied and no size changes as sessions join, leave and grow, but every pass
            is made for all of them.
    """

    def __init__(
        self,
        model: VoxtralRealtime,
        ids: SpecialIds,
        max_rows: int,
        max_positions: int,
        max_step: int,
        kv: KVCacheConfig | None = None,
        reserve: bool = False,
    ):
        self.max_positions = max_positions
        self.model = model
        self.encoder = BatchEncoder(model, max_positions, max_rows, kv, reserve)
        self.decoder = BatchDecoder(model, ids, max_rows, kv, max_step, reserve=reserve)
        self._tokens: dict[int, PooledTokens] = {}
        silence = MelQueue(model.config)
        self.start = self.encoder.start_of(silence.take(silence.n_positions))
        """What every session begins with: positions on the left that no audio reaches."""
        self._starts: dict[int, RowSlots | None] = {}

    @property
    def nbytes(self) -> int:
        """Bytes held by keys and values."""
        return self.encoder.nbytes + self.decoder.nbytes

    def encode(self, parts: Mapping[PooledBackend, int]) -> None:
        """Embed audio of some sessions in one pass, each at most the given positions."""
        wanted = {
            backend.embedder: min(n, self.max_positions)
            for backend, n in parts.items()
            if backend.embedder.queue.n_positions
        }
        if not wanted:
            return
        mel = take_together([(embedder.queue, n) for embedder, n in wanted.items()])
        frames = {embedder.row: x for embedder, x in zip(wanted, mel, strict=True)}
        rows = self.encoder.encode(frames)
        mx.async_eval(*rows.values())  # a long prompt would leave several passes unevaluated
        for embedder in wanted:
            embedder.push(rows[embedder.row])

    @property
    def n_behind(self) -> int:
        """Sessions for which a pass of the decoder has work."""
        return sum(self.decoder.n_ready(row) > 0 for row in self._tokens)

    def decode(self, max_positions: int | None = None) -> int:
        """Run one pass of the decoder, over at most so many positions of a session.

        Returns:
            How many rows took part, also without a token.
        """
        passed = self.decoder.step(max_positions=max_positions)
        for row, tokens in passed.items():
            self._tokens[row].push(tokens)
        return len(passed)

    def join(self, tokens: PooledTokens, options: RowOptions) -> int:
        """Give a decoder row to a session."""
        n, n_delay = 0, options.n_delay
        if self.start is not None:
            n = self.start.audio.shape[1]
            if n_delay not in self._starts:
                self._starts[n_delay] = self.decoder.start_of(self.start.audio, n_delay)
        row = self.decoder.join(options, self._starts.get(n_delay), n)
        self._tokens[row] = tokens
        return row

    def close(self) -> None:
        """Forget all sessions, whose rows would hold the batches; none may work any more."""
        self._tokens.clear()

    def leave(self, row: int) -> None:
        """Take a decoder row back."""
        self.decoder.leave(row)
        del self._tokens[row]


class PooledBackend:
    """One session's part of a pool; a :class:`voxmlx.streaming.backend.Backend`.

    Args:
        pool: The batches.
    """

    def __init__(self, pool: Pool):
        self.pool = pool
        self.embedder = PooledEmbedder(pool)
        self._tokens: PooledTokens | None = None

    def open_embedder(self, max_rows: int) -> PooledEmbedder:
        """The session's row of the encoder."""
        return self.embedder

    def open_tokens(self, ids: SpecialIds, options: RowOptions) -> PooledTokens:
        """A fresh row of the decoder; an older one is given back."""
        if self._tokens is not None:
            self._tokens.close()
        self._tokens = PooledTokens(self.pool, options)
        return self._tokens

    @property
    def has_tokens(self) -> bool:
        """Whether the pool has brought tokens that wait for the session."""
        return self._tokens is not None and self._tokens.has_news

    def close(self) -> None:
        """Give both rows back."""
        self.embedder.close()
        if self._tokens is not None:
            self._tokens.close()


class PooledEmbedder:
    """One row of the encoder; :class:`voxmlx.streaming.backend.Embedder`."""

    def __init__(self, pool: Pool):
        self.max_rows = pool.max_positions
        self.queue = MelQueue(pool.model.config)
        self.row = pool.encoder.join(pool.start)
        self._pool = pool
        self._ready: deque[mx.array] = deque()
        if pool.start is not None:
            self.queue.drop()
            self._ready.append(pool.start.audio)
        self._closed = False

    @property
    def n_ready(self) -> int:
        """Positions that wait for the encoder or for the session."""
        return self.queue.n_positions + sum(audio.shape[1] for audio in self._ready)

    def feed(self, samples: np.ndarray) -> None:
        """Take more audio."""
        self.queue.feed(samples)

    def push(self, audio: mx.array) -> None:
        """Take embeddings from the pool, ``(1, n, D)``."""
        self._ready.append(audio)

    def encode(self, max_rows: int | None = None) -> mx.array:
        """All embeddings that the pool has brought since."""
        rows = [*self._ready, mx.zeros((1, 0, self._pool.model.config.decoder.dim))]
        self._ready.clear()
        return rows[0] if len(rows) <= 2 else mx.concatenate(rows[:-1], axis=1)

    def drop(self) -> None:
        """Forget what is ready."""
        self.queue.drop()
        self._ready.clear()

    def close(self) -> None:
        """Give the row back."""
        if not self._closed:
            self._closed = True
            self._pool.encoder.leave(self.row)


class PooledTokens:
    """One row of the decoder; :class:`voxmlx.streaming.backend.Tokens`."""

    def __init__(self, pool: Pool, options: RowOptions):
        self.n_tokens = 0
        self.n_passes = 0
        self.finished = False
        self._pool = pool
        self._row: int | None = pool.join(self, options)
        self._ready: deque[GeneratedToken] = deque()
        self._ended = False

    @property
    def n_ready(self) -> int:
        """Tokens that wait for a pass or for the session."""
        waiting = 0 if self._row is None else self._pool.decoder.n_ready(self._row)
        return waiting + len(self._ready)

    @property
    def has_news(self) -> bool:
        """Whether :meth:`step` has something to give or to note."""
        return bool(self._ready) or (self._ended and not self.finished)

    def add(self, audio: mx.array) -> None:
        """Queue embeddings for the next passes."""
        if self._row is not None:
            self._pool.decoder.add(self._row, audio)

    def push(self, tokens: list[GeneratedToken]) -> None:
        """Take tokens from the pool."""
        self.n_passes += 1
        self._ready.extend(tokens)
        self._ended = self._row is not None and self._pool.decoder.finished(self._row)

    def step(self, max_tokens: int) -> list[GeneratedToken]:
        """Tokens that the pool has brought since."""
        n = min(max_tokens, len(self._ready))
        tokens = [self._ready.popleft() for _ in range(n)]
        self.n_tokens += n
        if self._ended and not self._ready:
            self.finished = True
            self.close()
        return tokens

    def close(self) -> None:
        """Give the row back."""
        if self._row is not None:
            self._pool.leave(self._row)
            self._row = None
