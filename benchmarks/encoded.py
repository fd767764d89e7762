"""Recordings encoded once and decoded many times: for measurements that vary only the decoding.

What the encoder makes of a recording depends on neither the delay nor the decoder's settings; a
longer delay only asks for more silence after it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from voxmlx.audio.decode import read_audio
from voxmlx.generation.batch import BatchDecoder
from voxmlx.generation.bias import ContextBias
from voxmlx.generation.encode import BatchEncoder
from voxmlx.generation.prompt import delay_tokens, right_padding
from voxmlx.generation.row import RowOptions, SpecialIds
from voxmlx.pipeline import Pipeline
from voxmlx.streaming.embedder import MelQueue
from voxmlx.streaming.files import file_positions

T = TypeVar("T")
Float32Array = npt.NDArray[np.float32]


def encode_files(
    pipeline: Pipeline, files: Mapping[str, Path], delay_ms: int, rows: int = 16
) -> dict[str, Float32Array]:
    """Audio embeddings of recordings with the silence around them, by name, ``(n, D)`` each.

    Args:
        pipeline: The model.
        files: Recordings by name.
        delay_ms: The longest delay that they are decoded with.
        rows: Recordings encoded at a time.
    """
    samples = {name: read_audio(path) for name, path in files.items()}
    names = sorted(samples, key=lambda name: len(samples[name]))
    found: dict[str, Float32Array] = {}
    for group in _groups(names, rows):
        found |= _encode_group(pipeline, {name: samples[name] for name in group}, delay_ms)
    return found


def _encode_group(
    pipeline: Pipeline, samples: Mapping[str, Float32Array], delay_ms: int
) -> dict[str, Float32Array]:
    config = pipeline.config
    per_token = config.audio.samples_per_token
    n_delay = delay_tokens(delay_ms, config.audio)
    encoder = BatchEncoder(pipeline.model, file_positions(), len(samples))
    queues: dict[int, MelQueue] = {}
    parts: dict[int, list[Float32Array]] = {}
    for x in samples.values():
        row = encoder.join()
        queues[row], parts[row] = MelQueue(config), []
        # Half a mel window more completes the last frame.
        right = right_padding(len(x), n_delay, per_token) + config.audio.window_size // 2
        queues[row].feed(np.pad(x, (0, right)))
    while any(queue.n_positions for queue in queues.values()):
        mel = {row: queue.take(encoder.max_positions) for row, queue in queues.items()}
        for row, audio in encoder.encode(mel).items():
            parts[row].append(np.array(audio[0].astype(mx.float32)))
    return dict(zip(samples, (np.concatenate(part) for part in parts.values()), strict=True))


def decode_all(
    pipeline: Pipeline,
    encoded: Mapping[str, Float32Array],
    delay_ms: int,
    longest_ms: int,
    *,
    bias: ContextBias | None = None,
    rows: int = 32,
) -> Iterator[tuple[str, str]]:
    """Decode every recording, several at a time; gives names and texts as they end.

    Args:
        pipeline: The model.
        encoded: What :func:`encode_files` gave.
        delay_ms: The delay.
        longest_ms: The delay that the recordings were encoded for.
        bias: Phrases to try in all recordings.
        rows: Recordings decoded at a time.
    """
    audio = pipeline.config.audio
    tokenizer = pipeline.tokenizer
    n_delay = delay_tokens(delay_ms, audio)
    n_less = delay_tokens(longest_ms, audio) - n_delay
    ids = SpecialIds(tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id)
    options = RowOptions(n_delay, positions_per_pass=1, bias=bias)
    decoder = BatchDecoder(pipeline.model, ids, min(rows, len(encoded)))
    waiting = iter(sorted(encoded.items(), key=lambda item: -len(item[1])))
    names: dict[int, str] = {}
    tokens: dict[int, list[int]] = {}
    while True:
        while len(names) < rows and (entry := next(waiting, None)) is not None:
            row = decoder.join(options)
            names[row], tokens[row] = entry[0], []
            decoder.add(row, mx.array(entry[1][None, : len(entry[1]) - n_less]))
        if not names:
            return
        for row, new in decoder.step().items():
            tokens[row] += [token.id for token in new]
        for row in [row for row in names if not decoder.n_ready(row)]:
            text = tokenizer.decode(i for i in tokens.pop(row) if i != tokenizer.eos_id)
            decoder.leave(row)
            yield names.pop(row), text.strip()


def _groups(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Neighbours in lists of ``size``."""
    items = list(items)
    for start in range(0, len(items), size):
        yield items[start : start + size]
