"""Streams that the model ends, that grow beyond every window, and that run into ruts."""

from __future__ import annotations

import logging

import mlx.core as mx
import numpy as np
import pytest

from tests.oracle import native
from tests.streaming.conftest import EOS, EosAt, drain, random_splits
from voxmlx.cache.ring import RingKVCache
from voxmlx.generation.eos_hold import HOLD_TOKENS
from voxmlx.generation.prompt import streaming_prompt
from voxmlx.generation.row import RowOptions, SpecialIds
from voxmlx.streaming.backend import OwnBackend
from voxmlx.streaming.iterate import finish, iterate
from voxmlx.streaming.session import GPU_LIVE_ROWS, LIVE_ROWS
from voxmlx.types import Flushed, TextDelta, TokenScores

IDS = SpecialIds(1, EOS, 32)


def transcribe(pipeline, pieces, **options):
    session = pipeline.stream(**{"rut_guard": False, **options})
    return session, list(iterate(session, pieces))


def test_restart_keeps_the_clock(pipeline, audio):
    whole, _ = transcribe(pipeline, [audio], rules=(EosAt(10**6),))
    session, events = transcribe(pipeline, [audio], rules=(EosAt(12),))

    assert len(session.tokens) == len(whole.tokens)
    assert session.tokens[:12] == whole.tokens[:12]
    assert session.tokens[12] == EOS
    assert session.n_restarts == 1
    text = "".join(e.text for e in events if isinstance(e, TextDelta))
    assert text == session.result().text
    assert "</s>" not in text


@pytest.mark.parametrize("delay_ms", [80, 480])
def test_restart_gives_the_decoder_its_own_prompt_again(pipeline, audio, delay_ms):
    """The tokens after EOS are those of a fresh decoder over silence and the latest positions."""
    n_delay, at = delay_ms // 80, 12
    rules = (EosAt(at),)
    session, _ = transcribe(pipeline, [audio], rules=rules, transcription_delay_ms=delay_ms)

    padded = np.pad(audio, (32 * 1280, -len(audio) % 1280 + (n_delay + 11) * 1280 + 200))
    embedder = OwnBackend(pipeline.model).open_embedder(500)
    embedder.feed(padded[32 * 1280 :])
    rows = embedder.encode()
    first = 32 + n_delay + at + 1  # the position whose output follows the EOS
    fresh = OwnBackend(pipeline.model).open_tokens(IDS, RowOptions(n_delay, rules=(EosAt(10**6),)))
    assert len(streaming_prompt(1, 32, 32, n_delay)) == 32 + n_delay + 1
    fresh.add(mx.concatenate([rows[:, :32], rows[:, first - n_delay :]], axis=1))
    expected = [token.id for token in fresh.step(10**6)]

    assert session.tokens[at + 1 :][:HOLD_TOKENS] == expected[:HOLD_TOKENS]
    assert len(expected) >= HOLD_TOKENS


def test_restarts_do_not_depend_on_the_split(pipeline, audio):
    audio = np.tile(audio, 2)
    session, _ = transcribe(pipeline, [audio], rules=(EosAt(30),))
    assert session.n_restarts >= 2
    for seed in range(3):
        other, _ = transcribe(pipeline, random_splits(audio, seed, 8000), rules=(EosAt(30),))
        assert other.tokens == session.tokens


def test_eos_is_barred_after_a_restart(pipeline, audio):
    session, _ = transcribe(pipeline, [np.tile(audio, 2)], rules=(EosAt(5),))

    assert session.tokens.count(EOS) == 1  # the forced one of the second decoder fell into the bar


