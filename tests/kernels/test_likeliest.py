"""The likeliest token and its log-probability, by either way of finding them."""

from __future__ import annotations

import mlx.core as mx
import pytest

from voxmlx.kernels.likeliest import likeliest


@pytest.mark.parametrize("shape", [(1, 1, 131072), (3, 2, 5000), (7, 100)])
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
def test_likeliest(shape, dtype):
    logits = (4 * mx.random.normal(shape, key=mx.random.key(0))).astype(dtype)
    expected = logits.astype(mx.float32)

    ids, logprobs = likeliest(logits)

    assert ids.dtype == mx.int32 and ids.shape == shape[:-1]
    assert mx.array_equal(ids, mx.argmax(expected, axis=-1))
    best = mx.max(expected, axis=-1) - mx.logsumexp(expected, axis=-1)
    assert mx.allclose(logprobs, best, atol=1e-4)


def test_the_first_of_equals():
    logits = mx.zeros((2, 9000)).astype(mx.bfloat16)
    logits[0, 7000] = logits[0, 3000] = logits[1, 5] = 1

    assert likeliest(logits)[0].tolist() == [3000, 5]
