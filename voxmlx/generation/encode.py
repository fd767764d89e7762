"""Many streams through one encoder: mel frames in, audio embeddings out, one pass for all rows.

A row's convolution tails and keys stay in its place of the batch. Rows bring any number of whole
positions (8 mel frames); what a row does not fill is computed and forgotten, as in
:mod:`voxmlx.generation.batch`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np

from voxmlx.cache.ring import RingPlace
from voxmlx.cache.store import KVStore, RowSlots
from voxmlx.config import KVCacheConfig
from voxmlx.generation.slots import Slots, round_up
from voxmlx.generation.step import replays, traced_ring
from voxmlx.kernels.launch import device_is_cuda
from voxmlx.models.encoder import EncoderState
from voxmlx.models.voxtral_realtime import VoxtralRealtime

GROUP_SIZES = (1, 2, 4, 8, 12, 16, 25, 50, 100, 150)
"""Positions of one pass are rounded up to these."""

FEW_POSITIONS = 8
"""Up to so many positions a pass is replayed whatever its length: live audio brings them all. Other
lengths of one stream are divided into GROUP_SIZES."""


class EncodeProgram:
    """``embed_audio`` of a stream's next frames, traced once for each shape where that pays.

    As :class:`voxmlx.generation.step.StepProgram`: weights become constants of the trace, rings are
    inputs and outputs, so that they are written in place.

    Args:
        model: The network.
    """

    def __init__(self, model: VoxtralRealtime):
        self._model = model
        self._store: KVStore | None = None
        self._traced = mx.compile(self._trace)

    def __call__(
        self, mel: mx.array, state: EncoderState, n_valid: Sequence[int] | None = None
    ) -> mx.array:
        """As :meth:`VoxtralRealtime.embed_audio` for the model at hand.

        On CUDA without kernels of our own nothing is traced: MLX compiles what a trace fuses for
        longer than half a minute there.
        """
        frames = self._model.config.frames_per_token
        n_positions = mel.shape[1] // frames
        in_place = state.cache.store.writes_in_place
        compiles_long = device_is_cuda() and not in_place
        if not replays() or compiles_long or not n_positions:
            return self._model.embed_audio(mel, state, n_valid)
        if n_positions not in GROUP_SIZES and n_positions > FEW_POSITIONS:
            if n_valid is not None:
                return self._model.embed_audio(mel, state, n_valid)
            first = frames * max(n for n in GROUP_SIZES if n < n_positions)
            return mx.concatenate([self(mel[:, :first], state), self(mel[:, first:], state)], 1)
        if n_valid is not None and all(n == mel.shape[1] for n in n_valid):
            n_valid = None
        cache, n_new = state.cache, mel.shape[1] // 2
        place = cache.place_in_place(n_new) if in_place else cache.place(n_new)
        self._store = cache.store
        rows, tails, changed = self._traced(
            mel,
            (state.conv1_tail, state.conv2_tail),
            mx.array(cache.offsets, dtype=mx.int32),
            None if n_valid is None else mx.array(list(n_valid), dtype=mx.int32),
            cache.store.buffers,
            *(place.n_new, place.capacity, place.n_read, place.window),
            contiguous=place.contiguous,
            in_place=in_place,
        )
        self._store = None  # or the rings would outlive their rows
        if in_place:
            mx.async_eval(rows)  # now, as the next step reads what this one leaves in the rings
        state.conv1_tail, state.conv2_tail = tails
        cache.store.buffers.update(changed)
        cache.advance(n_new if n_valid is None else [n // 2 for n in n_valid])
        return rows

    def _trace(
        self,
        mel: mx.array,
        tails: Sequence[mx.array | None],
        offset: mx.array,
        n_valid: mx.array | None,
        buffers: dict[str, list[mx.array]],
        *sizes: int,
        contiguous: bool,
        in_place: bool,
    ) -> tuple[mx.array, tuple[mx.array, mx.array], dict[str, list[mx.array]]]:
        n_new, capacity, n_read, window = sizes
        place = RingPlace(n_new, capacity, n_read, window, contiguous, in_place)
        store, index = traced_ring(self._store, buffers, offset, place)
        cache: Any = store  # the layers ask it for attention alone
        x, left = self._model.encoder.convolve(mel, tails, n_valid)
        rows = self._model.encoder.attend(x, cache, index)
        rows = self._model.adapter(rows).astype(self._model.dtype)
        return rows, left, {} if in_place else store.buffers


def encode_program(model: VoxtralRealtime) -> EncodeProgram:
    """The model's own program; its traces serve all streams."""
    program: EncodeProgram | None = getattr(model, "_encode_program", None)
    if program is None:
        program = EncodeProgram(model)
        model._encode_program = program
    return program


