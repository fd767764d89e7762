"""What a session promises beside exactness: its states, events, flush, lag and errors."""

from __future__ import annotations

import numpy as np
import pytest

from tests.streaming.conftest import drain, random_splits
from voxmlx.errors import SessionClosedError
from voxmlx.streaming.iterate import finish, iterate
from voxmlx.types import Flushed, SegmentEnd, TextDelta, TokenScores, WordEnd


def run(session, pieces):
    return list(iterate(session, pieces))


def test_events_join_to_the_result(pipeline, audio):
    session = pipeline.stream()
    events = run(session, random_splits(audio, 0))
    result = session.result()

    assert "".join(e.text for e in events if isinstance(e, TextDelta)) == result.text != ""
    assert [e.word for e in events if isinstance(e, WordEnd)] == result.words != []
    assert [e.segment for e in events if isinstance(e, SegmentEnd)] == result.segments != []
    assert result.tokens == session.tokens
    assert result.duration_s == pytest.approx(len(audio) / 16000)
    assert result.timings.positions == len(result.tokens)
    assert 0 < result.timings.passes <= len(result.tokens)


def test_result_in_the_middle_holds_what_was_settled(pipeline, audio):
    session = pipeline.stream()
    session.feed(audio[:32000])
    text = "".join(e.text for e in drain(session) if isinstance(e, TextDelta))

    assert session.result().text == text != ""
    assert not session.done


def test_states(pipeline, audio):
    session = pipeline.stream()
    assert drain(session) == []  # the silence on the left
    assert (session.pending, session.done, session.tokens) == (False, False, [])
    session.feed(audio)
    assert session.pending
    drain(session)
    assert (session.pending, session.done) == (False, False)
    session.close()
    assert (session.pending, session.done) == (True, False)
    drain(session)
    assert (session.pending, session.done) == (False, True)
    assert session.step() == []


def test_closed_session_takes_nothing(pipeline):
    session = pipeline.stream()
    session.close()
    session.close()

    with pytest.raises(SessionClosedError, match=r"feed\(\) after close\(\); open a new session"):
        session.feed(np.zeros(1, np.float32))
    with pytest.raises(SessionClosedError, match=r"flush\(\) after close\(\)"):
        session.flush()


def test_empty_session_ends(pipeline):
    session = pipeline.stream()

    assert list(finish(session)) is not None
    assert session.done
    assert session.result().duration_s == 0


@pytest.mark.parametrize(
    "samples", [np.zeros((2, 2), np.float32), np.zeros(3), np.zeros(3, np.int16)]
)
def test_wrong_samples(pipeline, samples):
    with pytest.raises(ValueError, match=r"samples must be \(n,\) float32, got"):
        pipeline.stream().feed(samples)


def test_rate_may_not_change(pipeline):
    session = pipeline.stream()
    session.feed(np.zeros(10, np.float32), 8000)
    session.feed(np.zeros(10, np.float32))

    with pytest.raises(ValueError, match="sample_rate must stay 8000 Hz, got 16000"):
        session.feed(np.zeros(10, np.float32), 16000)


def test_wrong_options(pipeline):
    with pytest.raises(ValueError, match="transcription_delay_ms must be a multiple of 80"):
        pipeline.stream(transcription_delay_ms=100)
    with pytest.raises(ValueError, match="on_eos must be 'restart' or 'stop', got 'go'"):
        pipeline.stream(on_eos="go")
    with pytest.raises(TypeError, match="unexpected keyword"):
        pipeline.stream(colour="red")


