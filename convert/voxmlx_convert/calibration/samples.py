"""Calibration data: speech, and the tokens that the float model itself writes for it.

A realtime model never sees plain text: its input is audio and token embeddings added up, most
tokens are pads, and the delay scales every feed-forward block. Data of any other kind fits the
weights to activations that never occur.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import numpy as np

from voxmlx.audio.decode import read_audio
from voxmlx.audio.mel import LogMelSpectrogram
from voxmlx.generation.prompt import delay_tokens, right_padding, streaming_prompt
from voxmlx.models.voxtral_realtime import VoxtralRealtime
from voxmlx.pipeline import Pipeline
from voxmlx.tokenizer import Tokenizer

SAMPLE_RATE = 16000
WINDOW_S = 20.0
"""Longest sample: the prompt's share of the positions stays small, and so do activations."""
LEAST_S = 1.0
"""Shorter pieces are left out."""
AUDIO_FILES = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a")


@dataclass(frozen=True)
class Sample:
    """One recording as the model hears it, with what it wrote.

    Attributes:
        mel: Log-mel frames of the padded recording, ``(T, n_mels)``.
        placed: Ids placed at the positions: prompt, then outputs.
        first: Position whose scores choose the first output.
        n_delay: Delay in positions.
    """

    mel: np.ndarray
    placed: tuple[int, ...]
    first: int
    n_delay: int

    @property
    def n_outputs(self) -> int:
        """Positions that are scored."""
        return len(self.placed) - self.first


def find_recordings(paths: Iterable[Path]) -> list[Path]:
    """The files among ``paths``, and the audio files in the folders among them."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(p for p in path.rglob("*") if p.suffix.lower() in AUDIO_FILES)
        else:
            found.append(path)
    return found


def read_windows(
    recordings: Sequence[Path], limit_s: float, window_s: float = WINDOW_S
) -> list[np.ndarray]:
    """Pieces of recordings, ``(n,)`` float32 at 16 kHz, ``limit_s`` seconds together.

    Raises:
        AudioError: If a recording cannot be read.
        ValueError: If there is less than a second of audio.
    """
    windows: list[np.ndarray] = []
    left = round(limit_s * SAMPLE_RATE)
    size, least = round(window_s * SAMPLE_RATE), round(LEAST_S * SAMPLE_RATE)
    for path in recordings:
        samples = read_audio(path)
        for start in range(0, len(samples), size):
            piece = samples[start : start + min(size, left)]
            if len(piece) >= least:
                windows.append(piece)
                left -= len(piece)
            if left < least:
                return windows
    if not windows:
        raise ValueError(f"calibration needs at least {LEAST_S:g} s of audio in one recording")
    return windows


def make_samples(
    model: VoxtralRealtime, tokenizer: Tokenizer, windows: Iterable[np.ndarray]
) -> list[Sample]:
    """Let the float model transcribe each piece at its own delay."""
    pipeline = Pipeline(model, tokenizer)
    samples = []
    for window in windows:
        tokens = pipeline.generate(window, sample_rate=SAMPLE_RATE).tokens
        if tokenizer.eos_id in tokens:
            tokens = tokens[: tokens.index(tokenizer.eos_id) + 1]
        samples.append(make_sample(model, tokenizer, window, tokens))
        mx.clear_cache()
    return samples


def make_sample(
    model: VoxtralRealtime, tokenizer: Tokenizer, samples: np.ndarray, tokens: Sequence[int]
) -> Sample:
    """The input of a decoder that writes ``tokens`` for a recording."""
    config = model.config
    n_delay = delay_tokens(config.delay_ms, config.audio)
    per_token = config.audio.samples_per_token
    left = config.n_left_pad_tokens * per_token
    padded = np.pad(samples, (left, right_padding(len(samples), n_delay, per_token)))
    mel = LogMelSpectrogram(config.audio)(padded.astype(np.float32))
    prompt = streaming_prompt(tokenizer.bos_id, tokenizer.pad_id, config.n_left_pad_tokens, n_delay)
    placed = (*prompt, *tokens[:-1])
    mel = mel[: len(mel) // config.frames_per_token * config.frames_per_token]
    return Sample(mel, placed, len(prompt) - 1, n_delay)


def logits(model: VoxtralRealtime, sample: Sample) -> mx.array:
    """Scores of a sample's outputs, ``(n_outputs, vocab)``, in one differentiable pass."""
    tokens = mx.array(sample.placed, dtype=mx.int32)[None]
    n = tokens.shape[1]
    audio = model.embed_audio(mx.array(sample.mel)[None])[:, :n]
    cache = model.decoder.make_cache(max_step=n)
    hidden = model(tokens, audio, cache, model.decoder.conditioning(sample.n_delay))
    return model.decoder.logits(hidden[:, sample.first :])[0]


def mean_kl(reference: mx.array, scores: mx.array) -> mx.array:
    """Mean over rows of KL(softmax(reference) || softmax(scores)), in nats."""
    p = reference.astype(mx.float32)
    q = scores.astype(mx.float32)
    p = p - mx.logsumexp(p, axis=-1, keepdims=True)
    q = q - mx.logsumexp(q, axis=-1, keepdims=True)
    return (mx.exp(p) * (p - q)).sum(axis=-1).mean()
