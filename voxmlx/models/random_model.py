"""Networks with random weights, for measuring where real weights are not at hand.

Packed weights are drawn as packed words, module by module, so that a quantised network never takes
more memory than its own size.
"""

from __future__ import annotations

import math
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_unflatten

from voxmlx.config import AudioConfig, DecoderConfig, EncoderConfig, ModelConfig
from voxmlx.models.voxtral_realtime import VoxtralRealtime

RELEASE = ModelConfig(
    "voxtral_realtime",
    AudioConfig(),
    EncoderConfig(1280, 32, 32, 64, 5120, 750),
    DecoderConfig(3072, 26, 32, 8, 128, 9216, 131072, 8192, ada_dim=32),
)
"""Numbers of Voxtral Mini 4B Realtime (its ``params.json``)."""

TINY = ModelConfig(
    "voxtral_realtime",
    AudioConfig(),
    EncoderConfig(256, 8, 4, 64, 640, 256),
    DecoderConfig(256, 3, 4, 2, 64, 512, 2048, 192, ada_dim=32),
)
"""Numbers of the size of the model inside the package."""

CONFIGS = {"4b": RELEASE, "tiny": TINY}


def random_model(
    config: ModelConfig,
    dtype: mx.Dtype = mx.bfloat16,
    bits: int | None = None,
    group_size: int = 64,
    seed: int = 0,
) -> VoxtralRealtime:
    """A network whose weights keep activations near 1.

    Args:
        config: Numbers of the network.
        dtype: Floating-point type.
        bits: Packs all linear layers and the embedding, but not the conditioning; ``None`` packs
            nothing.
        group_size: Weights that share a scale.
        seed: Seed of the weights.
    """
    mx.random.seed(seed)
    model = VoxtralRealtime(config)
    if bits is not None:
        nn.quantize(
            model,
            group_size,
            bits,
            class_predicate=lambda path, module: (
                hasattr(module, "to_quantized")
                and "ada_norm" not in path
                and module.weight.shape[-1] % group_size == 0
            ),
        )
    parameters: Any = tree_flatten(model.parameters())
    shapes = {name: (x.shape, x.dtype) for name, x in parameters}
    del parameters
    for name, (shape, stored) in shapes.items():
        packed = stored == mx.uint32
        array = _packed(shape) if packed else _floats(name, shape, dtype, bits, group_size)
        mx.eval(array)
        model.update(tree_unflatten([(name, array)]))
    model.eval()
    return model


def _packed(shape: tuple[int, ...]) -> mx.array:
    """Codes that are all equally frequent."""
    halves = mx.random.randint(0, 1 << 16, (*shape, 2), dtype=mx.uint32)
    return halves[..., 0] << 16 | halves[..., 1]


def _floats(
    name: str, shape: tuple[int, ...], dtype: mx.Dtype, bits: int | None, group_size: int
) -> mx.array:
    if name.endswith("norm.weight"):
        return mx.ones(shape, dtype)
    if name.endswith((".scales", ".biases")) and bits is not None:
        # Codes 0 .. 2**bits - 1, evenly spread around 0 with the deviation of a normal layer.
        fan_in = shape[-1] * group_size
        deviation = 0.02 if "embed_tokens" in name else fan_in**-0.5
        scale = deviation * math.sqrt(12) / 2**bits
        value = scale if name.endswith(".scales") else -scale * (2**bits - 1) / 2
        return mx.full(shape, value, dtype)
    fan_in = math.prod(shape[1:]) if len(shape) > 1 else 2500
    deviation = 0.02 if "embed_tokens" in name else fan_in**-0.5
    return (mx.random.normal(shape) * deviation).astype(dtype)
