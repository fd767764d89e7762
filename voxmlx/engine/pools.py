"""The batches of one device, by kind of turn and by how keys and values are held.

It knows no turns that run, only what they ask for.
"""

from __future__ import annotations

import mlx.core as mx

from voxmlx.cache.quantized import make_store
from voxmlx.config import DecoderConfig, EncoderConfig, KVCacheConfig
from voxmlx.engine.request import Kind, TurnOptions
from voxmlx.engine.scheduler import MAX_SLICE, Limits
from voxmlx.generation.batch import MAX_STEP
from voxmlx.generation.row import SpecialIds
from voxmlx.pipeline import Pipeline
from voxmlx.streaming.pool import Pool

LIVE_POSITIONS = 8
"""Positions (80 ms) of one live turn that a pass takes at most, of the encoder or the decoder. All
rows of a pass are computed to the length of the longest, so the 30 to 60 positions with which a
turn begins are spread over some ticks, or they would hold up the others' audio."""

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

    @property
    def nbytes(self) -> int:
        """Bytes held by keys and values."""
        return sum(pool.nbytes for pool in self._pools.values())

    def of(self, options: TurnOptions) -> Pool:
        """The batch for a turn.

        Raises:
            ValueError: If the model's heads do not suit the setting of keys and values.
        """
        key = options.kind, self._setting(options)
        if key not in self._pools:
            tokenizer = self._pipeline.tokenizer
            ids = SpecialIds(tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id)
            n_rows = max(1, self._rows[key[0]])
            self._pools[key] = Pool(self._pipeline.model, ids, n_rows, *_steps(key[0]), key[1])
        return self._pools[key]

    def drop_unused(self) -> None:
        """Forget batches without turns."""
        for key in [key for key, pool in self._pools.items() if not pool.encoder.n_rows]:
            del self._pools[key]

    def turn_bytes(self, options: TurnOptions) -> int:
        """Memory for keys and values of a turn whose rings are full."""
        config, kv = self._pipeline.config, self._setting(options)
        if not isinstance(config.encoder, EncoderConfig):
            return 0
        n_encode, n_decode = _steps(options.kind)
        n_encode = config.encoder.sliding_window + n_encode * config.downsample_factor
        n_decode += config.decoder.sliding_window or 0
        dtype = self._pipeline.model.dtype
        return n_encode * _slot_bytes(config.encoder, dtype, kv) + n_decode * _slot_bytes(
            config.decoder, dtype, kv
        )

    def _setting(self, options: TurnOptions) -> KVCacheConfig | None:
        return self._kv if options.kv is None else options.kv


def _steps(kind: Kind) -> tuple[int, int]:
    """Most positions of a turn that a pass takes, of the encoder and of the decoder."""
    return (LIVE_POSITIONS, LIVE_POSITIONS) if kind is Kind.LIVE else (MAX_SLICE, MAX_STEP)


def _slot_bytes(c: EncoderConfig | DecoderConfig, dtype: mx.Dtype, kv: KVCacheConfig | None) -> int:
    """Bytes of one position's keys and values in all layers."""
    return make_store(c.n_layers, c.n_kv_heads, c.head_dim, dtype, kv).slot_nbytes
