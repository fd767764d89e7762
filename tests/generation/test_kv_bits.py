"""With compressed keys and values, several positions a pass still give the plain loop's tokens."""

from __future__ import annotations

import dataclasses

import mlx.core as mx
import pytest

from tests.generation.tiny_model import CONFIG, IDS, random_audio
from voxmlx.config import KVCacheConfig
from voxmlx.generation.batch import BatchDecoder
from voxmlx.generation.greedy import TokenStream
from voxmlx.generation.row import RowOptions
from voxmlx.models.voxtral_realtime import VoxtralRealtime

N_DELAY = 2
KV = [
    KVCacheConfig(8, "hadamard"),
    KVCacheConfig(4, "none"),
    KVCacheConfig(4, "iso"),
    KVCacheConfig(3, "planar"),
]


@pytest.fixture(scope="module")
def model() -> VoxtralRealtime:
    """Heads wide enough for affine groups."""
    wide = dataclasses.replace(CONFIG.decoder, head_dim=32)
    mx.random.seed(3)
    model = VoxtralRealtime(dataclasses.replace(CONFIG, decoder=wide))
    mx.eval(model.parameters())
    return model


def decode(model, audio, positions, kv):
    stream = TokenStream(model, IDS, RowOptions(N_DELAY, positions_per_pass=positions), kv)
    stream.add(audio)
    return [t.id for t in stream.step(1000)], stream


@pytest.mark.parametrize("kv", KV, ids=str)
def test_rejected_positions_leave_no_trace(model, kv):
    audio = random_audio(150, 1)
    plain, loop = decode(model, audio, 1, kv)
    assert len(set(plain)) > 5
    for positions in (2, 8, None):
        tokens, stream = decode(model, audio, positions, kv)
        assert tokens == plain, f"{positions} positions a pass"
        if positions == 8:
            assert stream.n_passes < loop.n_passes  # some guesses were right, so some were wrong


def test_rows_of_a_batch_equal_rows_alone(model):
    kv = KVCacheConfig(8, "hadamard")
    decoder = BatchDecoder(model, IDS, kv=kv)
    alone, rows, found = {}, {}, {}
    for seed, n in ((1, 90), (2, 130), (3, 70)):
        row = decoder.join(RowOptions(N_DELAY + seed))
        audio = random_audio(n, seed)
        decoder.add(row, audio)
        stream = TokenStream(model, IDS, RowOptions(N_DELAY + seed), kv)
        stream.add(audio)
        alone[row] = [t.id for t in stream.step(1000)]
        rows[row], found[row] = audio, []
    while new := decoder.step():
        for row, tokens in new.items():
            found[row] += [t.id for t in tokens]

    assert found == alone
