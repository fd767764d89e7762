"""The fixed prompt and padding of the realtime model, and the meaning of a delay.

Source: ``mistral_common`` 1.13 (streaming audio encoding) and the ``audio`` section of the
released tokenizer: 32 pads on the left, one pad for each token of delay, and on the right the
delay, one token for BOS and ten for the last word.
"""

from __future__ import annotations

from voxmlx.config import SUPPORTED_DELAYS_MS, AudioConfig

N_BUFFER_TOKENS = 10
"""Silent positions after the audio, for a long last word (``mistral_common``)."""


def delay_tokens(delay_ms: int, audio: AudioConfig) -> int:
    """Delay in decoder positions.

    Args:
        delay_ms: One of the delays the model was trained for.
        audio: Gives the length of a position.

    Raises:
        ValueError: If the model was not trained for this delay.
    """
    if isinstance(delay_ms, bool) or delay_ms not in SUPPORTED_DELAYS_MS:
        raise ValueError(
            "transcription_delay_ms must be a multiple of 80 from 80 to 1200, or 2400, "
            f"got {delay_ms!r}; supported: {', '.join(map(str, SUPPORTED_DELAYS_MS))}"
        )
    return round(delay_ms / audio.token_ms)


def streaming_prompt(bos_id: int, pad_id: int, n_left_pad: int, n_delay: int) -> list[int]:
    """Token ids of the positions before the first output."""
    return [bos_id] + [pad_id] * (n_left_pad + n_delay)


def right_padding(n_samples: int, n_delay: int, samples_per_token: int) -> int:
    """Zeros after ``n_samples`` of audio: up to a whole position, then delay, BOS and buffer."""
    return -n_samples % samples_per_token + (n_delay + 1 + N_BUFFER_TOKENS) * samples_per_token
