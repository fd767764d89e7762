"""Many rows through one decoder: rows join and leave, and one pass serves all that have work.

Rows have their own offset, delay, rules and sampling. A pass is a rectangle of rows and positions;
what a row does not use is computed and forgotten: its ring does not advance over it. Both sides of
the rectangle are rounded up to a few sizes, so that nothing is compiled as rows come and go.

Where no row guesses, the next pass starts before the tokens of this one are read: the device does
not wait for Python.
"""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx

from voxmlx.cache.store import RowSlots
from voxmlx.config import KVCacheConfig
from voxmlx.generation.bias import MAX_AHEAD
from voxmlx.generation.outputs import Outputs, add_biases, best_alternatives, gaps_of, nested
from voxmlx.generation.passes import Block, Pass, Work
from voxmlx.generation.prompt import streaming_prompt
from voxmlx.generation.row import GeneratedToken, Row, RowOptions, SpecialIds
from voxmlx.generation.slots import MAX_ROWS, Slots, round_up
from voxmlx.generation.speculative import HOST_OVERHEAD, best_width, pass_overhead
from voxmlx.generation.step import DecodeState, replays, step_program
from voxmlx.kernels.likeliest import likeliest
from voxmlx.models.voxtral_realtime import VoxtralRealtime

MAX_STEP = 64
"""Most positions of a pass; the longest prompt (33 positions and 30 of delay) fits."""

STEP_SIZES = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64)
"""Widths of a pass."""

TRACED_STEP_SIZES = (1, 2, 4, 8, 16, 32, 64)
"""Widths of a pass where each width is traced, and attention planned, once for each ring size."""

CUDA_ROWS = 8
"""MLX's packed product of 4 rows takes twice the time of 8 on an H200 (``benchmarks/results.md``);
2 to 7 rows are made 8."""

PASS_POSITIONS = 512
"""Positions of a pass on a GPU, all rows together: prompts of many rows take several passes. What
a pass leaves behind until the GPU is done grows with it."""

BLOCK = 32
"""Positions whose embeddings rows that go on together bring into one array."""


def step_sizes(n_places: int) -> tuple[int, ...]:
    """Widths that a pass over ``n_places`` rows takes."""
    sizes = TRACED_STEP_SIZES if replays() else STEP_SIZES
    if mx.cuda.is_available():
        return tuple(n for n in sizes if n == 1 or n * n_places >= CUDA_ROWS)
    return sizes


