"""Running a model over a data set."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from voxmlx.audio.decode import open_audio
from voxmlx.engine.files import transcribe_files
from voxmlx.errors import AudioError
from voxmlx.evaluate.live import run_live
from voxmlx.evaluate.manifest import Utterance
from voxmlx.evaluate.normalize import Normalization, normalize
from voxmlx.evaluate.rates import character_counts, word_counts
from voxmlx.evaluate.results import Evaluation, Record
from voxmlx.offline import OfflinePipeline
from voxmlx.pipeline import Pipeline

TAIL_S = 1.0
"""Silence after a live recording beyond the delay, so that its last word settles as others do."""


def evaluate(
    pipeline: Pipeline | OfflinePipeline,
    utterances: Sequence[Utterance],
    *,
    delays: Sequence[int | None] = (None,),
    normalizer: Normalization = "auto",
    rows: int = 1,
    live: bool = False,
    model: str = "",
    data: str = "",
    on_record: Callable[[Record], None] | None = None,
    **options: Any,
) -> Evaluation:
    """Measure the errors of a model.

    Args:
        pipeline: The model.
        utterances: Recordings with references.
        delays: Delays to measure in ms; ``None`` is the model's own.
        normalizer: See :func:`voxmlx.evaluate.normalize.normalize`.
        rows: Recordings worked on at a time.
        live: Play every recording as if it came from a microphone, and measure latencies too; one
            recording at a time.
        model: Name of the model, for reports.
        data: Name of the data set, for reports.
        on_record: Called after each utterance.
        options: Fields of :class:`voxmlx.streaming.options.StreamOptions`.
    """
    bits, n_bytes = weight_bits(pipeline.model)
    result = Evaluation(model, round(bits, 2), round(n_bytes / 1e6, 3), data, normalizer)
    for delay in delays:
        if delay is None and isinstance(pipeline, Pipeline):
            delay = pipeline.config.delay_ms
        started = time.perf_counter()
        run = _run_live if live else _run_files
        for utterance, text, audio_s, latencies in run(
            pipeline, utterances, delay, rows, options, result.failures
        ):
            record = make_record(utterance, text, delay, audio_s, normalizer, latencies)
            result.records.append(record)
            if on_record is not None:
                on_record(record)
        result.elapsed_s[delay] = time.perf_counter() - started
    return result


def make_record(
    utterance: Utterance,
    text: str,
    delay_ms: int | None,
    audio_s: float,
    normalizer: Normalization = "auto",
    latencies_s: Sequence[float] = (),
) -> Record:
    """Compare a recognised text with its reference."""
    reference = normalize(utterance.text, utterance.language, normalizer)
    hypothesis = normalize(text, utterance.language, normalizer)
    return Record(
        id=utterance.id,
        language=utterance.language,
        delay_ms=delay_ms,
        reference=reference,
        hypothesis=hypothesis,
        audio_s=round(audio_s, 3),
        words=word_counts(reference, hypothesis),
        characters=character_counts(reference, hypothesis),
        latencies_s=tuple(round(value, 4) for value in latencies_s),
    )


def weight_bits(model: nn.Module) -> tuple[float, int]:
    """Mean bits of a weight, scales and unquantised weights included, and bytes of all."""
    n_weights = n_bytes = 0
    for _, module in model.named_modules():
        arrays = {name: a for name, a in module.items() if isinstance(a, mx.array)}
        arrays = {name: a for name, a in arrays.items() if not name.startswith("_")}
        n_bytes += sum(array.nbytes for array in arrays.values())
        if "scales" in arrays:
            n_weights += arrays["weight"].nbytes * 8 // module.bits
        else:
            n_weights += sum(array.size for array in arrays.values())
    return 8 * n_bytes / max(1, n_weights), n_bytes


_Run = Iterator[tuple[Utterance, str, float, Sequence[float]]]


def _run_files(
    pipeline: Pipeline | OfflinePipeline,
    utterances: Sequence[Utterance],
    delay_ms: int | None,
    rows: int,
    options: dict[str, Any],
    failures: dict[str, str],
) -> _Run:
    files = ((utterance, str(utterance.audio)) for utterance in utterances)
    for done in transcribe_files(
        pipeline, files, rows=rows, transcription_delay_ms=delay_ms, **options
    ):
        if done.result is None:
            failures[done.key.id] = str(done.error)
        else:
            yield done.key, done.result.text, done.result.duration_s, ()


def _run_live(
    pipeline: Pipeline | OfflinePipeline,
    utterances: Sequence[Utterance],
    delay_ms: int | None,
    rows: int,
    options: dict[str, Any],
    failures: dict[str, str],
) -> _Run:
    if isinstance(pipeline, OfflinePipeline):
        raise ValueError("live: the offline model takes whole recordings only")
    for utterance in utterances:
        try:
            with open_audio(str(utterance.audio)) as reader:
                samples = np.concatenate(list(reader))
        except AudioError as error:
            failures[utterance.id] = str(error)
            continue
        session = pipeline.stream(transcription_delay_ms=delay_ms, **options)
        tail_s = session.delay_ms / 1000 + TAIL_S
        latencies = run_live(session, samples, tail_s=tail_s)
        yield utterance, session.result().text, session.duration_s - tail_s, latencies
