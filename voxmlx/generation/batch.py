"""Many rows through one decoder: rows join and leave, and one pass serves all that have work.

Rows have their own offset, delay, rules and sampling. A pass is a rectangle of rows and positions;
what a row does not use is computed and forgotten: its ring does not advance over it. Both sides of
the rectangle are rounded up to a few sizes, so that nothing is compiled as rows come and go.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from voxmlx.config import KVCacheConfig
from voxmlx.generation.prompt import streaming_prompt
from voxmlx.generation.row import GeneratedToken, Row, RowOptions, SpecialIds
from voxmlx.generation.step import DecodeState, decode_step
from voxmlx.models.voxtral_realtime import VoxtralRealtime

MAX_STEP = 64
"""Most positions of a pass; the longest prompt (33 positions and 30 of delay) fits."""

ROW_SIZES = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64)
STEP_SIZES = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64)


def round_up(n: int, sizes: Sequence[int]) -> int:
    """The smallest of ``sizes`` that holds ``n``.

    Raises:
        ValueError: If none does.
    """
    for size in sizes:
        if n <= size:
            return size
    raise ValueError(f"at most {sizes[-1]} fit, got {n}")


@dataclass(frozen=True)
class _Work:
    """One row's part of a pass; ``first`` is the placed position of the first output."""

    slot: int
    key: int
    row: Row
    tokens: list[int]
    first: int


