"""What a model is made of: its numbers, whatever file they were read from.

Each checkpoint format reads its own configuration file into these classes
(:mod:`voxmlx.checkpoints`); networks see nothing else. Names follow Mistral's ``params.json``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from voxmlx.errors import ConfigError

T = TypeVar("T")

SUPPORTED_DELAYS_MS = (*range(80, 1201, 80), 2400)
"""Delays the released model was trained for (its model card): 1 to 15 and 30 tokens of 80 ms."""


def from_mapping(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    """Build a settings dataclass from a mapping with exactly its fields.

    Raises:
        ConfigError: If a key is unknown or a required one is missing.
    """
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise ConfigError(f"{where}: unknown key {unknown[0]!r}; known keys: {', '.join(fields)}")
    for name, f in fields.items():
        required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if required and name not in values:
            raise ConfigError(f"{where}: key {name!r} is missing")
    return cls(**values)


def _check_positive(config: object, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
            raise ConfigError(
                f"{type(config).__name__}.{name} must be a positive integer, got {value!r}"
            )


@dataclass(frozen=True)
class AudioConfig:
    """The log-mel front end.

    ``global_log_mel_max`` is the fixed maximum of the realtime model; ``None`` means the maximum of
    the clip, as Whisper does.
    """

    sample_rate: int = 16000
    n_mels: int = 128
    hop_length: int = 160
    window_size: int = 400
    frame_rate: float = 12.5
    global_log_mel_max: float | None = 1.5

    def __post_init__(self) -> None:
        """Check the values."""
        _check_positive(self, "sample_rate", "n_mels", "hop_length", "window_size")

    @property
    def samples_per_token(self) -> int:
        """Samples of audio behind one decoder position (1280: 80 ms)."""
        return round(self.sample_rate / self.frame_rate)

    @property
    def token_ms(self) -> float:
        """Milliseconds of audio behind one decoder position."""
        return 1000.0 / self.frame_rate


@dataclass(frozen=True)
class EncoderConfig:
    """The causal audio encoder. ``sliding_window`` counts keys, the query's own included."""

    dim: int
    n_layers: int
    n_heads: int
    head_dim: int
    hidden_dim: int
    sliding_window: int
    norm_eps: float = 1e-5
    rope_theta: float = 1e6

    def __post_init__(self) -> None:
        """Check the values."""
        _check_positive(
            self, "dim", "n_layers", "n_heads", "head_dim", "hidden_dim", "sliding_window"
        )

    @property
    def n_kv_heads(self) -> int:
        """Key and value heads: as many as query heads."""
        return self.n_heads


@dataclass(frozen=True)
class WhisperEncoderConfig:
    """The encoder of the offline model: Whisper's, for chunks of fixed length.

    ``n_positions`` counts the rows of one chunk (50 Hz): 1500 for 30 seconds.
    """

    dim: int
    n_layers: int
    n_heads: int
    head_dim: int
    hidden_dim: int
    n_positions: int = 1500
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        """Check the values."""
        _check_positive(self, "dim", "n_layers", "n_heads", "head_dim", "hidden_dim", "n_positions")

    @property
    def n_kv_heads(self) -> int:
        """Key and value heads: as many as query heads."""
        return self.n_heads


@dataclass(frozen=True)
class DecoderConfig:
    """The text decoder.

    ``sliding_window`` counts keys, the query's own included; ``None`` means all of them.
    ``ada_dim`` is the width of the delay conditioning; ``None`` means the model has none.
    """

    dim: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    hidden_dim: int
    vocab_size: int
    sliding_window: int | None
    norm_eps: float = 1e-5
    rope_theta: float = 1e6
    tied_embeddings: bool = True
    ada_dim: int | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        _check_positive(
            self, "dim", "n_layers", "n_heads", "n_kv_heads", "head_dim", "hidden_dim", "vocab_size"
        )
        if self.sliding_window is not None:
            _check_positive(self, "sliding_window")
        if self.n_heads % self.n_kv_heads:
            raise ConfigError(
                f"DecoderConfig.n_heads must be a multiple of n_kv_heads={self.n_kv_heads}, "
                f"got {self.n_heads}"
            )


KV_BITS = (2, 3, 4, 8)
KV_ROTATIONS = ("none", "planar", "iso", "hadamard")


@dataclass(frozen=True)
class KVCacheConfig:
    """How keys and values are compressed.

    ``none`` and ``hadamard`` store affine codes, ``planar`` and ``iso`` a norm and codebook codes.
    """

    bits: int
    rotation: str = "hadamard"

    def __post_init__(self) -> None:
        """Check the values."""
        if isinstance(self.bits, bool) or self.bits not in KV_BITS:
            raise ValueError(f"kv_bits must be one of 2, 3, 4, 8, got {self.bits!r}")
        if self.rotation not in KV_ROTATIONS:
            names = ", ".join(KV_ROTATIONS)
            raise ValueError(f"kv_rotation must be one of {names}, got {self.rotation!r}")


def kv_cache_config(bits: int | None, rotation: str = "hadamard") -> KVCacheConfig | None:
    """The setting of ``kv_bits`` and ``kv_rotation``; without bits nothing is compressed.

    Raises:
        ValueError: If there is no such setting.
    """
    setting = KVCacheConfig(8 if bits is None else bits, rotation)
    return None if bits is None else setting


@dataclass(frozen=True)
class QuantizationConfig:
    """How quantised modules are stored.

    ``overrides`` maps a module path to its own setting, or to ``None`` where it is left in floating
    point. Which modules are quantised at all is decided by the ``.scales`` in the file.
    """

    bits: int
    group_size: int
    mode: str = "affine"
    overrides: Mapping[str, QuantizationConfig | None] = field(default_factory=dict)

    def of(self, path: str) -> QuantizationConfig | None:
        """The setting for the module at ``path``."""
        return self.overrides.get(path, self) if self.overrides else self


@dataclass(frozen=True)
class ModelConfig:
    """A whole model.

    ``delay_ms`` is the delay used where a caller names none. It and ``n_left_pad_tokens`` mean
    something to the realtime model alone, whose encoder is an :class:`EncoderConfig`.
    """

    model_type: str
    audio: AudioConfig
    encoder: EncoderConfig | WhisperEncoderConfig
    decoder: DecoderConfig
    downsample_factor: int = 4
    n_left_pad_tokens: int = 32
    delay_ms: int = 480
    quantization: QuantizationConfig | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        _check_positive(self, "downsample_factor")

    @property
    def frames_per_token(self) -> int:
        """Mel frames behind one decoder position (8): the second convolution halves the rate."""
        return 2 * self.downsample_factor
