"""Every network and every layout of its weights. A new one is one line here and one format file."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import mlx.nn as nn

from voxmlx.checkpoints.hf import HF_REALTIME
from voxmlx.checkpoints.hlwq import unpack_hlwq
from voxmlx.checkpoints.layout import Layout
from voxmlx.checkpoints.marlin import MARLIN_REALTIME, unpack_marlin
from voxmlx.checkpoints.mistral import MISTRAL_REALTIME
from voxmlx.checkpoints.mlx_audio import MISTRAL_IN_MLX_AUDIO, MLX_AUDIO_REALTIME
from voxmlx.checkpoints.old_voxmlx import OLD_VOXMLX_REALTIME
from voxmlx.checkpoints.safetensors import LazyTensor
from voxmlx.checkpoints.voxtral_hf import HF_VOXTRAL, MLX_AUDIO_VOXTRAL
from voxmlx.checkpoints.voxtral_mistral import MISTRAL_VOXTRAL
from voxmlx.config import ModelConfig
from voxmlx.models.voxtral import Voxtral
from voxmlx.models.voxtral_realtime import VoxtralRealtime

MODELS: dict[str, Callable[[ModelConfig], nn.Module]] = {
    "voxtral_realtime": VoxtralRealtime,
    "voxtral": Voxtral,
}
"""Networks by ``model_type``."""

LAYOUTS: tuple[Layout, ...] = (
    MARLIN_REALTIME,
    MISTRAL_REALTIME,
    MISTRAL_IN_MLX_AUDIO,
    MLX_AUDIO_REALTIME,
    OLD_VOXMLX_REALTIME,
    HF_REALTIME,
    MISTRAL_VOXTRAL,
    HF_VOXTRAL,
)
"""Layouts that can be read, told apart by the names of their tensors."""

PACKINGS: tuple[Callable[[dict[str, LazyTensor]], dict[str, LazyTensor]], ...] = (
    unpack_marlin,
    unpack_hlwq,
)
"""Foreign packings, each taken apart into plain tensors or MLX's own codes before names matter."""

PUBLISHED: dict[str, Layout] = {
    "voxtral_realtime": MLX_AUDIO_REALTIME,
    "voxtral": MLX_AUDIO_VOXTRAL,
}
"""The layout that each network is written in."""


def detect_layouts(names: Iterable[str]) -> list[Layout]:
    """The layouts that tensors of these names may be in; they differ only in configuration."""
    names = list(names)
    return [layout for layout in LAYOUTS if any(map(layout.mark.match, names))]
