"""The compressed store: rotated, coded keys and values.

Queries are turned by the keys' rotation, so scores are those of the stored basis; the sum over
values is turned back once. Nothing is ever kept in full precision.

Sources: RotorQuant's IsoQuant cache for ``planar`` and ``iso`` (codebook and norm); MLX's affine
codes, plain or after a Hadamard rotation, for ``none`` and ``hadamard``.
"""

from __future__ import annotations

import mlx.core as mx

from voxmlx.cache.attention import attend_causal
from voxmlx.cache.codecs import AffineCodec, CodebookCodec, Parts, VectorCodec
from voxmlx.cache.store import KVStore, RingIndex, rotate
from voxmlx.config import KVCacheConfig
from voxmlx.kernels.launch import constant
from voxmlx.kernels.packed import attend_codes, reads_codes
from voxmlx.quantization.rotation import rotation_matrix

LONG_STEP = 32
"""From here on, decoding every slot once costs less than holding the scores of all positions."""


class QuantizedKVStore(KVStore):
    """Keys and values of all layers in few bits.

    Args:
        n_layers: Layers of the network.
        n_kv_heads: Key-value heads of a layer.
        head_dim: Width of a head.
        dtype: Type of the activations.
        kv: Bits and rotation.

    Raises:
        ValueError: If the head width does not fit the rotation or the codes.
    """

    def __init__(
        self, n_layers: int, n_kv_heads: int, head_dim: int, dtype: mx.Dtype, kv: KVCacheConfig
    ):
        super().__init__(n_layers, n_kv_heads, head_dim, dtype)
        matrix = rotation_matrix(kv.rotation, head_dim)
        self._rotation = None
        if matrix is not None:
            self._rotation = constant(matrix).astype(dtype)
            mx.eval(self._rotation)
        codebook = kv.rotation in ("planar", "iso")
        self._codec: VectorCodec = (CodebookCodec if codebook else AffineCodec)(head_dim, kv.bits)

    def parts(self) -> dict[str, tuple[int, mx.Dtype]]:
        """Name, width and type of each array that one layer's slots consist of."""
        one = self._codec.parts(self.dtype)
        return {f"{side}.{name}": part for side in ("keys", "values") for name, part in one.items()}

    def attend(
        self,
        layer: int,
        queries: mx.array,
        keys: mx.array,
        values: mx.array,
        index: RingIndex,
        scale: float,
    ) -> mx.array:
        """Write one layer's new keys and values, then attend over the slots to read."""
        self._store(layer, keys, values, index)
        B, n_queries, T, K = queries.shape
        H = self.n_kv_heads
        if index.start is not None and T >= LONG_STEP:
            n = index.start + T
            k, v = (self._decoded(side, layer, index)[:, :, :n] for side in ("keys", "values"))
            return self._turn_back(attend_causal(self._turn(queries), k, v, scale, self.by_host))
        if T == 1 and reads_codes(n_queries, H, K):
            return self._turn_back(self._attend_one(layer, self._turn(queries), index, scale))
        q = (self._turn(queries) * scale).reshape(B, H, n_queries // H * T, K)
        scores = self._codec.scores(q, self._stored("keys", layer, index))
        n_read = scores.shape[-1]
        scores = scores.reshape(B, H, n_queries // H, T, n_read)
        scores = mx.where(index.mask[:, None], scores, mx.array(-mx.inf, scores.dtype))
        weights = mx.softmax(scores, axis=-1, precise=True).reshape(B, H, -1, n_read)
        out = self._codec.mix(weights, self._stored("values", layer, index))
        return self._turn_back(out.reshape(B, n_queries, T, K))

    def _attend_one(
        self, layer: int, queries: mx.array, index: RingIndex, scale: float
    ) -> mx.array:
        """Attention of one position of every row, in the basis of the codes."""
        keys, values = (
            {name: self.buffers[f"{side}.{name}"][layer] for name in self._codec.parts(self.dtype)}
            for side in ("keys", "values")
        )
        codec = self._codec
        rules = (index.offset, codec.bits, index.window, scale)
        return attend_codes(queries, keys, values, codec.table, *rules)

    def rounded(self, x: mx.array) -> mx.array:
        """What vectors, ``(B, H, T, K)``, are read as once they are stored."""
        codes = self._codec.encode(self._turn(x.astype(self.dtype)))
        return self._turn_back(self._codec.decode(codes, self.dtype))

    def _turned(self, slots: Parts, shift: mx.array, rope_theta: float) -> Parts:
        """Some slots of one layer's keys: decoded, turned, coded again."""
        stored = {name.removeprefix("keys."): x for name, x in slots.items()}
        keys = self._turn_back(self._codec.decode(stored, self.dtype))
        codes = self._codec.encode(self._turn(rotate(keys, shift, rope_theta)))
        return {f"keys.{name}": x for name, x in codes.items()}

    def _store(self, layer: int, keys: mx.array, values: mx.array, index: RingIndex) -> None:
        """Encode both at once, as few operations, and write them."""
        both = mx.concatenate([keys, values], axis=1).astype(self.dtype)
        for name, part in self._codec.encode(self._turn(both)).items():
            self.write(f"keys.{name}", layer, part[:, : self.n_kv_heads], index)
            self.write(f"values.{name}", layer, part[:, self.n_kv_heads :], index)

    def _stored(self, side: str, layer: int, index: RingIndex) -> Parts:
        names = self._codec.parts(self.dtype)
        return {name: self.read(f"{side}.{name}", layer, index) for name in names}

    def _decoded(self, side: str, layer: int, index: RingIndex) -> mx.array:
        return self._codec.decode(self._stored(side, layer, index), self.dtype)

    def _turn(self, x: mx.array) -> mx.array:
        return x if self._rotation is None else x @ self._rotation.T

    def _turn_back(self, x: mx.array) -> mx.array:
        return x if self._rotation is None else x @ self._rotation


def make_store(
    n_layers: int, n_kv_heads: int, head_dim: int, dtype: mx.Dtype, kv: KVCacheConfig | None
) -> KVStore:
    """The store for a setting; ``None`` keeps keys and values as they are."""
    if kv is None:
        return KVStore(n_layers, n_kv_heads, head_dim, dtype)
    return QuantizedKVStore(n_layers, n_kv_heads, head_dim, dtype, kv)
