"""The one inner step of every decoding loop: positions in, logits out.

Plain, parallel and batched decoding differ in which tokens they place and which logits they keep;
all of them run :func:`decode_step`.
"""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx

from voxmlx.cache.ring import RingKVCache
from voxmlx.models.voxtral_realtime import VoxtralRealtime


@dataclass
class DecodeState:
    """What the decoder remembers of its rows.

    Attributes:
        cache: Keys and values, one ring per layer.
        conditioning: Feed-forward scales of the rows' delay (``Decoder.conditioning``).
    """

    cache: RingKVCache
    conditioning: mx.array | None


def decode_step(
    model: VoxtralRealtime,
    state: DecodeState,
    tokens: mx.array,
    audio: mx.array,
    n_logits: int | mx.array,
) -> mx.array:
    """Run the next positions of every row and score the tokens that follow some of them.

    Args:
        model: The network.
        state: Advanced by T positions.
        tokens: Ids placed at the positions, ``(B, T)``.
        audio: Audio embeddings of the positions, ``(B, T, D)``.
        n_logits: How many of the last positions to score, or the positions of this step to score
            in each row, ``(B, N)``.

    Returns:
        ``(B, N, vocab)``.
    """
    hidden = model(tokens, audio, state.cache, state.conditioning)
    if isinstance(n_logits, int):
        hidden = hidden[:, -n_logits:]
    else:
        hidden = mx.take_along_axis(hidden, n_logits[..., None], axis=1)
    return model.decoder.logits(hidden)