def test_eos_behind_the_audio_is_believed(pipeline, audio):
    n_audio = -(-len(audio) // 1280)
    session, _ = transcribe(pipeline, [audio], rules=(EosAt(n_audio + 1),))

    assert session.tokens[-1] == EOS
    assert len(session.tokens) == n_audio + 2
    assert session.n_restarts == 0
    assert session.done


def test_stop_warns_of_unheard_audio(pipeline, audio, caplog):
    with caplog.at_level(logging.WARNING):
        session, _ = transcribe(
            pipeline, random_splits(audio, 0, 20_000), on_eos="stop", rules=(EosAt(6),)
        )

    assert session.tokens[-1] == EOS
    assert len(session.tokens) == 7
    assert session.ended and session.done
    assert [r.message for r in caplog.records] == [
        "the model ended the stream at 0.6 s and audio goes on; "
        "on_eos='restart' transcribes the rest"
    ]


def test_stop_warns_where_all_was_fed_before(pipeline, audio, caplog):
    session = pipeline.stream(on_eos="stop", rules=(EosAt(6),))
    session.feed(audio)
    session.close()
    with caplog.at_level(logging.WARNING):
        drain(session)

    assert len(caplog.records) == 1


def test_stop_near_the_end_is_silent(pipeline, audio, caplog):
    n_audio = -(-len(audio) // 1280)
    with caplog.at_level(logging.WARNING):
        transcribe(pipeline, [audio], on_eos="stop", rules=(EosAt(n_audio - 10),))

    assert caplog.records == []


def test_flush_of_an_ended_session_is_settled(pipeline, audio):
    session = pipeline.stream(on_eos="stop", rules=(EosAt(3),))
    session.feed(audio)
    drain(session)
    session.flush()

    assert [e for e in drain(session) if isinstance(e, Flushed)] == [Flushed(len(audio) / 16000)]
    assert list(finish(session)) is not None


def test_reanchored_ids_are_equal(pipeline, monkeypatch):
    audio = np.concatenate([native.speech_like(8, seed) for seed in range(2)])
    plain, _ = transcribe(pipeline, [audio])
    count = [0]
    init, reanchor = RingKVCache.__init__, RingKVCache.reanchor

    def counted(cache):
        before = cache.offsets
        reanchor(cache)
        count[0] += cache.offsets != before

    def eager(cache, *args, **kwargs):
        init(cache, *args, **kwargs)
        cache.reanchor_at = 0

    monkeypatch.setattr(RingKVCache, "reanchor", counted)
    monkeypatch.setattr(RingKVCache, "__init__", eager)
    session, _ = transcribe(pipeline, [audio])

    assert count[0] >= 5
    assert session.tokens == plain.tokens
    assert len(set(plain.tokens)) > 20


@pytest.mark.parametrize(("on_gpu", "n"), [(False, LIVE_ROWS), (True, GPU_LIVE_ROWS)])
def test_rings_hold_their_windows_and_one_step(pipeline, audio, monkeypatch, on_gpu, n):
    """A live session asks for little more; long passes, such as the prompt's, are cut."""
    plain, _ = transcribe(pipeline, [audio])
    monkeypatch.setattr("voxmlx.streaming.session.replays", lambda: on_gpu)
    session, _ = transcribe(pipeline, [audio])
    encoder = session._embedder._state.cache
    decoder = session._stream._stream._decoder._cache

    config = pipeline.config
    assert encoder.capacity == config.encoder.sliding_window + n * config.downsample_factor
    assert decoder.capacity == config.decoder.sliding_window + decoder.max_step
    assert decoder.max_step >= n
    assert session.tokens == plain.tokens
    assert (session.timings.passes >= len(session.tokens)) == on_gpu


def test_rut_guard_ends_a_rut(pipeline):
    """The pad wins everywhere, but by less than the guard's cap, as in a false rut."""
    audio = native.speech_like(18.5, 3)
    session, events = transcribe(pipeline, [audio], rules=(Lead(32, 40.0),), top_logprobs=2)
    assert session.tokens == [32] * len(session.tokens)
    scores = [e.alternatives for e in events if isinstance(e, TokenScores)]
    pads = Lead(32, 41.0 - min(best[1] - second[1] for best, second in scores))

    without, _ = transcribe(pipeline, [audio], rules=(pads,))
    guarded, _ = transcribe(pipeline, [audio], rules=(pads,), rut_guard=True)

    assert without.tokens == [32] * len(without.tokens)
    assert guarded.tokens[:201] == [32] * 201
    assert any(token != 32 for token in guarded.tokens[201:])


class Lead:
    """A logit rule that favours one token."""

    initial = 0

    def __init__(self, token_id: int, lead: float):
        self._bias = {token_id: lead}

    def next(self, state: int, token_id: int) -> int:
        return state

    def bias(self, state: int) -> dict[int, float]:
        return self._bias
