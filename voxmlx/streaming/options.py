"""How a session decodes. Plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from voxmlx.config import KVCacheConfig, kv_cache_config
from voxmlx.generation.rules import LogitRule
from voxmlx.streaming.endless import OnEos


@dataclass(frozen=True)
class StreamOptions:
    """How a session decodes. The defaults suit live audio.

    Attributes:
        temperature: 0 takes the likeliest token.
        top_p: Mass of the likeliest tokens to draw from, where ``temperature`` is above 0.
        seed: Seed of the draws.
        on_eos: What to do where the model ends the stream although audio goes on: ``"restart"``
            the decoder (:class:`voxmlx.streaming.endless.EndlessStream`), or ``"stop"``, as the
            reference does with files.
        rut_guard: Whether to stop long ruts of pads (:mod:`voxmlx.generation.rut_guard`).
        rules: Further logit rules.
        top_logprobs: With a number, every token gives a :class:`TokenScores` event with so many
            alternatives, 0 included; ``None`` gives no such events.
        keep_history: Whether tokens are kept for :meth:`StreamingSession.result` and ``tokens``,
            at 75 kB an hour; without it, both are empty.
        context_bias: Phrases to expect, such as names; they become likelier
            (:mod:`voxmlx.generation.bias`).
        keywords: The same under the name that servers use; both lists count.
        bias_strength: Factor of how much likelier.
        kv_bits: Bits of a stored key or value, 2, 3, 4 or 8; ``None`` keeps them as they are.
        kv_rotation: ``none``, ``planar``, ``iso`` or ``hadamard``: what spreads outliers before
            keys and values are rounded to ``kv_bits``.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    on_eos: OnEos = "restart"
    rut_guard: bool = True
    rules: Sequence[LogitRule] = ()
    top_logprobs: int | None = None
    keep_history: bool = True
    context_bias: Sequence[str] = ()
    keywords: Sequence[str] = ()
    bias_strength: float = 1.0
    kv_bits: int | None = None
    kv_rotation: str = "hadamard"

    def __post_init__(self) -> None:
        """Check the values."""
        kv_cache_config(self.kv_bits, self.kv_rotation)
        for name in ("context_bias", "keywords"):
            if isinstance(getattr(self, name), str):
                value = getattr(self, name)
                raise TypeError(f"{name} must be a list of phrases, got {value!r}")

    @property
    def kv(self) -> KVCacheConfig | None:
        """How keys and values are compressed."""
        return kv_cache_config(self.kv_bits, self.kv_rotation)
