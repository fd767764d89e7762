"""Comparing a converted model with its source on a piece of audio.

Both models score the same tokens, those that the source writes greedily, so that one early
difference does not spoil all later ones. The models are loaded one after the other.
"""

from __future__ import annotations

import gc
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import numpy as np

from voxmlx.errors import CheckpointError
from voxmlx.offline import OfflinePipeline
from voxmlx.pipeline import Pipeline, load
from voxmlx_convert.calibration.samples import SAMPLE_RATE, logits, make_sample


@dataclass(frozen=True)
class Verification:
    """How far a converted model is from its source.

    Attributes:
        n_tokens: Tokens compared.
        max_error: Largest difference of a logit.
        mean_error: Mean absolute difference of the logits.
        logit_std: Standard deviation of the source's logits, the scale of both errors.
        mean_kl: Mean Kullback-Leibler divergence of the result's distributions, in nats.
        agreement: Share of positions where both find the same token likeliest.
        free_agreement: Share of equal tokens where each model runs on by itself.
        source_text: What the source transcribed.
        result_text: What the result transcribed.
    """

    n_tokens: int
    max_error: float
    mean_error: float
    logit_std: float
    mean_kl: float
    agreement: float
    free_agreement: float
    source_text: str
    result_text: str


def verify_conversion(source: Path, result: Path, samples: np.ndarray) -> Verification:
    """Compare two checkpoints of one model.

    Args:
        source: Folder of the reference.
        result: Folder of the converted model.
        samples: Mono audio, ``(n,)`` float32 at 16 kHz.

    Raises:
        CheckpointError: If a folder does not load, or the result's logits are not finite.
    """
    pipeline = load(source)
    tokens, source_text = _transcribe(pipeline, samples)
    reference = forced_logits(pipeline, samples, tokens)
    del pipeline
    gc.collect()
    mx.clear_cache()  # room for the second model
    pipeline = load(result)
    own_tokens, result_text = _transcribe(pipeline, samples)
    logits = forced_logits(pipeline, samples, tokens)
    if not np.isfinite(logits).all():
        raise CheckpointError(f"{result}: the converted model's logits are not finite")
    return _compare(reference, logits, tokens, own_tokens, source_text, result_text)


def forced_logits(
    pipeline: Pipeline | OfflinePipeline, samples: np.ndarray, tokens: list[int]
) -> np.ndarray:
    """Scores of each output position while ``tokens`` are placed, ``(len(tokens), vocab)``."""
    if isinstance(pipeline, OfflinePipeline):
        return np.asarray(pipeline.score(samples, tokens).astype(mx.float32))
    sample = make_sample(pipeline.model, pipeline.tokenizer, samples, tokens)
    return np.asarray(logits(pipeline.model, sample).astype(mx.float32))


def _transcribe(pipeline: Pipeline | OfflinePipeline, samples: np.ndarray) -> tuple[list[int], str]:
    result = pipeline.generate(samples, sample_rate=SAMPLE_RATE)
    eos = pipeline.tokenizer.eos_id
    tokens = result.tokens
    return tokens[: tokens.index(eos) + 1] if eos in tokens else tokens, result.text


def _compare(
    reference: np.ndarray,
    logits: np.ndarray,
    tokens: list[int],
    own_tokens: list[int],
    source_text: str,
    result_text: str,
) -> Verification:
    errors = np.abs(reference - logits)
    equal = sum(a == b for a, b in zip(tokens, own_tokens, strict=False))
    return Verification(
        n_tokens=len(tokens),
        max_error=float(errors.max()),
        mean_error=float(errors.mean()),
        logit_std=float(reference.std()),
        mean_kl=mean_kl(reference, logits),
        agreement=float((reference.argmax(-1) == logits.argmax(-1)).mean()),
        free_agreement=equal / max(len(tokens), len(own_tokens)),
        source_text=source_text,
        result_text=result_text,
    )


def mean_kl(reference: np.ndarray, logits: np.ndarray) -> float:
    """Mean over rows of KL(softmax(reference) || softmax(logits)), in nats."""
    p, q = _log_softmax(reference), _log_softmax(logits)
    return float((np.exp(p) * (p - q)).sum(-1).mean())


def _log_softmax(x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64) - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def synthetic_speech(seconds: float = 6.0, seed: int = 0) -> np.ndarray:
    """Voice-like harmonics with pauses, ``(n,)`` float32: audio where none is given."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    pitch = 120 * (1 + 0.2 * np.sin(2 * np.pi * 0.7 * t) + 0.05 * np.sin(2 * np.pi * 5 * t))
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
    voice = sum(np.sin(k * phase + k * k) / k for k in range(1, 20))
    syllables = np.clip(np.sin(2 * np.pi * 3.3 * t) * np.sin(2 * np.pi * 0.25 * t), 0, 1)
    return (0.2 * voice * syllables + 0.002 * rng.standard_normal(len(t))).astype(np.float32)
