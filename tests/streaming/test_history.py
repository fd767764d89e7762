from __future__ import annotations

import json

import numpy as np
import pytest

from tests.tiny import tiny_tekken_dict
from voxmlx.generation.row import GeneratedToken
from voxmlx.streaming.history import BLOCK, History, rounded
from voxmlx.streaming.timeline import Timeline
from voxmlx.streaming.transcript import Transcript
from voxmlx.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "tekken.json"
    path.write_text(json.dumps(tiny_tekken_dict()))
    return Tokenizer.from_file(path)


def tokens(n: int) -> list[GeneratedToken]:
    """Pads, marks, and printable bytes."""
    rng = np.random.default_rng(0)
    kinds = rng.choice([32, 33, 1032, 1097, 1105, 1046], n, p=[0.7, 0.05, 0.08, 0.08, 0.08, 0.01])
    return [rounded(GeneratedToken(i, int(k), -rng.exponential())) for i, k in enumerate(kinds)]


@pytest.mark.parametrize("n", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 7])
def test_replay_gives_the_events_again(tokenizer, n):
    history, transcript = History(), Transcript(tokenizer, Timeline(), 80)
    events = []
    for token in tokens(n):
        history.add(token)
        events += transcript.add(token)
        if token.index % 1000 == 999:
            history.pause()
            events += transcript.pause()
    history.end(n * 0.08)
    transcript.end(n * 0.08)
    events += transcript.finalize()

    assert history.ids == [token.id for token in tokens(n)]
    assert history.n_tokens == n
    assert history.replay(tokenizer, Timeline(), 80) == events


def test_nothing_is_kept_if_so_wished(tokenizer):
    history = History(keep=False)
    for token in tokens(BLOCK + 5):
        history.add(token)
    history.pause()

    assert history.n_tokens == BLOCK + 5
    assert history.ids == []
    assert history.replay(tokenizer, Timeline(), 80) == []


def test_blocks_are_small():
    history = History()
    for token in tokens(4 * BLOCK):
        history.add(token)
    size = sum(len(part) for block in history._sealed for part in block)

    assert size < 3 * 4 * BLOCK


@pytest.mark.parametrize(
    ("logprob", "expected"), [(-0.5, -0.5), (1e-7, 0.0), (-float("inf"), -1e4), (-1 / 3, -0.3333)]
)
def test_rounding(logprob, expected):
    token = rounded(GeneratedToken(3, 7, logprob, ((7, logprob),)))

    assert token == rounded(token)
    assert (token.index, token.id, token.alternatives) == (3, 7, ())
    assert token.logprob == pytest.approx(expected, abs=1e-4)