class BatchDecoder:
    """Decode any number of streams together.

    A row is named by the number that :meth:`join` returned; numbers are not used again.

    Args:
        model: The network.
        ids: Special ids of its tokenizer.
        max_rows: Most rows at a time, at most ``MAX_ROWS``.
        kv: How keys and values are compressed; ``None`` keeps them as they are.
        max_step: Most positions of a pass, at most ``MAX_STEP``, rounded up to a width. Rings hold
            as many positions beside their window.
        ahead: Whether the next pass may start before the tokens of this one are read; the device
            then holds the intermediate arrays of both.
        reserve: Whether memory for all rows with full windows is held from the start.

    Raises:
        ValueError: If ``max_rows`` is out of range.
    """

    def __init__(
        self,
        model: VoxtralRealtime,
        ids: SpecialIds,
        max_rows: int = MAX_ROWS,
        kv: KVCacheConfig | None = None,
        max_step: int = MAX_STEP,
        ahead: bool = True,
        reserve: bool = False,
    ):
        self.n_passes = 0
        self._goes_ahead = ahead
        self._model = model
        self._kv = kv
        self._ids = ids
        self._rows: dict[int, Row] = {}
        self._slots = Slots(max_rows, self._resize, reserve)
        self._max_step = round_up(max_step, step_sizes(1))
        self._cache = model.decoder.make_cache(self._max_step, self._slots.size, kv=kv)
        if reserve:
            self._cache.reserve(self._cache.full_capacity)
        self._conditioning: dict[int, mx.array | None] = {}
        self._state: DecodeState | None = None
        self._program = step_program(model)
        self._by_host = model.decoder.layers[0].attention.by_host
        self._ahead: Pass | None = None
        self._block: Block | None = None

    @property
    def n_rows(self) -> int:
        """Rows that have joined and not left."""
        return len(self._slots)

    @property
    def nbytes(self) -> int:
        """Bytes held by keys and values."""
        return self._cache.nbytes

    def start_of(self, audio: mx.array, n_delay: int) -> RowSlots | None:
        """Place the beginning of a prompt once for all rows that :meth:`join` with it.

        Args:
            audio: Its embeddings, ``(1, n, D)``; there is no such beginning if they fill a ring.
            n_delay: Delay of these rows in positions.
        """
        cache = self._model.decoder.make_cache(self._max_step, kv=self._kv)
        n = audio.shape[1]
        if n > cache.full_capacity:
            return None
        conditioning = self._model.decoder.conditioning(n_delay)
        state = DecodeState(cache, None if conditioning is None else list(conditioning))
        tokens = self._prompt(n_delay)[:n]
        for i in range(0, n, self._max_step):
            part = slice(i, min(i + self._max_step, n))
            placed = mx.array([tokens[part]], dtype=mx.int32)
            mx.eval(self._program(state, placed, audio[:, part], 1))
        return cache.row_slots(0)

    def _prompt(self, n_delay: int) -> list[int]:
        n_left_pad = self._model.config.n_left_pad_tokens
        return streaming_prompt(self._ids.bos, self._ids.pad, n_left_pad, n_delay)

    def join(self, options: RowOptions, start: RowSlots | None = None, n_start: int = 0) -> int:
        """Add a row and return its number.

        Args:
            options: How to decode it.
            start: What :meth:`start_of` made of its first embeddings, which :meth:`add` then takes
                without placing them again.
            n_start: Their number.

        Raises:
            ValueError: If ``max_rows`` rows are there already, or phrases do not fit a pass.
        """
        if options.bias is not None and self._max_step <= MAX_AHEAD:
            raise ValueError(f"bias needs passes of {MAX_AHEAD + 1}, not {self._max_step}")
        key = self._slots.join()
        self._rows[key] = Row(options, self._prompt(options.n_delay), self._ids)
        self._cache.clear_row(self._slots[key])
        if start is not None:
            self._cache.begin_row(self._slots[key], start, n_start)
            self._rows[key].skip(n_start)
        self._state = None
        return key

    def leave(self, row: int) -> None:
        """Remove a row; its place is free for another."""
        del self._rows[row]
        self._slots.leave(row)
        self._state = None

    def add(self, row: int, audio: mx.array) -> None:
        """Queue a row's next audio embeddings, ``(1, n, D)``; the first is that of position 0."""
        self._rows[row].add(audio)

    def n_ready(self, row: int) -> int:
        """Tokens of a row that the embeddings at hand allow to decode."""
        return self._rows[row].n_ready

    def finished(self, row: int) -> bool:
        """Whether a row has written EOS; it then takes no more audio."""
        return self._rows[row].finished

    def step(
        self, max_tokens: int | None = None, max_positions: int | None = None
    ) -> dict[int, list[GeneratedToken]]:
        """Run one pass over all rows that have work.

        Args:
            max_tokens: Most tokens of one row; ``None`` sets no limit.
            max_positions: Most positions of one row, unless half of all rows have more that are
                known; phrases on trial take what they need.

        Returns:
            New tokens of each row that took part; a row with a long prompt may have none yet.
        """
        if max_tokens == 0:
            return {}
        current, self._ahead = self._ahead, None
        if current is None:
            work = self._plan(max_tokens, max_positions)
            if not work:
                return {}
            current = self._start(work)
        work = [w for w in current.work if self._rows.get(w.key) is w.row and not w.row.finished]
        outputs = current.made
        if not isinstance(outputs, Outputs):
            outputs = self._choose(outputs, work)
            mx.async_eval(*outputs)
        if self._may_go_ahead(work, outputs.ids.shape[0]):
            self._count({w.key: 1 for w in work})
            self._ahead = self._go_ahead(work, outputs.ids)
        tokens, counts = self._settle(work, outputs)
        if self._ahead is None:
            self._count(counts)
        self.n_passes += 1
        return tokens

    def _plan(self, max_tokens: int | None, max_positions: int | None) -> list[Work]:
        """What each row with work places next."""
        rows = {key: row for key, row in self._rows.items() if row.n_ready}
        if not rows:
            return []
        width = self._width(list(rows.values()))
        work = []
        most = self._max_step
        if max_positions is not None:
            known = sorted([0] * self.n_rows + [len(row.known) for row in rows.values()])
            most = min(most, max(max_positions, known[-1 - self.n_rows // 2]))
        if replays():
            most = min(most, max(MAX_AHEAD + 1, PASS_POSITIONS // self._slots.size))
        for key, row in rows.items():
            tokens = row.plan(width, most, max_tokens)
            first = min(len(row.known), len(tokens)) - 1
            work.append(Work(self._slots[key], key, row, tokens, first))
        return work

    def _start(self, work: list[Work]) -> Pass:
        """Place every row's tokens and score them from the last known one on, ``(B, N, V)``."""
        B = self._slots.size
        sizes = step_sizes(B)
        T = round_up(max(len(w.tokens) for w in work), sizes)
        N = round_up(max(len(w.tokens) - w.first for w in work), sizes)
        tokens = [[0] * T for _ in range(B)]
        picks = [list(range(T - N, T))] * B
        for w in work:
            tokens[w.slot][: len(w.tokens)] = w.tokens
            picks[w.slot] = [min(w.first + j, T - 1) for j in range(N)]
        last = all(pick == list(range(T - N, T)) for pick in picks)
        logits = self._program(
            self._decode_state(),
            mx.array(tokens, dtype=mx.int32),
            self._audio(work, 0, T),
            N if last else mx.array(picks),
        )
        self._cache.rewind(T)
        return Pass(work, logits)

    def _may_go_ahead(self, work: Sequence[Work], n_places: int) -> bool:
        """Whether the next pass is clear before this one's tokens are read.

        Every row that has work took part, each goes on by one position and wants no guess, and
        all sit where they sat.
        """
        rows = [w.row for w in work]
        if not self._goes_ahead or any(
            len(w.tokens) > 1 or w.slot != self._slots[w.key] for w in work
        ):
            return False
        if n_places != self._slots.size or any(row.n_ready < 2 for row in rows):
            return False
        if any(row.options.bias is not None for row in rows):
            return False
        if sum(row.n_ready > 0 for row in self._rows.values()) > len(rows):
            return False
        return bool(rows) and self._width(rows) == 1

    def _go_ahead(self, work: Sequence[Work], ids: mx.array) -> Pass:
        """Start the next pass on tokens, ``(B, 1)``, that are still on the device."""
        placed = (self._decode_state(), ids.astype(mx.int32), self._audio(work, 1, 1))
        work = [Work(w.slot, w.key, w.row, [0], 0) for w in work]
        if all(w.row.plain for w in work):
            outputs = Outputs(*self._program.greedy(*placed))
            mx.async_eval(*outputs)
            started = Pass(work, outputs)
        else:
            logits = self._program(*placed, 1)
            mx.async_eval(logits)
            started = Pass(work, logits)
        self._cache.rewind(1)
        return started

    def _width(self, rows: Sequence[Row]) -> int:
        """Positions that the next pass tries in these rows."""
        fixed = [r.guesser.fixed for r in rows if r.guesser.fixed is not None and not r.samples]
        guessers = [r.guesser for r in rows if not r.samples]
        if fixed or not guessers:
            return max(fixed, default=1)
        n_places = self._slots.size
        overhead = HOST_OVERHEAD if self._by_host else pass_overhead(n_places)
        return best_width(guessers, step_sizes(n_places), n_places, overhead)

    def _audio(self, work: Sequence[Work], start: int, n: int) -> mx.array:
        """Embeddings of a pass, ``(B, n, D)``, from each row's queue; zeros where it has none."""
        if n == 1 and self._slots.size > 1:
            column = None if self._block is None else self._block.column(work, start)
            if column is None:
                length = min(BLOCK, *(w.row.n_audio - start for w in work))
                audio = self._gather(work, start, length, [length] * len(work))
                self._block = Block({w.key: w.row.n_placed + start for w in work}, audio)
                column = self._block.column(work, start)
            if column is not None:
                return column
        return self._gather(work, start, n, [len(w.tokens) for w in work])

    def _gather(self, work: Sequence[Work], start: int, n: int, counts: Sequence[int]) -> mx.array:
        """Some embeddings of every row, filled up with zeros to ``n`` of them."""
        shape = (1, n, self._model.config.decoder.dim)
        rows = [mx.zeros(shape, self._model.dtype)] * self._slots.size
        for w, count in zip(work, counts, strict=True):
            audio = w.row.audio(start, count)
            short = n - audio.shape[1]
            rows[w.slot] = mx.pad(audio, [(0, 0), (0, short), (0, 0)]) if short else audio
        return mx.concatenate(rows) if len(rows) > 1 else rows[0]

    def _choose(self, logits: mx.array, work: Sequence[Work]) -> Outputs:
        """Start computing what follows each scored position."""
        scored = [w for w in work if w.first == len(w.row.known) - 1]
        biases = {w.slot: w.row.biases(w.tokens) for w in scored if w.row.options.rules}
        if not any(any(each) for each in biases.values()) and all(w.row.greedy for w in work):
            return Outputs(*likeliest(logits))
        logits = logits.astype(mx.float32)
        drawn: dict[int, mx.array] = {}
        for w in scored:
            logits = add_biases(logits, w.slot, biases.get(w.slot, []))
            if w.row.samples:
                drawn[w.slot] = w.row.draw(logits[w.slot, :1])
        asked = [(w.slot, *place) for w in work for place in w.row.questions(w.tokens)]
        gaps = gaps_of(logits, asked)
        ids = mx.argmax(logits, axis=-1)
        for slot, token in drawn.items():
            ids[slot, :1] = token
        chosen = mx.take_along_axis(logits, ids[..., None], axis=-1)[..., 0]
        total = mx.logsumexp(logits, axis=-1)
        n = max((w.row.options.n_alternatives for w in work), default=0)
        if n == 0:
            return Outputs(ids, chosen - total, gaps=gaps)
        best = best_alternatives(logits - total[..., None], n)
        return Outputs(ids, chosen - total, *best, gaps)

    def _settle(
        self, work: Sequence[Work], outputs: Outputs
    ) -> tuple[dict[int, list[GeneratedToken]], dict[int, int]]:
        """Read a pass from the device: new tokens of each row, and how many positions stay."""
        all_ids, logprobs = nested(outputs.ids), nested(outputs.logprobs)
        alternatives = outputs.alternatives()
        gaps = iter([] if outputs.gaps is None else nested(outputs.gaps))
        tokens: dict[int, list[GeneratedToken]] = {}
        counts: dict[int, int] = {}
        for w in work:
            n = len(w.tokens) - w.first
            tokens[w.key], counts[w.key] = w.row.settle(
                w.tokens,
                all_ids[w.slot][:n],
                logprobs[w.slot][:n],
                alternatives[w.slot][:n] if alternatives else [()] * n,
                {place: next(gaps) for place in w.row.questions(w.tokens)},
            )
        return tokens, counts

    def _count(self, counts: dict[int, int]) -> None:
        """Let the rings go on by the positions that stay of each row's pass."""
        places = [0] * self._slots.size
        for key, n in counts.items():
            places[self._slots[key]] = n
        self._cache.advance(places)

    def _decode_state(self) -> DecodeState:
        if self._state is None:
            rows = {self._slots[key]: row for key, row in self._rows.items()}
            delays = [
                rows[i].options.n_delay if i in rows else None for i in range(self._slots.size)
            ]
            known = {n for n in delays if n is not None}
            for n_delay in known - set(self._conditioning):
                weights = self._model.decoder.conditioning(n_delay)
                self._conditioning[n_delay] = weights
            any_delay = min(known)
            shared = self._conditioning[any_delay]
            if shared is not None and len(known) > 1:
                each = [self._conditioning[any_delay if n is None else n] for n in delays]
                shared = mx.stack([x for x in each if x is not None], axis=1)
            layers = None if shared is None else list(shared)
            if layers is not None:
                mx.eval(layers)
            self._state = DecodeState(self._cache, layers)
        return self._state

    def _resize(self, slots: list[int | None]) -> None:
        """Keep the rows in ``slots``, in this order; ``None`` is a free place."""
        self._cache.take_rows(slots)
        self._state = self._block = None
