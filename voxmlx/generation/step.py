"""The one inner step of every decoding loop: positions in, logits out.

Plain, parallel and batched decoding differ in which tokens they place and which logits they keep;
all of them run :func:`decode_step`. On a GPU the step is traced once for each shape
(:class:`StepProgram`) and then replayed without Python; rings are inputs and outputs of the trace,
so they are written in place. On CUDA the kernels of :mod:`voxmlx.kernels.decode` write them.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from voxmlx.cache.ring import RingKVCache, RingPlace, ring_index
from voxmlx.cache.store import KVStore, RingIndex
from voxmlx.kernels.launch import on_device
from voxmlx.kernels.likeliest import likeliest
from voxmlx.kernels.rows import take_steps
from voxmlx.models.decoder import Conditioning
from voxmlx.models.voxtral_realtime import VoxtralRealtime


@dataclass
class DecodeState:
    """What the decoder remembers of its rows.

    Attributes:
        cache: Keys and values, one ring per layer.
        conditioning: What ``Decoder.conditioning`` gave for the rows' delay, whole or by layers.
    """

    cache: RingKVCache
    conditioning: Conditioning


def decode_step(
    model: VoxtralRealtime,
    state: DecodeState,
    tokens: mx.array,
    audio: mx.array,
    n_logits: int | mx.array,
) -> mx.array:
    """Run the next positions of every row and score the tokens that follow some of them.

    Args:
        model: The network.
        state: Advanced by T positions.
        tokens: Ids placed at the positions, ``(B, T)``.
        audio: Audio embeddings of the positions, ``(B, T, D)``.
        n_logits: How many of the last positions to score, or the positions of this step to score
            in each row, ``(B, N)``.

    Returns:
        ``(B, N, vocab)``.
    """
    hidden = model(tokens, audio, state.cache, state.conditioning)
    if isinstance(n_logits, int):
        hidden = hidden[:, -n_logits:]
    else:
        hidden = take_steps(hidden, n_logits, n_logits.shape[1])
    return model.decoder.logits(hidden)


class StepProgram:
    """:func:`decode_step`, traced once for each shape.

    The model's weights become constants of the trace: a model must not change after its first step.

    Args:
        model: The network.
    """

    def __init__(self, model: VoxtralRealtime):
        self._model = model
        self._store: KVStore | None = None
        self._traced = mx.compile(self._trace)

    def __call__(
        self, state: DecodeState, tokens: mx.array, audio: mx.array, n_logits: int | mx.array
    ) -> mx.array:
        """As :func:`decode_step` for the model at hand.

        On CUDA the rings are changed in place: a step must depend on the results of the one before,
        through its tokens or because those were read, or it may run first.
        """
        if not replays():
            return decode_step(self._model, state, tokens, audio, n_logits)
        (logits,) = self._run(state, tokens, audio, n_logits, choose=False)
        return logits

    def greedy(
        self, state: DecodeState, tokens: mx.array, audio: mx.array
    ) -> tuple[mx.array, mx.array]:
        """Run one position of every row and choose the likeliest tokens.

        Args:
            state: Advanced by one position.
            tokens: Ids placed at the positions, ``(B, 1)`` int32; they may still be on their way.
            audio: Audio embeddings of the positions, ``(B, 1, D)``.

        Returns:
            Ids, ``(B, 1)`` int32, and their log-probabilities, ``(B, 1)`` float32.
        """
        if not replays():
            return likeliest(decode_step(self._model, state, tokens, audio, 1))
        ids, logprobs = self._run(state, tokens, audio, 1, choose=True)
        return ids, logprobs

    def _run(
        self,
        state: DecodeState,
        tokens: mx.array,
        audio: mx.array,
        n_logits: int | mx.array,
        choose: bool,
    ) -> Sequence[mx.array]:
        cache = state.cache
        n_new = tokens.shape[1]
        in_place = cache.store.writes_in_place
        place = cache.place_in_place(n_new) if in_place else cache.place(n_new)
        self._store = cache.store
        outputs, changed = self._traced(
            tokens,
            audio,
            mx.array(cache.offsets, dtype=mx.int32),
            state.conditioning,
            n_logits,
            cache.store.buffers,
            *(place.n_new, place.capacity, place.n_read, place.window),
            contiguous=place.contiguous,
            in_place=in_place,
            choose=choose,
        )
        self._store = None  # or the rings would outlive their rows
        cache.store.buffers.update(changed)
        cache.advance(n_new)
        return outputs

    def _trace(
        self,
        tokens: mx.array,
        audio: mx.array,
        offset: mx.array,
        conditioning: Conditioning,
        n_logits: int | mx.array,
        buffers: dict[str, list[mx.array]],
        *sizes: int,
        contiguous: bool,
        in_place: bool,
        choose: bool,
    ) -> tuple[Sequence[mx.array], dict[str, list[mx.array]]]:
        n_new, capacity, n_read, window = sizes
        place = RingPlace(n_new, capacity, n_read, window, contiguous, in_place)
        store, index = traced_ring(self._store, buffers, offset, place)
        cache: Any = _TracedCache(store, index)
        logits = decode_step(self._model, DecodeState(cache, conditioning), tokens, audio, n_logits)
        outputs = likeliest(logits) if choose else (logits,)
        return outputs, {} if in_place else store.buffers


def traced_ring(
    store: KVStore | None, buffers: dict[str, list[mx.array]], offset: mx.array, place: RingPlace
) -> tuple[KVStore, RingIndex]:
    """A store around the arrays of a trace, and where its step writes and reads.

    Args:
        store: The one at hand; not changed.
        buffers: What the trace takes in place of its arrays.
        offset: Position of each row's first new entry, ``(B,)`` int32.
        place: The same for all rows.

    Raises:
        RuntimeError: If there is no store.
    """
    if store is None:
        raise RuntimeError("a trace without a cache")
    store = copy.copy(store)
    store.buffers = {name: list(layers) for name, layers in buffers.items()}
    return store, ring_index(on_device(offset), place)


def replays() -> bool:
    """Whether tracing pays: on a CPU it saves little, and compiling takes seconds a shape."""
    return mx.default_device().type != mx.cpu


class _TracedCache:
    """What a network asks of a cache, with everything decided beforehand."""

    def __init__(self, store: KVStore, index: RingIndex):
        self._index = index
        self.attend = store.attend
        self.attend_joined = store.attend_joined

    def prepare(self, n_new: int) -> RingIndex:
        return self._index

    def advance(self, n: int) -> None:
        """Nothing to count inside a trace."""


def step_program(model: VoxtralRealtime) -> StepProgram:
    """The model's own program; its traces serve all streams."""
    program: StepProgram | None = getattr(model, "_step_program", None)
    if program is None:
        program = StepProgram(model)
        model._step_program = program
    return program
