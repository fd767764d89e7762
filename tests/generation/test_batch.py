"""Every way of decoding gives the tokens of the plain loop, one position at a time."""

from __future__ import annotations

from dataclasses import dataclass, replace

import mlx.core as mx
import pytest

from tests.generation.tiny_model import IDS, random_audio, tiny_realtime
from voxmlx.generation.batch import BatchDecoder
from voxmlx.generation.greedy import TokenStream
from voxmlx.generation.row import RowOptions
from voxmlx.generation.step import DecodeState, decode_step

N_AUDIO = 110
"""Over five windows of the tiny model."""


def plain_ids(model, audio, n_delay):
    """The reference: one position at a time, no row, no batch, no guess."""
    prompt = [IDS.bos] + [IDS.pad] * (model.config.n_left_pad_tokens + n_delay)
    state = DecodeState(model.decoder.make_cache(64), model.decoder.conditioning(n_delay))
    n = len(prompt)
    logits = decode_step(model, state, mx.array([prompt]), audio[:, :n], 1)
    ids = [int(mx.argmax(logits[0, -1]))]
    for position in range(n, audio.shape[1]):
        if ids[-1] == IDS.eos:
            break
        embedding = audio[:, position : position + 1]
        logits = decode_step(model, state, mx.array([[ids[-1]]]), embedding, 1)
        ids.append(int(mx.argmax(logits[0, -1])))
    return ids


def run_stream(model, audio, options, piece=None):
    stream = TokenStream(model, IDS, options)
    tokens = []
    for start in range(0, audio.shape[1], piece or audio.shape[1]):
        stream.add(audio[:, start : start + (piece or audio.shape[1])])
        tokens += stream.step(10**6)
    assert [t.index for t in tokens] == list(range(len(tokens)))
    return tokens, stream


@pytest.fixture(scope="module")
def model():
    return tiny_realtime(3)


@pytest.fixture(scope="module")
def clips(model):
    audio = {n_delay: random_audio(N_AUDIO, seed=n_delay) for n_delay in (1, 6, 30)}
    return {n: (clip, plain_ids(model, clip, n)) for n, clip in audio.items()}


@pytest.mark.parametrize("n_delay", [1, 6, 30])
@pytest.mark.parametrize("width", [*range(1, 17), 24, 33, 48, 63, 64, None])
def test_guessing_changes_no_token(model, clips, n_delay, width):
    audio, expected = clips[n_delay]

    tokens, stream = run_stream(model, audio, RowOptions(n_delay, positions_per_pass=width))

    assert [t.id for t in tokens] == expected
    if n_delay == 6 and width is not None and width > 1:
        assert stream.n_passes < len(expected)  # some guesses were right


def test_some_clip_ends_early_inside_a_guess():
    found = 0
    for seed in range(12):
        model = tiny_realtime(seed)
        audio = random_audio(N_AUDIO, seed)
        expected = plain_ids(model, audio, 6)
        ended = expected[-1] == IDS.eos and len(expected) < N_AUDIO - 38
        tokens, stream = run_stream(model, audio, RowOptions(6, positions_per_pass=64))
        assert [t.id for t in tokens] == expected
        assert stream.finished == (expected[-1] == IDS.eos)
        found += ended and stream.n_passes < len(expected)
        assert stream.step(5) == [] or not stream.finished
    assert found


@pytest.mark.parametrize("piece", [1, 7])
@pytest.mark.parametrize("width", [1, 5, None])
def test_audio_in_pieces_changes_no_token(model, clips, piece, width):
    audio, expected = clips[6]

    tokens, _ = run_stream(model, audio, RowOptions(6, positions_per_pass=width), piece)

    assert [t.id for t in tokens] == expected


@pytest.mark.parametrize("max_tokens", [1, 3])
def test_a_step_keeps_to_its_limit(model, clips, max_tokens):
    audio, expected = clips[6]
    stream = TokenStream(model, IDS, RowOptions(6, positions_per_pass=8))
    stream.add(audio)

    ids = []
    while stream.n_ready:
        tokens = stream.step(max_tokens)
        assert len(tokens) <= max_tokens
        ids += [t.id for t in tokens]

    assert ids == expected
    assert stream.step(0) == []