@dataclass(frozen=True)
class EncodedStart:
    """The first positions of streams that begin alike, and what they leave in a row.

    Attributes:
        audio: Their embeddings, ``(1, n, D)``.
        tails: What the convolutions keep.
        slots: Keys and values.
    """

    audio: mx.array
    tails: tuple[mx.array, mx.array]
    slots: RowSlots


class BatchEncoder:
    """Encode any number of streams together.

    A row is named by the number that :meth:`join` returned; numbers are not used again.

    Args:
        model: The network.
        max_positions: Most positions (80 ms) of a row in one pass.
        max_rows: Most rows at a time.
        kv: How keys and values are compressed; ``None`` keeps them as they are.
        reserve: Whether memory for all rows with full windows is held from the start.
    """

    def __init__(
        self,
        model: VoxtralRealtime,
        max_positions: int = 25,
        max_rows: int = 64,
        kv: KVCacheConfig | None = None,
        reserve: bool = False,
    ):
        self.max_positions = max_positions
        self._model = model
        self._kv = kv
        self._sizes = (*(n for n in GROUP_SIZES if n < max_positions), max_positions)
        n_frames = max_positions * model.config.downsample_factor
        self._slots = Slots(max_rows, self._resize, reserve)
        self._state = model.encoder.make_state(n_frames, self._slots.size, kv)
        if reserve:
            self._state.cache.reserve(self._state.cache.full_capacity)
        self._program = encode_program(model)

    @property
    def n_rows(self) -> int:
        """Rows that have joined and not left."""
        return len(self._slots)

    @property
    def nbytes(self) -> int:
        """Bytes held by keys and values."""
        return self._state.cache.nbytes

    def start_of(self, mel: np.ndarray) -> EncodedStart | None:
        """Encode a beginning once for all rows that :meth:`join` with it.

        Args:
            mel: Its frames, ``(8 * n, n_mels)``; there is no such beginning if they fill a ring.
        """
        n_frames = self.max_positions * self._model.config.downsample_factor
        state = self._model.encoder.make_state(n_frames, kv=self._kv)
        if not 0 < len(mel) // 2 <= state.cache.full_capacity:
            return None
        step = self.max_positions * self._model.config.frames_per_token
        parts = [
            self._program(mx.array(mel[None, i : i + step]), state)
            for i in range(0, len(mel), step)
        ]
        audio = mx.concatenate(parts, axis=1)
        mx.eval(audio, state.conv1_tail, state.conv2_tail)
        if state.conv1_tail is None or state.conv2_tail is None:
            return None
        tails = state.conv1_tail, state.conv2_tail
        return EncodedStart(audio, tails, state.cache.row_slots(0))

    def join(self, start: EncodedStart | None = None) -> int:
        """Begin a stream, behind ``start`` if one is given, and return its row.

        Raises:
            ValueError: If ``max_rows`` rows are there already.
        """
        row = self._slots.join()
        slot = self._slots[row]
        self._state.clear_row(slot)
        if start is not None:
            n = start.audio.shape[1] * self._model.config.downsample_factor
            self._state.begin_row(slot, start.tails, start.slots, n)
        return row

    def leave(self, row: int) -> None:
        """Remove a row; its place is free for another."""
        self._slots.leave(row)

    def encode(self, mel: Mapping[int, np.ndarray]) -> dict[int, mx.array]:
        """Embed the next frames of some rows, in one pass.

        Args:
            mel: Frames of each row, ``(8 * n, n_mels)`` float32; ``n`` may differ between rows and
                is at most ``max_positions``.

        Returns:
            Audio embeddings, ``(1, n, D)`` each, not evaluated.

        Raises:
            ValueError: If frames do not make whole positions, or too many.
        """
        per_position = self._model.config.frames_per_token
        counts = {row: len(frames) // per_position for row, frames in mel.items()}
        for row, frames in mel.items():
            if len(frames) % per_position or counts[row] > self.max_positions:
                raise ValueError(
                    f"row {row}: frames must be a multiple of {per_position} and at most "
                    f"{per_position * self.max_positions}, got {len(frames)}"
                )
        if not any(counts.values()):
            empty = mx.zeros((1, 0, self._model.config.decoder.dim), self._model.dtype)
            return dict.fromkeys(mel, empty)
        n_max = round_up(max(counts.values()), self._sizes)
        n_mels = self._model.config.audio.n_mels
        frames_in = np.zeros((self._slots.size, n_max * per_position, n_mels), np.float32)
        n_valid = [0] * self._slots.size
        for row, frames in mel.items():
            slot = self._slots[row]
            frames_in[slot, : len(frames)] = frames
            n_valid[slot] = len(frames)
        rows = self._program(mx.array(frames_in), self._state, n_valid)
        return {row: rows[self._slots[row] : self._slots[row] + 1, : counts[row]] for row in mel}

    def _resize(self, slots: list[int | None]) -> None:
        self._state.take_rows(slots)
