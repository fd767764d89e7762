"""Causal attention of a text's newest positions, in bounded memory on every device.

Where a device fuses attention, all queries go at once and scores are never stored. Where it does
not, scores would take as much as queries times keys: queries are worked through in parts so small
that this does not matter.
"""

from __future__ import annotations

import mlx.core as mx

from voxmlx.kernels.host import attend as attend_by_host
from voxmlx.kernels.launch import device_is_cuda

SCORE_BYTES = 1 << 27
"""Most bytes of the scores of one part. What does not fuse holds two or three such arrays."""

LEAST_PART = 16
"""Queries of a part at least, whatever the length of the context."""

FEW_QUERIES = 16
"""Up to so many queries CUDA computes plain products: cuDNN plans for every new pair of lengths,
about 60 ms each time, and short steps have a new one each."""


def attend_causal(
    queries: mx.array, keys: mx.array, values: mx.array, scale: float, by_host: bool = False
) -> mx.array:
    """Attend from the last positions of a text to it all, each to itself and what came before.

    Args:
        queries: ``(B, Hq, T, K)``, ``Hq`` a multiple of H.
        keys: ``(B, H, n, K)``, ``n`` at least T.
        values: ``(B, H, n, K)``.
        scale: Factor on the scores.
        by_host: Whether the host computes it.

    Returns:
        ``(B, Hq, T, K)``; evaluated, if it took more than one part.
    """
    T, n = queries.shape[2], keys.shape[2]
    if T == 1 and by_host:
        return attend_by_host(queries, keys, values, scale)
    if T == 1:
        return _attend_one(queries, keys, values, scale)
    if T <= FEW_QUERIES and device_is_cuda():
        return _attend_few(queries, keys, values, scale)
    size = T if _fuses(queries) else part_size(queries, n)
    parts = []
    for start in range(0, T, size):
        part = queries[:, :, start : start + size]
        end = n - T + start + part.shape[2]
        k, v = keys[:, :, :end], values[:, :, :end]
        if by_host:
            mask = mx.arange(end) <= mx.arange(end - part.shape[2], end)[:, None]
            parts.append(attend_by_host(part, k, v, scale, mask[None, None]))
            continue
        parts.append(mx.fast.scaled_dot_product_attention(part, k, v, scale=scale, mask="causal"))
        if size < T:
            mx.eval(parts[-1])
    return parts[0] if len(parts) == 1 else mx.concatenate(parts, axis=2)


def part_size(queries: mx.array, n_keys: int) -> int:
    """Queries whose scores of ``n_keys`` keys fit into :data:`SCORE_BYTES`."""
    B, n_heads, _, _ = queries.shape
    fitting: int = SCORE_BYTES // (B * n_heads * n_keys * queries.dtype.size)
    return max(LEAST_PART, fitting // LEAST_PART * LEAST_PART)


def _fuses(queries: mx.array) -> bool:
    """Whether MLX 0.31 and later have one kernel for causal attention of several queries."""
    width = queries.shape[-1]
    if device_is_cuda():
        return queries.dtype.size == 2 and width % 8 == 0 and width <= 128
    return mx.default_device().type == mx.gpu and width in (64, 80, 128)


def _attend_one(queries: mx.array, keys: mx.array, values: mx.array, scale: float) -> mx.array:
    """The newest position alone sees everything, so there is no mask."""
    shape = queries.shape
    if mx.default_device().type == mx.cpu:  # keys shared by query heads are read once
        queries = queries.reshape(shape[0], keys.shape[1], -1, shape[3])
    out = mx.fast.scaled_dot_product_attention(queries, keys, values, scale=scale)
    return out.reshape(shape)


def _attend_few(queries: mx.array, keys: mx.array, values: mx.array, scale: float) -> mx.array:
    """The same by two products; the scores of few queries are small."""
    B, n_heads, T, K = queries.shape
    H, n = keys.shape[1], keys.shape[2]
    q = (queries * scale).reshape(B, H, n_heads // H * T, K)
    scores = (q @ keys.swapaxes(-1, -2)).reshape(B, H, n_heads // H, T, n)
    later = mx.arange(n) > mx.arange(n - T, n)[:, None]
    scores = mx.where(later, mx.array(-mx.inf, scores.dtype), scores)
    weights = mx.softmax(scores, axis=-1, precise=True).reshape(B, H, -1, n)
    return (weights @ values).reshape(queries.shape)
