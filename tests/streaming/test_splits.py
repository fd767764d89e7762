"""Any split of the audio gives the ids of the whole."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from tests.streaming.conftest import drain, random_splits
from voxmlx.audio.mel import LogMelSpectrogram
from voxmlx.streaming.embedder import AudioEmbedder, MelQueue
from voxmlx.streaming.iterate import iterate
from voxmlx.streaming.session import StreamingSession

DELAYS_MS = (80, 480, 2400)


def check_splits(pipeline, audio, delay_ms: int, seeds: range) -> None:
    whole = pipeline.generate(audio, sample_rate=16000, transcription_delay_ms=delay_ms)
    assert len(set(whole.tokens)) > 10
    for seed in seeds:
        session = pipeline.stream(transcription_delay_ms=delay_ms, rut_guard=False)
        for _ in iterate(session, random_splits(audio, seed)):
            pass
        assert session.tokens == whole.tokens, f"seed {seed}"


@pytest.mark.parametrize("delay_ms", DELAYS_MS)
def test_ids(pipeline, audio, delay_ms):
    check_splits(pipeline, audio, delay_ms, range(6))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("delay_ms", DELAYS_MS)
def test_ids_of_200_splits(pipeline, audio, delay_ms):
    check_splits(pipeline, audio, delay_ms, range(200))


def test_mel_and_embeddings(pipeline, audio):
    config = pipeline.config
    padded = np.pad(audio, (config.n_left_pad_tokens * 1280, 0))
    frames = LogMelSpectrogram(config.audio)(padded)[: len(padded) // 1280 * 8]
    rows = np.array(pipeline.model.embed_audio(mx.array(frames)[None]))[0]
    for seed in range(20):
        mel, embedder = MelQueue(config), AudioEmbedder(pipeline.model, 25)
        mel_parts, row_parts = [], []
        for samples in random_splits(audio, seed):
            mel.feed(samples)
            embedder.feed(samples)
            mel_parts.append(mel.take(1000))
            while embedder.n_ready:
                row_parts.append(np.array(embedder.encode())[0])
        got_mel, got_rows = np.concatenate(mel_parts), np.concatenate(row_parts)
        assert len(got_mel) >= len(frames) - 8  # the last position reaches beyond the audio
        assert np.array_equal(got_mel, frames[: len(got_mel)])
        assert got_rows.shape == (len(got_mel) // 8, config.decoder.dim)
        # Sums of another length are rounded differently: 1e-5 of values near 1.
        assert np.abs(got_rows - rows[: len(got_rows)]).max() < 3e-5


@pytest.mark.parametrize("size", [1, 7, 1279, 1281])
def test_pieces_of_one_size(pipeline, audio, size):
    audio = audio[:12_001]
    whole = pipeline.generate(audio, sample_rate=16000)
    session = pipeline.stream(rut_guard=False)
    for start in range(0, len(audio), size):
        session.feed(audio[start : start + size])
        drain(session)
    session.close()
    drain(session)

    assert session.tokens == whole.tokens


@pytest.mark.parametrize("max_positions", [1, 3])
def test_bounded_steps(pipeline, audio, max_positions):
    whole = pipeline.generate(audio, sample_rate=16000)
    session = pipeline.stream(rut_guard=False)
    session.feed(audio)
    session.close()
    before = 0
    while not session.done:
        session.step(max_positions)
        assert len(session.tokens) - before <= max_positions
        before = len(session.tokens)

    assert session.tokens == whole.tokens


def test_encoder_calls_of_any_size(pipeline, audio):
    whole = pipeline.generate(audio, sample_rate=16000)
    for rows in (1, 2, 5, 70):
        session = StreamingSession(pipeline.model, pipeline.tokenizer, encode_rows=rows)
        for _ in iterate(session, [audio]):
            pass
        assert session.tokens == whole.tokens


def test_another_sample_rate(pipeline, audio):
    slow = np.repeat(audio, 3)  # 48 kHz, to be filtered
    whole = pipeline.generate(slow, sample_rate=48000)
    session = pipeline.stream(rut_guard=False)
    for _ in iterate(session, random_splits(slow, 5), 48000):
        pass

    assert session.tokens == whole.tokens
    assert session.duration_s == pytest.approx(len(slow) / 48000, abs=1e-3)
