"""Compressed keys and values change the numbers, but not which of them belong together."""

from __future__ import annotations

import numpy as np
import pytest

from tests.streaming.conftest import drain, random_splits
from voxmlx.cache.quantized import QuantizedKVStore
from voxmlx.streaming.iterate import iterate
from voxmlx.streaming.session import StreamingSession

SETTINGS = [{"kv_bits": 8}, {"kv_bits": 8, "kv_rotation": "iso"}]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_any_split_gives_the_ids_of_the_file(pipeline, audio, setting):
    """On a recording of which no number lies between two codes: there the last bit would decide."""
    audio = np.roll(audio, -7000)
    whole = pipeline.generate(audio, sample_rate=16000, **setting)
    assert len(set(whole.tokens)) > 10
    for seed in range(4):
        session = pipeline.stream(rut_guard=False, **setting)
        for _ in iterate(session, random_splits(audio, seed)):
            pass
        assert session.tokens == whole.tokens, f"seed {seed}"


def test_few_bits_change_the_text_of_a_random_model(pipeline, audio):
    plain = pipeline.generate(audio, sample_rate=16000)
    coarse = pipeline.generate(audio, sample_rate=16000, kv_bits=2)

    assert len(coarse.tokens) == len(plain.tokens)
    assert coarse.tokens != plain.tokens


def test_both_rings_of_a_session_are_compressed(pipeline, audio):
    session = pipeline.stream(kv_bits=4, kv_rotation="planar")
    session.feed(audio)
    drain(session)

    stores = [_encoder_store(session), _decoder_store(session)]
    assert all(isinstance(store, QuantizedKVStore) for store in stores)
    head = 32 * 4 // 8 + 2  # codes and a float16 norm of a 32-wide vector
    config = pipeline.config
    for store, c in zip(stores, (config.encoder, config.decoder), strict=True):
        assert store.slot_nbytes == 2 * c.n_layers * c.n_kv_heads * head


def _encoder_store(session: StreamingSession):
    return session._embedder._state.cache.store


def _decoder_store(session: StreamingSession):
    return session._stream._stream._decoder._cache.store


@pytest.mark.parametrize(
    "options", [{"kv_bits": 5}, {"kv_bits": 0}, {"kv_rotation": "turbo"}], ids=str
)
def test_settings_that_do_not_exist_are_refused(pipeline, options):
    with pytest.raises(ValueError, match="kv_(bits|rotation) must be one of"):
        pipeline.stream(**options)
