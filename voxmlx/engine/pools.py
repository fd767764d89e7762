"""The batches of one device, by kind of turn and by how keys and values are held.

It knows no turns that run, only what they ask for.
"""

from __future__ import annotations

import mlx.core as mx
import numpy as np

from voxmlx.cache.quantized import make_store
from voxmlx.config import DecoderConfig, EncoderConfig, KVCacheConfig
from voxmlx.engine.request import Kind, TurnOptions
from voxmlx.engine.scheduler import LIVE_POSITIONS, MAX_SLICE, Limits
from voxmlx.generation.batch import MAX_STEP
from voxmlx.generation.row import SpecialIds
from voxmlx.pipeline import Pipeline
from voxmlx.streaming.pool import Pool, PooledBackend
from voxmlx.streaming.session import StreamingSession

WARM_POSITIONS = (8, 8, 8, 8, 8, 1, 2, 4, 8, 1)
"""Lengths over which a batch is run once: those of a beginning, then each size of a pass."""

_Key = tuple[Kind, KVCacheConfig | None]


class Pools:
    """Batches, made when a turn needs them.

    Args:
        pipeline: The model.
        limits: How many turns a batch must hold.
        kv: How keys and values are compressed where a turn does not say; ``None`` keeps them.
    """

    def __init__(self, pipeline: Pipeline, limits: Limits, kv: KVCacheConfig | None):
        self._pipeline = pipeline
        self._kv = kv
        self._rows = {Kind.LIVE: limits.max_live, Kind.FILE: limits.max_files}
        self._pools: dict[_Key, Pool] = {}
        self._reserved: _Key | None = None
        if limits.reserve and limits.max_live:
            self._reserved = Kind.LIVE, kv

    @property
    def nbytes(self) -> int:
        """Bytes held by keys and values."""
        return sum(pool.nbytes for pool in self._pools.values())

    def of(self, options: TurnOptions) -> Pool:
        """The batch for a turn.

        Raises:
            ValueError: If the model's heads do not suit the setting of keys and values.
        """
        key = self._key(options)
        if key not in self._pools:
            tokenizer = self._pipeline.tokenizer
            ids = SpecialIds(tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id)
            self._pools[key] = Pool(
                self._pipeline.model,
                ids,
                max(1, self._rows[key[0]]),
                *_steps(key[0]),
                kv=key[1],
                reserve=key == self._reserved,
            )
        return self._pools[key]

    @property
    def reserved_bytes(self) -> int:
        """Memory that is held whatever runs."""
        if self._reserved is None:
            return 0
        return self._rows[Kind.LIVE] * self._row_bytes(*self._reserved)

    def prepare(self) -> None:
        """Make the batch that is reserved, if one is, and run it once over each length."""
        if self._reserved is None:
            return
        pool = self.of(TurnOptions(kv=self._reserved[1]))
        backend = PooledBackend(pool)
        model, tokenizer = self._pipeline.model, self._pipeline.tokenizer
        session = StreamingSession(
            model, tokenizer, encode_rows=pool.max_positions, backend=backend
        )
        rng = np.random.default_rng(0)
        for n in WARM_POSITIONS:
            n_samples = n * model.config.audio.samples_per_token
            session.feed(0.1 * rng.standard_normal(n_samples, np.float32))
            pool.encode({backend: n})
            session.encode()
            while pool.decode(n):
                session.step()
        backend.close()

    def close(self) -> None:
        """Forget all batches, with turns or without."""
        for pool in self._pools.values():
            pool.close()
        self._pools.clear()

    def drop_unused(self) -> None:
        """Forget batches without turns, but that which is reserved."""
        for key in [key for key, pool in self._pools.items() if not pool.encoder.n_rows]:
            if key != self._reserved:
                del self._pools[key]

    def turn_bytes(self, options: TurnOptions) -> int:
        """Memory for keys and values of a turn whose rings are full, if it is not reserved."""
        key = self._key(options)
        return 0 if key == self._reserved else self._row_bytes(*key)

    def _row_bytes(self, kind: Kind, kv: KVCacheConfig | None) -> int:
        config = self._pipeline.config
        if not isinstance(config.encoder, EncoderConfig):
            return 0
        n_encode, n_decode = _steps(kind)
        n_encode = config.encoder.sliding_window + n_encode * config.downsample_factor
        n_decode += config.decoder.sliding_window or 0
        dtype = self._pipeline.model.dtype
        return n_encode * _slot_bytes(config.encoder, dtype, kv) + n_decode * _slot_bytes(
            config.decoder, dtype, kv
        )

    def _key(self, options: TurnOptions) -> _Key:
        return options.kind, self._kv if options.kv is None else options.kv


def _steps(kind: Kind) -> tuple[int, int]:
    """Most positions of a turn that a pass takes, of the encoder and of the decoder."""
    return (LIVE_POSITIONS, LIVE_POSITIONS) if kind is Kind.LIVE else (MAX_SLICE, MAX_STEP)


def _slot_bytes(c: EncoderConfig | DecoderConfig, dtype: mx.Dtype, kv: KVCacheConfig | None) -> int:
    """Bytes of one position's keys and values in all layers."""
    return make_store(c.n_layers, c.n_kv_heads, c.head_dim, dtype, kv).slot_nbytes
