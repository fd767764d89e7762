"""The traced step equals the plain one, and nothing is wider than the model's own type."""

from __future__ import annotations

import mlx.core as mx
import pytest

from tests.generation.tiny_model import quantized, random_audio, tiny_realtime
from voxmlx.config import KVCacheConfig
from voxmlx.generation import step
from voxmlx.generation.step import DecodeState, StepProgram, decode_step


def states(model, offsets, kv=None):
    for _ in range(2):
        cache = model.decoder.make_cache(8, batch_size=len(offsets), kv=kv)
        cache.offsets = list(offsets)
        yield DecodeState(cache, model.decoder.conditioning(6))


@pytest.fixture
def traced(monkeypatch):
    """Trace on the CPU too, without fusing, which would call a C++ compiler."""
    monkeypatch.setattr(step, "replays", lambda: True)
    mx.disable_compile()
    yield
    mx.enable_compile()


@pytest.mark.parametrize("offsets", [[0], [27], [0, 13], [30, 25, 3]])
def test_program_equals_the_plain_step(traced, offsets):
    model = tiny_realtime()
    program = StepProgram(model)
    one, other = states(model, offsets)
    for seed, n in enumerate([4, 1, 1, 3, 8, 1]):
        tokens = mx.random.randint(0, 48, (len(offsets), n), key=mx.random.key(seed))
        audio = mx.concatenate([random_audio(n, 9 * seed + row) for row in range(len(offsets))])
        expected = decode_step(model, one, tokens, audio, n)
        assert mx.array_equal(program(other, tokens, audio, n), expected)
        for state in (one, other):
            state.cache.rewind(n - 1)

    assert one.cache.offsets == other.cache.offsets


def test_program_serves_compressed_caches(traced):
    model = tiny_realtime()
    one, other = states(model, [0], KVCacheConfig(4, "planar"))
    tokens, audio = mx.array([[1, 2, 3]]), random_audio(3, 0)

    expected = decode_step(model, one, tokens, audio, 3)

    assert mx.array_equal(StepProgram(model)(other, tokens, audio, 3), expected)


def activations(model, function):
    """Types of all arrays in the graph of ``function``'s result, by what made them."""
    names = []
    original = mx.fast.rms_norm

    def noting(x, weight, eps):
        names.append(x.dtype)
        return original(x, weight, eps)

    mx.fast.rms_norm = noting
    try:
        out = function()
    finally:
        mx.fast.rms_norm = original
    return {*names, out.dtype}


@pytest.mark.parametrize("change", [lambda model: model, quantized])
@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16, mx.float32])
def test_nothing_is_wider_than_the_model(dtype, change):
    model = change(tiny_realtime(dtype=dtype))
    state, _ = states(model, [0])
    encoder = model.encoder.make_state(24)

    rows = model.embed_audio(mx.random.normal((1, 48, 128)), encoder)
    seen = activations(model, lambda: decode_step(model, state, mx.array([[1]]), rows[:, :1], 1))

    assert rows.dtype == dtype
    assert state.conditioning.dtype == dtype
    assert seen == {dtype}
    caches = [*state.cache.store.buffers.values(), *encoder.cache.store.buffers.values()]
    assert {x.dtype for layers in caches for x in layers} == {dtype}
    assert {encoder.conv1_tail.dtype, encoder.conv2_tail.dtype} == {dtype}


@pytest.mark.parametrize("offsets", [[0], [30, 25, 3]])
def test_program_chooses_the_likeliest(traced, offsets):
    model = tiny_realtime()
    program = StepProgram(model)
    one, other = states(model, offsets)
    tokens = mx.zeros((len(offsets), 1), mx.int32)
    for seed in range(4):
        audio = mx.concatenate([random_audio(1, 9 * seed + row) for row in range(len(offsets))])
        logits = decode_step(model, one, tokens, audio, 1)
        tokens, logprobs = program.greedy(other, tokens, audio)
        assert mx.array_equal(tokens, mx.argmax(logits, axis=-1))
        expected = mx.max(logits, axis=-1) - mx.logsumexp(logits, axis=-1)
        assert mx.array_equal(logprobs, expected)
