"""The realtime network cut into stages that run one after the other on all samples.

Only the activations between two stages are kept, so a model of any size is worked through with one
stage's weights and moments in memory. What a stage computes is what the whole network computes: the
same layers, positions, masks and conditioning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from voxmlx.cache.ring import RingKVCache
from voxmlx.cache.store import KVStore
from voxmlx.config import DecoderConfig, EncoderConfig
from voxmlx.models.voxtral_realtime import VoxtralRealtime
from voxmlx_convert.calibration.samples import Sample

LAYER_GROUPS = (
    ("attention.q_proj", "attention.k_proj", "attention.v_proj"),
    ("attention.o_proj",),
    ("mlp.gate_proj", "mlp.up_proj"),
    ("mlp.down_proj",),
)
"""Linear modules of a layer; those of one group read the same input."""


@dataclass(frozen=True)
class Stage:
    """A part of the network.

    Attributes:
        path: Its path in the network.
        groups: Paths of its linear modules; those of one group read the same input.
        run: Maps a sample's activations, ``(1, T, D)``.
    """

    path: str
    groups: tuple[tuple[str, ...], ...]
    run: Callable[[Sample, mx.array], mx.array]


def first_inputs(model: VoxtralRealtime, samples: Sequence[Sample]) -> list[mx.array]:
    """What the first stage takes: the mel frames behind both convolutions."""
    encoder = model.encoder
    inputs = []
    for sample in samples:
        mel = mx.array(sample.mel)[None].astype(encoder.norm.weight.dtype)
        x = nn.gelu(encoder.conv2(nn.gelu(encoder.conv1(mel))))
        mx.eval(x)
        inputs.append(x)
    return inputs


def stages(model: VoxtralRealtime, conditioned: bool = True) -> Iterator[Stage]:
    """All stages in order.

    Args:
        model: The network; layers may be replaced in it while stages run.
        conditioned: Whether the delay conditions the decoder, as it does in use. Without it the
            activations are those of a plain Mistral decoder, which this model is not.
    """
    encoder, decoder = model.encoder, model.decoder
    for i in range(len(encoder.layers)):
        path = f"encoder.layers.{i}"
        yield Stage(path, _groups(path), _encoder_layer(model, i))
    yield Stage(
        "adapter",
        (("adapter.linear_1",), ("adapter.linear_2",)),
        lambda sample, x: model.adapter(encoder.norm(x)),
    )
    for i in range(len(decoder.layers)):
        path = f"decoder.layers.{i}"
        yield Stage(path, _groups(path), _decoder_layer(model, i, conditioned))
    yield Stage(
        "decoder.embed_tokens",
        (("decoder.embed_tokens",),),
        lambda sample, x: decoder.norm(x[:, sample.first :]),
    )


def _groups(path: str) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(f"{path}.{name}" for name in group) for group in LAYER_GROUPS)


def _encoder_layer(model: VoxtralRealtime, i: int) -> Callable[[Sample, mx.array], mx.array]:
    def run(sample: Sample, x: mx.array) -> mx.array:
        config = model.config.encoder
        assert isinstance(config, EncoderConfig)  # checked by the network
        cache = _cache(config, config.sliding_window, x)
        index = cache.prepare(x.shape[1])
        return model.encoder.layers[i](x[0], cache, 0, index)[None]

    return run


def _decoder_layer(
    model: VoxtralRealtime, i: int, conditioned: bool
) -> Callable[[Sample, mx.array], mx.array]:
    def run(sample: Sample, x: mx.array) -> mx.array:
        decoder, n = model.decoder, len(sample.placed)
        if i == 0:
            words = decoder.embed_tokens(mx.array(sample.placed, dtype=mx.int32)[None])
            x = (x[:, :n].astype(decoder.dtype) + words.astype(decoder.dtype)).astype(decoder.dtype)
        window = decoder.config.sliding_window
        cache = _cache(decoder.config, n if window is None else window, x)
        scale = decoder.conditioning(sample.n_delay) if conditioned else None
        weight = None if scale is None else scale[i]
        layer = decoder.layers[i]
        normed = layer.attention_norm(x[0])
        rows, _ = layer(x[0], normed, cache, 0, cache.prepare(n), weight, decoder.norm)
        return rows[None]

    return run


def _cache(config: EncoderConfig | DecoderConfig, window: int, x: mx.array) -> RingKVCache:
    """Keys and values of one layer for one whole sample."""
    store = KVStore(1, config.n_kv_heads, config.head_dim, x.dtype)
    return RingKVCache(store, window, x.shape[1], rope_theta=config.rope_theta)


def get(model: nn.Module, path: str) -> Any:
    """The module at a path."""
    module: Any = model
    for key in path.split("."):
        module = module[int(key)] if key.isdigit() else getattr(module, key)
    return module


def replace(model: nn.Module, path: str, module: nn.Module) -> None:
    """Put another module at a path."""
    parent, _, name = path.rpartition(".")
    setattr(get(model, parent), name, module)
