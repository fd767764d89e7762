"""Many recordings through one float32 network at once: texts, and scores of given tokens.

For tables of formats: packed weights run as the numbers that they stand for, and keys and values as
the numbers that their codes stand for. That gives a format's figures up to the rounding of float32,
at the speed of float32 products. It holds no format and writes no table.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from voxmlx.audio.decode import read_audio
from voxmlx.audio.mel import LogMelSpectrogram
from voxmlx.cache.quantized import QuantizedKVStore
from voxmlx.cache.ring import RingKVCache
from voxmlx.cache.store import KVStore, RingIndex
from voxmlx.config import DecoderConfig, EncoderConfig, KVCacheConfig
from voxmlx.evaluate.manifest import Utterance
from voxmlx.generation.prompt import delay_tokens, right_padding, streaming_prompt
from voxmlx.generation.step import DecodeState, decode_step, step_program
from voxmlx.models.encoder import EncoderState
from voxmlx.models.voxtral_realtime import VoxtralRealtime
from voxmlx.tokenizer import Tokenizer

ENCODE, FORCE = 25, 50
"""Positions of one pass: of the encoder, and of the decoder where all tokens are given."""


class TwinStore(KVStore):
    """Keys and values as the numbers that a compressed store's codes stand for."""

    def __init__(
        self, n_layers: int, n_kv_heads: int, head_dim: int, dtype: mx.Dtype, kv: KVCacheConfig
    ):
        super().__init__(n_layers, n_kv_heads, head_dim, dtype)
        self._coded = QuantizedKVStore(n_layers, n_kv_heads, head_dim, dtype, kv)

    def write(self, name: str, layer: int, new: mx.array, index: RingIndex) -> None:
        """Put what codes of ``new`` stand for into its slots."""
        super().write(name, layer, self._coded.rounded(new), index)


def make_ring(
    c: EncoderConfig | DecoderConfig, max_step: int, rows: int, kv: KVCacheConfig | None
) -> RingKVCache:
    """An empty ring of float32 numbers."""
    sizes = (c.n_layers, c.n_kv_heads, c.head_dim, mx.float32)
    store = KVStore(*sizes) if kv is None else TwinStore(*sizes, kv)
    window = c.sliding_window
    if window is None:
        raise ValueError("a realtime model has a sliding window")
    return RingKVCache(store, window, max_step, rows, c.rope_theta)


@dataclass
class Batch:
    """Recordings of similar length.

    Attributes:
        utterances: The recordings with their texts.
        mel: Frames of all of them, padded, ``(B, T, n_mels)``.
        seconds: Length of each in seconds.
        n_positions: Positions of each, prompt included.
    """

    utterances: list[Utterance]
    mel: np.ndarray
    seconds: list[float]
    n_positions: list[int]


