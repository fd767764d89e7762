"""Phrases are tried alike one position at a time, several at once, in pieces and in batches."""

from __future__ import annotations

import mlx.core as mx
import pytest

from tests.generation.test_batch import N_AUDIO, run_stream
from tests.generation.tiny_model import IDS, random_audio, tiny_realtime
from voxmlx.generation.batch import BatchDecoder
from voxmlx.generation.bias import Piece
from voxmlx.generation.row import RowOptions
from voxmlx.generation.step import DecodeState, decode_step

DELAY = 6


class EveryThird:
    """Tries three phrases behind every token whose id is a multiple of three."""

    initial = 0
    start_budget = 4.0
    pieces = {
        40: (Piece((40, 41, 42), 10.0, False), Piece((40, 41), 5.0, True)),
        35: (Piece((35, 36, 37, 38, 39), 14.0, False),),
    }

    def next(self, state, token_id):
        return token_id

    def starts(self, state):
        return {} if state % 3 else self.pieces

    def ends_word(self, token_id):
        return token_id % 2 == 0


def plain_ids(model, audio, bias):
    """The reference: a plain loop; every phrase is scored token by token from a fresh cache."""

    def logits_after(placed):
        cache = model.decoder.make_cache(64)
        state = DecodeState(cache, model.decoder.conditioning(DELAY))
        for start in range(0, len(placed), 48):
            part = placed[start : start + 48]
            logits = decode_step(
                model, state, mx.array([part]), audio[:, start : start + len(part)], 1
            )
        return logits[0, -1]

    def lacks(logits, token_id):
        return float(logits.max() - logits[token_id])

    placed = [IDS.bos] + [IDS.pad] * (model.config.n_left_pad_tokens + DELAY)
    n_prompt, won = len(placed), 0
    while len(placed) <= audio.shape[1] and placed[-1] != IDS.eos:
        logits = logits_after(placed)
        best = None
        tried = [
            p
            for t, ps in bias.starts(bias_state(placed, n_prompt)).items()
            for p in ps
            if lacks(logits, t) <= bias.start_budget
        ]
        for piece in tried:
            if len(placed) + len(piece.tokens) > audio.shape[1]:
                return placed[n_prompt:], won  # waits for audio that does not come
            total, here = 0.0, list(placed)
            for token_id in piece.tokens:
                total += lacks(logits_after(here), token_id)
                here.append(token_id)
            if piece.closed and not bias.ends_word(int(logits_after(here).argmax())):
                continue
            if total <= piece.budget and (best is None or total - piece.budget < best[0]):
                best = (total - piece.budget, piece)
        if best is None:
            placed.append(int(logits.argmax()))
        else:
            placed += best[1].tokens
            won += 1
    return placed[n_prompt:], won


def bias_state(placed, n_prompt):
    return placed[-1] if len(placed) > n_prompt else EveryThird.initial


@pytest.fixture(scope="module")
def model():
    return tiny_realtime(3)


@pytest.fixture(scope="module")
def clips(model):
    audio = [random_audio(N_AUDIO, seed=seed) for seed in (1, 2, 3)]
    return [(clip, *plain_ids(model, clip, EveryThird())) for clip in audio]


def test_phrases_win_and_lose(clips):
    assert sum(won for _, _, won in clips) > 3


@pytest.mark.parametrize("width", [1, 2, 5, 16, 64, None])
def test_guessing_changes_no_token(model, clips, width):
    for audio, expected, _ in clips:
        options = RowOptions(DELAY, positions_per_pass=width, bias=EveryThird())
        tokens, _ = run_stream(model, audio, options)
        assert [t.id for t in tokens] == expected


@pytest.mark.parametrize("piece", [1, 7])
def test_audio_in_pieces_changes_no_token(model, clips, piece):
    audio, expected, _ = clips[0]
    tokens, _ = run_stream(model, audio, RowOptions(DELAY, bias=EveryThird()), piece)
    assert [t.id for t in tokens] == expected


def test_rows_keep_apart(model, clips):
    decoder = BatchDecoder(model, IDS)
    rows = {}
    plain = [t.id for t in run_stream(model, clips[0][0], RowOptions(DELAY))[0]]
    for audio, expected, bias in (
        (clips[0][0], plain, None),
        *((audio, expected, EveryThird()) for audio, expected, _ in clips),
    ):
        row = decoder.join(RowOptions(DELAY, bias=bias))
        decoder.add(row, audio)
        rows[row] = expected
    found = {row: [] for row in rows}
    while any(decoder.n_ready(row) for row in rows):
        for row, tokens in decoder.step().items():
            found[row] += [t.id for t in tokens]
    assert found == rows


def test_logprobs_are_those_of_the_tokens(model, clips):
    audio, expected, _ = clips[0]
    tokens, _ = run_stream(model, audio, RowOptions(DELAY, bias=EveryThird()))
    assert all(t.logprob < 0 for t in tokens)
    prompt = [IDS.bos] + [IDS.pad] * (model.config.n_left_pad_tokens + DELAY)
    state = DecodeState(model.decoder.make_cache(64), model.decoder.conditioning(DELAY))
    placed = prompt + expected[:20]
    logits = decode_step(model, state, mx.array([placed]), audio[:, : len(placed)], 21)[0]
    scores = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
    for n, token in enumerate(tokens[:20]):
        assert token.logprob == pytest.approx(float(scores[n, token.id]), abs=1e-3)


def test_phrases_must_fit_a_pass(model):
    decoder = BatchDecoder(model, IDS, max_step=4)
    decoder.join(RowOptions(DELAY))
    with pytest.raises(ValueError, match="bias needs passes of 8, not 4"):
        decoder.join(RowOptions(DELAY, bias=EveryThird()))