@pytest.mark.parametrize("n_rows", [1, 2, 5, 32])
@pytest.mark.parametrize("width", [1, 4, None])
def test_rows_that_join_and_leave_equal_the_row_alone(model, n_rows, width):
    decoder = BatchDecoder(model, IDS)
    lengths = [40 + 7 * (i % 9) for i in range(n_rows + 3)]
    delays = [1 + i % 6 for i in range(len(lengths))]
    clips = [random_audio(n, seed=i) for i, n in enumerate(lengths)]
    expected = [plain_ids(model, clip, n) for clip, n in zip(clips, delays, strict=True)]
    waiting, rows, got = list(range(len(clips))), {}, {}
    turn = 0
    while waiting or rows:
        while waiting and len(rows) < n_rows:
            i = waiting.pop(0)
            key = decoder.join(RowOptions(delays[i], positions_per_pass=width))
            rows[key], got[i] = i, []
            decoder.add(key, clips[i][:, :20])
            if turn % 2:
                decoder.add(key, clips[i][:, 20:])
        for key, tokens in decoder.step().items():
            got[rows[key]] += [t.id for t in tokens]
        for key, i in list(rows.items()):
            if decoder.n_ready(key):
                continue
            if turn % 2 == 0 and not got[i] and not decoder.finished(key):
                decoder.add(key, clips[i][:, 20:])
            else:
                decoder.leave(key)
                del rows[key]

    assert [got[i] for i in range(len(clips))] == expected
    assert decoder.n_rows == 0


@dataclass(frozen=True)
class EveryThird:
    """Bars one id from the tokens after every third one; its state is the count so far."""

    barred: int
    initial: int = 0

    def next(self, state, token_id):
        return (state + 1) % 3

    def bias(self, state):
        return {self.barred: -1e9} if state == 2 else {}


@pytest.mark.parametrize("width", [2, 8, None])
def test_rules_stay_exact_under_guessing(model, clips, width):
    audio, free = clips[6]
    rule = EveryThird(max(set(free), key=free.count))
    options = RowOptions(6, rules=(rule,), positions_per_pass=1)

    one_by_one = [t.id for t in run_stream(model, audio, options)[0]]
    guessed = run_stream(model, audio, replace(options, positions_per_pass=width))[0]

    assert one_by_one != free
    assert all(token != rule.barred for token in one_by_one[2::3])
    assert [t.id for t in guessed] == one_by_one


def test_sampling_depends_on_the_seed_alone(model, clips):
    audio, _ = clips[6]

    def ids(seed, width):
        options = RowOptions(6, temperature=1.0, seed=seed, positions_per_pass=width)
        return [t.id for t in run_stream(model, audio, options)[0]]

    assert ids(1, 8) == ids(1, 1)
    assert ids(1, 1) != ids(2, 1)


def test_logprobs_and_alternatives_do_not_depend_on_guessing(model, clips):
    audio, _ = clips[6]
    options = RowOptions(6, n_alternatives=3, positions_per_pass=1)

    one = run_stream(model, audio, options)[0]
    many = run_stream(model, audio, replace(options, positions_per_pass=8))[0]

    for a, b in zip(one, many, strict=True):
        assert a.logprob == pytest.approx(b.logprob, abs=1e-4)
        assert [i for i, _ in a.alternatives] == [i for i, _ in b.alternatives]
        assert a.alternatives[0] == (a.id, pytest.approx(a.logprob))


def test_full_decoder_refuses_another_row(model):
    decoder = BatchDecoder(model, IDS, max_rows=1)
    decoder.join(RowOptions(6))

    with pytest.raises(ValueError, match="all 1 rows are taken"):
        decoder.join(RowOptions(6))


@pytest.mark.parametrize("width", [0, -1])
def test_bad_width_is_refused(width):
    with pytest.raises(ValueError, match="positions_per_pass must be at least 1"):
        RowOptions(6, positions_per_pass=width)


@pytest.mark.parametrize("reserve", [False, True])
def test_rows_that_take_over_a_beginning_give_the_same_tokens(model, clips, reserve):
    decoder = BatchDecoder(model, IDS, max_rows=3, reserve=reserve)
    n_start, starts, tokens, rows = 25, {}, {}, {}
    for n_delay, (audio, _) in clips.items():
        starts[n_delay] = decoder.start_of(audio[:, :n_start], n_delay)
    for _ in range(2):
        for n_delay, (audio, _) in clips.items():
            rows[n_delay] = decoder.join(RowOptions(n_delay), starts[n_delay], n_start)
            decoder.add(rows[n_delay], audio)
            tokens[rows[n_delay]] = []
        while passed := decoder.step():
            for row, new in passed.items():
                tokens[row] += [token.id for token in new]
        for n_delay, row in rows.items():
            assert tokens[row] == clips[n_delay][1]
            decoder.leave(row)


def test_few_rows_that_are_behind_do_not_widen_a_pass(model):
    decoder = BatchDecoder(model, IDS, max_rows=4)
    rows = [decoder.join(RowOptions(6)) for _ in range(3)]
    for row in rows[:1]:
        decoder.add(row, random_audio(60, seed=row))
    assert decoder.step(max_positions=4) == {rows[0]: []}
    for row in rows[1:]:
        decoder.add(row, random_audio(60, seed=row))
    decoder.step(max_positions=4)
    assert decoder._cache.offsets[0] == 4 + 35  # all of its prompt: most rows have as much
