"""How fast a network transcribes: times, passes, memory, bytes. Knows no text, no tokenizer."""

from __future__ import annotations

import collections
import dataclasses
import re
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from voxmlx.generation.batch import BatchDecoder
from voxmlx.generation.encode import BatchEncoder
from voxmlx.generation.prompt import delay_tokens, right_padding
from voxmlx.generation.row import RowOptions, SpecialIds
from voxmlx.generation.step import DecodeState, decode_step
from voxmlx.kernels.host import on_host
from voxmlx.models.voxtral_realtime import VoxtralRealtime
from voxmlx.streaming.embedder import MelQueue

NO_EOS = SpecialIds(bos=1, eos=-1, pad=32)
"""Ids of the released tokenizer, without an end: every position is decoded."""

ONE_ROW_POSITIONS = 50
MANY_ROWS_POSITIONS = 25
"""Positions of a row in one encoder pass: 4 s of a recording alone, 2 s of each in a batch."""

PARTS = (8, 4, 2, 1)
"""Parts of a recording that show how time grows with length: an eighth of it to all."""

BATCH_PART = 4
"""The part that batches are made of."""

VIEWS = frozenset(
    "Broadcast Depends ExpandDims Flatten Reshape Slice Split Squeeze Transpose Unflatten".split()
)
"""Operations of MLX's graph that move nothing."""


@dataclass(frozen=True)
class Measurement:
    """One run over one or more rows of audio.

    Attributes:
        audio_s: Audio of all rows.
        rows: Recordings decoded together.
        encode_s: Mel and encoder, until the device was given all of it.
        first_token_s: From the start to the first token.
        total_s: From the start to the last token.
        tokens: Of all rows.
        passes: Through the decoder.
        peak_gb: Largest memory of the device, weights included.
        decoder_gb: Weights that every pass reads.
        ids: What each row wrote; no number, so not in :meth:`as_dict`.
    """

    audio_s: float
    rows: int
    encode_s: float
    first_token_s: float
    total_s: float
    tokens: int
    passes: int
    peak_gb: float
    decoder_gb: float
    ids: tuple[tuple[int, ...], ...]

    @property
    def rtf(self) -> float:
        """Real-time factor: time for one second of audio."""
        return self.total_s / self.audio_s

    def as_dict(self) -> dict[str, float]:
        """All numbers, those that follow from others included."""
        decode_s = self.total_s - self.encode_s
        numbers = dataclasses.asdict(self)
        del numbers["ids"]
        return {
            **numbers,
            "rtf": self.rtf,
            "positions_per_pass": self.tokens / self.passes,
            "ms_per_pass": 1e3 * decode_s / self.passes,
            "positions_per_s": self.tokens / decode_s,
            "weight_gb_per_position": self.decoder_gb * self.passes / self.tokens,
        }


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    """Noise that comes and goes like syllables, ``(n,)`` float32 at 16 kHz."""
    rng = np.random.default_rng(seed)
    n = int(16000 * seconds)
    envelope = np.abs(np.sin(np.arange(n) * (2 * np.pi * 3 / 16000)))
    return (0.1 * envelope * rng.standard_normal(n)).astype(np.float32)


def decoder_bytes(model: VoxtralRealtime) -> int:
    """Bytes of weights that one pass reads: layers and head; the delay's part is constant."""
    parameters: Any = tree_flatten(model.decoder.parameters())
    return sum(x.nbytes for name, x in parameters if "ada_norm" not in name)


