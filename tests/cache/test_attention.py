from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from voxmlx.cache import attention
from voxmlx.cache.attention import attend_causal, part_size
from voxmlx.cache.growing import GrowingKVCache
from voxmlx.cache.quantized import make_store

B, H, HQ, K = 2, 2, 8, 32


def draw(n, n_heads, seed):
    rng = np.random.default_rng([seed, n, n_heads])
    return mx.array(rng.standard_normal((B, n_heads, n, K)).astype(np.float32))


def reference(q, k, v, scale):
    """Everything at once, in float64."""
    q, k, v = (np.array(x).astype(np.float64) for x in (q, k, v))
    k, v = (np.repeat(x, HQ // H, axis=1) for x in (k, v))
    T, n = q.shape[2], k.shape[2]
    scores = scale * q @ k.swapaxes(-1, -2)
    later = np.arange(n) > np.arange(n - T, n)[:, None]
    scores = np.where(later, -np.inf, scores)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return (weights / weights.sum(-1, keepdims=True)) @ v


@pytest.mark.parametrize(("n_queries", "n_keys"), [(1, 1), (1, 300), (70, 70), (100, 333)])
@pytest.mark.parametrize("score_bytes", [1, attention.SCORE_BYTES])
@pytest.mark.parametrize("by_host", [False, True])
def test_parts_give_what_the_whole_gives(n_queries, n_keys, score_bytes, by_host, monkeypatch):
    monkeypatch.setattr(attention, "SCORE_BYTES", score_bytes)
    q, k, v = draw(n_queries, HQ, 0), draw(n_keys, H, 1), draw(n_keys, H, 2)

    out = attend_causal(q, k, v, 0.3, by_host)

    np.testing.assert_allclose(np.array(out), reference(q, k, v, 0.3), atol=2e-6)


@pytest.mark.parametrize(("n_queries", "n_keys"), [(2, 2), (3, 40), (16, 300)])
def test_few_queries_by_products(n_queries, n_keys):
    q, k, v = draw(n_queries, HQ, 0), draw(n_keys, H, 1), draw(n_keys, H, 2)

    out = attention._attend_few(q, k, v, 0.3)

    np.testing.assert_allclose(np.array(out), reference(q, k, v, 0.3), atol=2e-6)


def test_scores_of_a_part_are_bounded():
    q = mx.zeros((1, 32, 512, 128))

    assert part_size(q, 1000) > 512
    n = part_size(q, 30_000)
    assert 16 <= n < 512 and n * 32 * 30_000 * 4 <= attention.SCORE_BYTES
    assert part_size(q, 10_000_000) == 16


def test_a_long_step_takes_little_more_memory_than_its_parts(monkeypatch):
    monkeypatch.setattr(attention, "SCORE_BYTES", 1 << 20)
    cache = GrowingKVCache(make_store(1, H, K, mx.float32, None), 4096, B)
    q, k, v = draw(2048, HQ, 3), draw(2048, H, 4), draw(2048, H, 5)
    index = cache.prepare(2048)
    mx.eval(q, k, v, cache.store.buffers)
    mx.reset_peak_memory()
    before = mx.get_active_memory()

    mx.eval(cache.attend(0, q, k, v, index, 0.2))

    whole = B * HQ * 2048 * 2048 * 4
    assert mx.get_peak_memory() - before < whole / 8