def make_batches(model: VoxtralRealtime, utterances: Sequence[Utterance], rows: int) -> list[Batch]:
    """All recordings as the model hears them, sorted by length."""
    config = model.config
    audio, per_token = config.audio, config.audio.samples_per_token
    n_delay = delay_tokens(config.delay_ms, audio)
    spectrogram = LogMelSpectrogram(audio)
    found = []
    for utterance in utterances:
        samples = read_audio(utterance.audio)
        right = right_padding(len(samples), n_delay, per_token)
        padded = np.pad(samples, (config.n_left_pad_tokens * per_token, right))
        mel = spectrogram(padded.astype(np.float32))
        n = len(mel) // config.frames_per_token
        found.append((n, len(samples) / audio.sample_rate, utterance, mel))
    found.sort(key=lambda entry: entry[0])
    batches = []
    for start in range(0, len(found), rows):
        part = found[start : start + rows]
        n_max = -(-part[-1][0] // ENCODE) * ENCODE
        frames = np.zeros((len(part), n_max * config.frames_per_token, audio.n_mels), np.float32)
        for i, (n, _, _, mel) in enumerate(part):
            frames[i, : n * config.frames_per_token] = mel[: n * config.frames_per_token]
        batches.append(
            Batch([p[2] for p in part], frames, [p[1] for p in part], [p[0] for p in part])
        )
    return batches


class Twin:
    """A float32 network, with keys and values held in some way.

    Args:
        model: The network; its weights may stand for packed ones.
        tokenizer: Its tokenizer.
        kv: How keys and values are compressed; ``None`` keeps them as they are.
    """

    def __init__(
        self, model: VoxtralRealtime, tokenizer: Tokenizer, kv: KVCacheConfig | None = None
    ):
        self._model = model
        self._tokenizer = tokenizer
        self._kv = kv
        config = model.config
        self._n_delay = delay_tokens(config.delay_ms, config.audio)
        self._prompt = streaming_prompt(
            tokenizer.bos_id, tokenizer.pad_id, config.n_left_pad_tokens, self._n_delay
        )

    def embed(self, batch: Batch) -> mx.array:
        """Audio embeddings, ``(B, n, D)``."""
        config = self._model.config
        assert isinstance(config.encoder, EncoderConfig)  # checked by the network
        rows = len(batch.mel)
        ring = make_ring(config.encoder, ENCODE * config.downsample_factor, rows, self._kv)
        state, step = EncoderState(ring), ENCODE * config.frames_per_token
        parts = []
        for start in range(0, batch.mel.shape[1], step):
            mel = mx.array(batch.mel[:, start : start + step])
            parts.append(self._model.embed_audio(mel, state))
            mx.eval(parts[-1])
        return mx.concatenate(parts, axis=1)

    def transcribe(self, batch: Batch, audio: mx.array) -> list[list[int]]:
        """The likeliest token of every position after the prompt, up to EOS."""
        rows, n_prompt, eos = len(batch.n_positions), len(self._prompt), self._tokenizer.eos_id
        state, step = self._state(n_prompt, rows), step_program(self._model)
        placed = mx.array([self._prompt] * rows)
        token = step(state, placed, audio[:, :n_prompt], 1).argmax(axis=-1)
        found = [token]
        for k in range(n_prompt, max(batch.n_positions)):
            token = step(state, token, audio[:, k : k + 1], 1).argmax(axis=-1)
            mx.async_eval(token)
            found.append(token)
        ids = np.array(mx.concatenate(found, axis=1))
        outputs = []
        for row, n in zip(ids, batch.n_positions, strict=True):
            own = [int(i) for i in row[: n - n_prompt + 1]]
            outputs.append(own[: own.index(eos) + 1] if eos in own else own)
        return outputs

    def scores(
        self, batch: Batch, audio: mx.array, outputs: Sequence[Sequence[int]]
    ) -> Iterator[np.ndarray]:
        """Log-probabilities in the place of each given token, ``(n_outputs, vocab)`` a row."""
        first = len(self._prompt) - 1
        n_max = -(-(first + max(map(len, outputs))) // FORCE) * FORCE
        placed = np.full((len(outputs), n_max), self._tokenizer.pad_id)
        for row, ids in zip(placed, outputs, strict=True):
            row[: first + len(ids)] = [*self._prompt, *ids[:-1]]
        n_more = max(0, n_max - audio.shape[1])
        audio = mx.pad(audio, [(0, 0), (0, n_more), (0, 0)])
        state, parts = self._state(FORCE, len(outputs)), []
        for start in range(0, n_max, FORCE):
            part = slice(start, start + FORCE)
            tokens = mx.array(placed[:, part])
            scores = decode_step(self._model, state, tokens, audio[:, part], FORCE)
            parts.append(np.array(scores - mx.logsumexp(scores, axis=-1, keepdims=True)))
        whole = np.concatenate(parts, axis=1)
        for row, ids in zip(whole, outputs, strict=True):
            yield row[first : first + len(ids)]

    def _state(self, max_step: int, rows: int) -> DecodeState:
        decoder = self._model.decoder
        ring = make_ring(decoder.config, max_step, rows, self._kv)
        return DecodeState(ring, decoder.conditioning(self._n_delay))