class BatchDecoder:
    """Decode any number of streams together.

    A row is named by the number that :meth:`join` returned; numbers are not used again.

    Args:
        model: The network.
        ids: Special ids of its tokenizer.
        max_rows: Most rows at a time, at most 64.
        kv: How keys and values are compressed; ``None`` keeps them as they are.

    Raises:
        ValueError: If ``max_rows`` is out of range.
    """

    def __init__(
        self,
        model: VoxtralRealtime,
        ids: SpecialIds,
        max_rows: int = ROW_SIZES[-1],
        kv: KVCacheConfig | None = None,
    ):
        if not 1 <= max_rows <= ROW_SIZES[-1]:
            raise ValueError(f"max_rows must be 1 to {ROW_SIZES[-1]}, got {max_rows!r}")
        self.max_rows = max_rows
        self.n_passes = 0
        self._model = model
        self._ids = ids
        self._rows: dict[int, Row] = {}
        self._slots: list[int | None] = [None]
        self._next_row = 0
        self._cache = model.decoder.make_cache(MAX_STEP, kv=kv)
        self._conditioning: dict[int, mx.array | None] = {}
        self._state: DecodeState | None = None

    @property
    def n_rows(self) -> int:
        """Rows that have joined and not left."""
        return len(self._rows)

    @property
    def nbytes(self) -> int:
        """Bytes held by keys and values."""
        return self._cache.nbytes

    def join(self, options: RowOptions) -> int:
        """Add a row and return its number.

        Raises:
            ValueError: If ``max_rows`` rows are there already.
        """
        if len(self._rows) >= self.max_rows:
            raise ValueError(f"all {self.max_rows} rows are taken; leave() one first")
        if None not in self._slots:
            size = round_up(len(self._slots) + 1, ROW_SIZES)
            self._resize([*range(len(self._slots)), *[None] * (size - len(self._slots))])
        prompt = streaming_prompt(
            self._ids.bos, self._ids.pad, self._model.config.n_left_pad_tokens, options.n_delay
        )
        row = self._next_row
        self._next_row += 1
        self._rows[row] = Row(options, prompt, self._ids)
        slot = self._slots.index(None)
        self._slots[slot] = row
        self._cache.clear_row(slot)
        self._state = None
        return row

    def leave(self, row: int) -> None:
        """Remove a row; its place is free for another."""
        del self._rows[row]
        self._slots[self._slots.index(row)] = None
        size = round_up(max(1, len(self._rows)), ROW_SIZES)
        if 2 * size <= len(self._slots):
            used = [slot for slot, key in enumerate(self._slots) if key is not None]
            self._resize([*used, *[None] * (size - len(used))])

    def add(self, row: int, audio: mx.array) -> None:
        """Queue a row's next audio embeddings, ``(1, n, D)``; the first is that of position 0."""
        self._rows[row].add(audio)

    def n_ready(self, row: int) -> int:
        """Tokens of a row that the embeddings at hand allow to decode."""
        return self._rows[row].n_ready

    def finished(self, row: int) -> bool:
        """Whether a row has written EOS; it then takes no more audio."""
        return self._rows[row].finished

    def step(self, max_tokens: int | None = None) -> dict[int, list[GeneratedToken]]:
        """Run one pass over all rows that have work.

        Args:
            max_tokens: Most tokens of one row; ``None`` sets no limit.

        Returns:
            New tokens of each row that took part; a row with a long prompt may have none yet.
        """
        work = self._plan(max_tokens)
        if not work:
            return {}
        ids, logprobs, alternatives = self._choose(self._score(work), work)
        counts = [0] * len(self._slots)
        result = {}
        for w in work:
            n = len(w.tokens) - w.first
            result[w.key], counts[w.slot] = w.row.settle(
                w.tokens, ids[w.slot][:n], logprobs[w.slot][:n], alternatives[w.slot][:n]
            )
        self._cache.advance(counts)
        self.n_passes += 1
        return result

    def _plan(self, max_tokens: int | None) -> list[_Work]:
        work: list[_Work] = []
        for slot, key in enumerate(self._slots):
            if key is None or max_tokens == 0 or not self._rows[key].n_ready:
                continue
            row = self._rows[key]
            tokens = row.plan(MAX_STEP, max_tokens)
            work.append(_Work(slot, key, row, tokens, min(len(row.known), len(tokens)) - 1))
        return work

    def _score(self, work: Sequence[_Work]) -> mx.array:
        """Place every row's tokens; logits from each row's last known token on, ``(B, N, V)``."""
        B = len(self._slots)
        T = round_up(max(len(w.tokens) for w in work), STEP_SIZES)
        N = round_up(max(len(w.tokens) - w.first for w in work), STEP_SIZES)
        tokens = [[0] * T for _ in range(B)]
        picks = [list(range(T - N, T))] * B
        audio = [mx.zeros((1, T, self._model.config.decoder.dim), self._model.dtype)] * B
        for w in work:
            n = len(w.tokens)
            tokens[w.slot][:n] = w.tokens
            picks[w.slot] = [min(w.first + j, T - 1) for j in range(N)]
            audio[w.slot] = mx.pad(w.row.audio(n), [(0, 0), (0, T - n), (0, 0)])
        last = all(pick == list(range(T - N, T)) for pick in picks)
        logits = decode_step(
            self._model,
            self._decode_state(),
            mx.array(tokens, dtype=mx.int32),
            mx.concatenate(audio),
            N if last else mx.array(picks),
        )
        self._cache.rewind(T)
        return logits

    def _choose(
        self, logits: mx.array, work: Sequence[_Work]
    ) -> tuple[list[list[int]], list[list[float]], list[list[list[tuple[int, float]]]]]:
        """Ids, log-probabilities and likeliest ids for every row and scored position."""
        logits = logits.astype(mx.float32)
        drawn: dict[int, mx.array] = {}
        for w in work:
            if w.first != len(w.row.known) - 1:
                continue
            logits = _add_biases(logits, w.slot, w.row.biases(w.tokens))
            if w.row.samples:
                drawn[w.slot] = w.row.draw(logits[w.slot, :1])
        ids = mx.argmax(logits, axis=-1)
        for slot, token in drawn.items():
            ids[slot, :1] = token
        chosen = mx.take_along_axis(logits, ids[..., None], axis=-1)[..., 0]
        total = mx.logsumexp(logits, axis=-1)
        logprobs = chosen - total
        n = max(w.row.options.n_alternatives for w in work)
        likeliest, scores = _likeliest(logits - total[..., None], n)
        mx.eval(ids, logprobs, likeliest, scores)
        alternatives = [
            [list(zip(*place, strict=True)) for place in zip(*row, strict=True)]
            for row in zip(_nested(likeliest), _nested(scores), strict=True)
        ]
        return _nested(ids), _nested(logprobs), alternatives

    def _decode_state(self) -> DecodeState:
        if self._state is None:
            rows = [None if key is None else self._rows[key] for key in self._slots]
            delays = [0 if row is None else row.options.n_delay for row in rows]
            for n_delay in set(delays) - set(self._conditioning):
                self._conditioning[n_delay] = self._model.decoder.conditioning(n_delay)
            scales = [self._conditioning[n_delay] for n_delay in delays]
            stacked = None if scales[0] is None else mx.stack(scales, axis=1)
            self._state = DecodeState(self._cache, stacked)
        return self._state

    def _resize(self, slots: Sequence[int | None]) -> None:
        """Keep the rows in ``slots``, in this order; ``None`` is a free place."""
        self._cache.take_rows(slots)
        self._slots = [None if slot is None else self._slots[slot] for slot in slots]
        self._state = None


def _nested(x: mx.array) -> Any:
    """Nested lists of numbers; how deep they are is known to the caller only."""
    return x.tolist()


def _likeliest(logprobs: mx.array, n: int) -> tuple[mx.array, mx.array]:
    """The ``n`` likeliest ids and their values, ``(B, N, V) -> (B, N, n)`` twice, best first."""
    n = min(n, logprobs.shape[-1])
    if n == 0:
        empty = mx.zeros((*logprobs.shape[:-1], 0))
        return empty.astype(mx.int32), empty
    ids = mx.argpartition(-logprobs, n - 1, axis=-1)[..., :n]
    values = mx.take_along_axis(logprobs, ids, axis=-1)
    order = mx.argsort(-values, axis=-1)
    return mx.take_along_axis(ids, order, axis=-1), mx.take_along_axis(values, order, axis=-1)


def _add_biases(logits: mx.array, slot: int, biases: list[dict[int, float]]) -> mx.array:
    """Add the rules' biases to one row's scored positions."""
    entries = [(j, i, value) for j, bias in enumerate(biases) for i, value in bias.items()]
    if not entries:
        return logits
    positions, ids, values = (mx.array(column) for column in zip(*entries, strict=True))
    return logits.at[slot, positions, ids].add(values)