def count_operations(result: mx.array) -> tuple[int, int]:
    """Operations that compute, and views, in the graph of a result that is not computed yet."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "graph.dot")
        mx.export_to_dot(str(path), result)
        kinds = collections.Counter(re.findall(r'label ?= ?"([A-Za-z]+)"', path.read_text()))
    views = sum(n for kind, n in kinds.items() if kind in VIEWS)
    return kinds.total() - views, views


def step_operations(model: VoxtralRealtime) -> tuple[int, int] | None:
    """:func:`count_operations` of a step of one position, up to its token.

    ``None`` where NumPy multiplies, outside MLX's graph. MLX spells the norm, the rotation and
    attention out on a CPU, so there are more operations there than on a GPU.
    """
    if on_host(model.dtype):
        return None
    decoder = model.decoder
    state = DecodeState(decoder.make_cache(1, window=64), decoder.conditioning(6))
    audio = mx.zeros((1, 1, model.config.decoder.dim), model.dtype)
    mx.eval(state.conditioning, state.cache.store.buffers)
    return count_operations(mx.argmax(decode_step(model, state, mx.array([[0]]), audio, 1), -1))


def measure(
    model: VoxtralRealtime,
    clips: Sequence[np.ndarray],
    *,
    transcription_delay_ms: int = 480,
    positions_per_pass: int | None = None,
    ids: SpecialIds = NO_EOS,
) -> Measurement:
    """Transcribe recordings as rows of one batch.

    Args:
        model: The network.
        clips: 16 kHz samples of each row, ``(n,)`` float32.
        transcription_delay_ms: The delay of all rows.
        positions_per_pass: See :class:`voxmlx.generation.row.RowOptions`.
        ids: Special ids; an ``eos`` that the model writes ends its row.
    """
    audio = model.config.audio
    n_delay = delay_tokens(transcription_delay_ms, audio)
    mx.clear_cache()
    mx.reset_peak_memory()
    started = time.perf_counter()
    decoder = BatchDecoder(model, ids)
    encoder = BatchEncoder(model, ONE_ROW_POSITIONS if len(clips) == 1 else MANY_ROWS_POSITIONS)
    queues: dict[int, MelQueue] = {}
    rows: dict[int, int] = {}
    for clip in clips:
        row = encoder.join()
        rows[row] = decoder.join(RowOptions(n_delay, positions_per_pass=positions_per_pass))
        queues[row] = MelQueue(model.config)
        queues[row].feed(clip)
        padding = right_padding(len(clip), n_delay, audio.samples_per_token)
        queues[row].feed(np.zeros(padding + audio.window_size // 2, np.float32))
    while any(queue.n_positions for queue in queues.values()):
        mel = {row: q.take(encoder.max_positions) for row, q in queues.items() if q.n_positions}
        for row, embeddings in encoder.encode(mel).items():
            decoder.add(rows[row], embeddings)
            mx.async_eval(embeddings)
    encoded = time.perf_counter()
    first = 0.0
    written: dict[int, list[int]] = {row: [] for row in rows.values()}
    while any(decoder.n_ready(row) for row in rows.values()):
        for row, tokens in decoder.step().items():
            written[row] += [token.id for token in tokens]
        if not first and any(written.values()):
            first = time.perf_counter() - started
    total_s = time.perf_counter() - started
    return Measurement(
        audio_s=sum(len(clip) for clip in clips) / audio.sample_rate,
        rows=len(clips),
        encode_s=encoded - started,
        first_token_s=first,
        total_s=total_s,
        tokens=sum(map(len, written.values())),
        passes=decoder.n_passes,
        peak_gb=mx.get_peak_memory() / 1e9,
        decoder_gb=decoder_bytes(model) / 1e9,
        ids=tuple(map(tuple, written.values())),
    )


def measure_best(
    model: VoxtralRealtime, clips: Sequence[np.ndarray], runs: int, **options: Any
) -> Measurement:
    """The quickest of some runs of :func:`measure`."""
    found = [measure(model, clips, **options) for _ in range(runs)]
    return min(found, key=lambda result: result.total_s)


@dataclass(frozen=True)
class Sweep:
    """How time depends on length and on the size of a batch.

    Attributes:
        by_length: One row each, shortest first: the :data:`PARTS` of the audio.
        by_rows: Batches of the part :data:`BATCH_PART`.
        same_ids: Of each batch, the share of its ids that are those of one row alone.
    """

    by_length: list[Measurement]
    by_rows: list[Measurement]
    same_ids: list[float]


def sweep(
    model: VoxtralRealtime, samples: np.ndarray, rows: Sequence[int], runs: int, **options: Any
) -> Sweep:
    """Measure parts of a recording alone, and copies of one part together.

    Args:
        model: The network.
        samples: The recording, 16 kHz, ``(n,)`` float32.
        rows: Sizes of batches.
        runs: Runs of each; the quickest counts.
        options: Of :func:`measure`.
    """
    clips = {part: samples[: max(1, len(samples) // part)] for part in PARTS}
    lengths = {part: measure_best(model, [clip], runs, **options) for part, clip in clips.items()}
    batches = [measure_best(model, [clips[BATCH_PART]] * n, runs, **options) for n in rows]
    alone = lengths[BATCH_PART]
    return Sweep(list(lengths.values()), batches, [same_ids(found, alone) for found in batches])


def same_ids(found: Measurement, alone: Measurement) -> float:
    """Share of all rows' ids that are those of one row alone, place by place."""
    (expected,) = alone.ids
    pairs = [pair for row in found.ids for pair in zip(row, expected, strict=False)]
    return sum(a == b for a, b in pairs) / max(found.tokens, found.rows * alone.tokens)
