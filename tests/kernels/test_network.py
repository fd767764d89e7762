"""A whole network gives on CUDA what it gives without this program's kernels."""

from __future__ import annotations

import dataclasses

import mlx.core as mx
import numpy as np
import pytest

from voxmlx.generation.encode import BatchEncoder
from voxmlx.generation.step import DecodeState, StepProgram
from voxmlx.kernels.launch import on_cuda
from voxmlx.models.fuse import prepare_for_inference
from voxmlx.models.random_model import CONFIGS, random_model
from voxmlx.models.voxtral_realtime import VoxtralRealtime

cuda = pytest.mark.skipif(not mx.cuda.is_available(), reason="needs a CUDA device")
STEPS = (39, 1, 1, 8, 1, 30, 1, 1, 64, 1)


@pytest.fixture(scope="module")
def model() -> VoxtralRealtime:
    config = CONFIGS["tiny"]
    encoder = dataclasses.replace(
        config.encoder, n_layers=2, dim=256, hidden_dim=512, n_heads=4, head_dim=64
    )
    decoder = dataclasses.replace(
        config.decoder,
        **{"n_layers": 2, "dim": 256, "hidden_dim": 512, "n_heads": 4, "n_kv_heads": 2},
        **{"head_dim": 64, "sliding_window": 70, "vocab_size": 512},
    )
    model = random_model(dataclasses.replace(config, encoder=encoder, decoder=decoder), bits=4)
    prepare_for_inference(model)
    return model


def with_kernels(monkeypatch: pytest.MonkeyPatch, on: bool) -> None:
    monkeypatch.setenv("VOXMLX_KERNELS", str(int(on)))
    on_cuda.cache_clear()


def logits_of_steps(model: VoxtralRealtime, n_rows: int) -> list[mx.array]:
    cache = model.decoder.make_cache(64, batch_size=n_rows)
    state, program = DecodeState(cache, list(model.decoder.conditioning(6))), StepProgram(model)
    found = []
    for i, n in enumerate(STEPS):
        keys = [mx.random.key(2 * i), mx.random.key(2 * i + 1)]
        vocabulary, width = model.config.decoder.vocab_size, model.config.decoder.dim
        tokens = mx.random.randint(0, vocabulary, (n_rows, n), key=keys[0]).astype(mx.int32)
        audio = mx.random.normal((n_rows, n, width), key=keys[1]).astype(model.dtype)
        found.append(program(state, tokens, audio, n).astype(mx.float32))
        mx.eval(found[-1])
        if n_rows > 1 and n == 8:
            cache.rewind([row % 4 for row in range(n_rows)])
    return found


def rows_of_pieces(model: VoxtralRealtime) -> list[mx.array]:
    model._encode_program = None
    encoder, rng = BatchEncoder(model, 25), np.random.default_rng(0)
    rows = [encoder.join() for _ in range(3)]
    found = []
    for n in (25, 12, 1, 2, 25, 25, 1):
        mel = {
            row: rng.standard_normal((8 * max(1, n - row), 128)).astype(np.float32) for row in rows
        }
        found += [x.astype(mx.float32) for x in encoder.encode(mel).values()]
        mx.eval(found)
    return found


def distance(x: mx.array, y: mx.array) -> float:
    return mx.sqrt(mx.sum(mx.square(x - y)) / mx.sum(mx.square(y))).item()


@cuda
@pytest.mark.parametrize("n_rows", [1, 6, 12])
def test_decoder(model, n_rows, monkeypatch):
    with_kernels(monkeypatch, True)
    one = logits_of_steps(model, n_rows)
    with_kernels(monkeypatch, False)
    other = logits_of_steps(model, n_rows)
    on_cuda.cache_clear()

    assert max(map(distance, one, other)) < 5e-2


@cuda
def test_encoder(model, monkeypatch):
    with_kernels(monkeypatch, True)
    one = rows_of_pieces(model)
    with_kernels(monkeypatch, False)
    other = rows_of_pieces(model)
    on_cuda.cache_clear()

    assert max(map(distance, one, other)) < 5e-2