@pytest.mark.parametrize("delay_ms", [80, 480, 2400])
def test_flush_is_silence_in_the_stream(pipeline, audio, delay_ms):
    cut = 20_000
    session = pipeline.stream(transcription_delay_ms=delay_ms, rut_guard=False)
    session.feed(audio[:cut])
    session.flush()
    assert session.flushing
    flushed = drain(session)
    assert not session.flushing
    n_flushed = len(session.tokens)
    events = run(session, [audio[cut:]])

    n = -cut % 1280 + (delay_ms // 80 + 11) * 1280
    padded = np.concatenate([audio[:cut], np.zeros(n, np.float32), audio[cut:]])
    whole = pipeline.generate(padded, sample_rate=16000, transcription_delay_ms=delay_ms)
    alone = pipeline.generate(audio[:cut], sample_rate=16000, transcription_delay_ms=delay_ms)
    assert session.tokens == whole.tokens
    assert session.tokens[:n_flushed] == alone.tokens[:-1] != []
    assert [e for e in flushed if isinstance(e, Flushed)] == [Flushed(cut / 16000)]
    assert session.duration_s == len(audio) / 16000
    words = session.result().words
    assert words == [e.word for e in flushed + events if isinstance(e, WordEnd)]
    assert all(a.end_s <= b.end_s for a, b in zip(words, words[1:], strict=False))
    assert words[-1].end_s <= session.duration_s


def test_words_before_a_flush_end_before_it(pipeline, audio):
    session = pipeline.stream()
    session.feed(audio[:20_000])
    session.flush()
    words = [e.word for e in drain(session) if isinstance(e, WordEnd)]

    assert words
    assert max(word.end_s for word in words) <= 20_000 / 16000


def test_flush_then_close_adds_nothing(pipeline, audio):
    whole = pipeline.generate(audio, sample_rate=16000)
    session = pipeline.stream(rut_guard=False)
    session.feed(audio)
    session.flush()
    session.flush()
    events = drain(session)
    session.flush()
    events += list(finish(session))

    assert session.tokens == whole.tokens
    assert sum(isinstance(e, Flushed) for e in events) == 1


def test_flush_of_nothing_does_nothing(pipeline):
    session = pipeline.stream()
    session.flush()

    assert not session.flushing
    assert drain(session) == []
    assert session.tokens == []


def test_many_flushes_keep_times(pipeline, audio):
    session = pipeline.stream()
    events = []
    for start in range(0, len(audio), 8000):
        session.feed(audio[start : start + 8000])
        session.flush()
        events += drain(session)
    events += list(finish(session))

    assert [e.end_s for e in events if isinstance(e, Flushed)] == [
        min(start + 8000, len(audio)) / 16000 for start in range(0, len(audio), 8000)
    ]
    words = [e.word for e in events if isinstance(e, WordEnd)]
    assert session.result().words == words
    assert max(word.end_s for word in words) <= session.duration_s


def test_lag(pipeline, audio):
    session = pipeline.stream()
    session.feed(audio)
    assert session.lag_s == pytest.approx(len(audio) / 16000)
    drain(session)
    assert 0 <= session.lag_s < 0.0825
    list(finish(session))
    assert session.lag_s < 0.0825


def test_lag_does_not_count_the_delay(pipeline):
    session = pipeline.stream(transcription_delay_ms=2400)
    for _ in range(20):
        session.feed(np.zeros(1280, np.float32))
        drain(session)
        assert session.lag_s < 0.0825
    assert session.tokens == []


def test_catches_up_with_few_encoder_calls(pipeline, audio):
    session = pipeline.stream()
    session.feed(audio)
    n_steps = 0
    while session.pending:
        session.step()
        n_steps += 1

    assert n_steps <= 10  # 32 + 39 positions, 8 a step


def test_token_scores(pipeline, audio):
    session = pipeline.stream(top_logprobs=3)
    events = run(session, [audio])
    scores = [e for e in events if isinstance(e, TokenScores)]

    assert [s.token_id for s in scores] == session.tokens
    assert [s.index for s in scores] == list(range(len(scores)))
    for score in scores:
        ids, logprobs = zip(*score.alternatives, strict=True)
        assert len(set(ids)) == 3
        assert list(logprobs) == sorted(logprobs, reverse=True)
        assert (ids[0], logprobs[0]) == (score.token_id, pytest.approx(score.logprob, abs=1e-5))
        assert score.logprob <= 1e-5


def test_scores_without_alternatives(pipeline, audio):
    scores = [
        e for e in run(pipeline.stream(top_logprobs=0), [audio]) if isinstance(e, TokenScores)
    ]

    assert scores and all(s.alternatives == () for s in scores)


def test_without_history(pipeline, audio):
    session = pipeline.stream(keep_history=False)
    events = run(session, [audio])

    assert any(isinstance(e, WordEnd) for e in events)
    assert session.tokens == []
    assert session.result().text == ""
    assert session.result().timings.positions > 0


def test_seed_decides_draws(pipeline, audio):
    def ids(seed):
        session = pipeline.stream(temperature=1.0, seed=seed)
        run(session, [audio])
        return session.tokens

    assert ids(1) == ids(1)
    assert ids(1) != ids(2)
