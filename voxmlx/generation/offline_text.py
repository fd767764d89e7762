"""The decoding loop of the offline model: a prompt with recordings in, token ids out.

The prompt is placed in bounded pieces, audio encoded chunk by chunk on the way. What stands in the
cache is remembered position by position, so a prompt that begins like the last one starts where
they part. It knows no text and no files.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import cast

import mlx.core as mx

from voxmlx.audio.mel import LogMelSpectrogram
from voxmlx.config import KVCacheConfig
from voxmlx.generation.chat_prompt import Clip, Prompt
from voxmlx.generation.lookup import LookupGuesser
from voxmlx.generation.sampling import check_sampling, sample
from voxmlx.generation.speculative import count_right
from voxmlx.models.voxtral import CONTEXT, Voxtral

PREFILL_POSITIONS = 2048
"""Positions of a prompt placed by one pass: enough to keep a GPU busy, in few passes, as CUDA plans
attention for each. It bounds the memory of its scores itself (:mod:`voxmlx.cache.attention`)."""


PASSES_A_CLEANING = 2
"""Passes of a prompt between two returns of unused memory; allocating anew is slow on CUDA."""


@dataclass(frozen=True)
class TextOptions:
    """How a text is decoded.

    Attributes:
        max_tokens: Most tokens; ``None`` means up to the end of the context.
        temperature: 0 takes the likeliest token.
        top_p: See :func:`voxmlx.generation.sampling.sample`.
        seed: Seed of the draws where ``temperature`` is above 0.
        guess: Whether to try repetitions of earlier text several tokens at a time.
        likely_text: Ids of text that may be written again, as that of an overlapping recording.
    """

    max_tokens: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    guess: bool = True
    likely_text: Sequence[int] = ()

    def __post_init__(self) -> None:
        """Check the values."""
        check_sampling(self.temperature, self.top_p)
        if self.max_tokens is not None and self.max_tokens < 1:
            raise ValueError(f"max_tokens must be at least 1, got {self.max_tokens!r}")


class TextDecoder:
    """One context of the offline model, used for one prompt after another.

    Args:
        model: The network.
        eos_id: Ends a text.
        context: Most positions, prompt and text together.
        kv: How keys and values are compressed; ``None`` keeps them as they are.

    Attributes:
        encode_s: Time spent on audio, in seconds, of all prompts.
        decode_s: Time spent in the decoder.
        n_passes: Passes of the decoder.
        n_reused: Positions of the last prompt that were in the cache.
        busy: Whether a text is being decoded.
    """

    def __init__(
        self,
        model: Voxtral,
        eos_id: int,
        context: int = CONTEXT,
        kv: KVCacheConfig | None = None,
    ):
        self.context = context
        self.kv = kv
        self.encode_s = 0.0
        self.decode_s = 0.0
        self.n_passes = 0
        self.n_reused = 0
        self.busy = False
        self._model = model
        self._eos = eos_id
        self._mel = LogMelSpectrogram(model.config.audio)
        self._cache = model.decoder.make_cache(PREFILL_POSITIONS, window=context, kv=kv)
        self._placed: list[Hashable] = []

    @property
    def nbytes(self) -> int:
        """Bytes held by keys and values."""
        return self._cache.nbytes

    def generate(self, prompt: Prompt, options: TextOptions) -> Iterator[int]:
        """Decode the text after a prompt, id by id; EOS is the last one if it was reached.

        One text at a time; closing the iterator ends it.

        Raises:
            ValueError: If the prompt leaves no room in the context.
            RuntimeError: If another text is being decoded.
        """
        if self.busy:
            raise RuntimeError("one text at a time; finish or close the other iterator")
        self.busy = True
        try:
            yield from self._generate(prompt, options)
        finally:
            self.busy = False

    def score(self, prompt: Prompt, tokens: Sequence[int]) -> mx.array:
        """Scores in the place of each token where all are placed after a prompt, ``(n, vocab)``."""
        logits = [self._prefill(prompt)]
        placed = list(tokens[:-1])
        for start in range(0, len(placed), PREFILL_POSITIONS):
            part = placed[start : start + PREFILL_POSITIONS]
            logits.append(self._place(mx.array(part)))
            self._placed += part
        return mx.concatenate(logits)

    def _generate(self, prompt: Prompt, options: TextOptions) -> Iterator[int]:
        room = self.context - len(prompt)
        if room < 1:
            raise ValueError(
                f"the prompt takes {len(prompt)} positions, the context holds {self.context} with "
                "the text; shorten the audio or the conversation"
            )
        limit = room if options.max_tokens is None else min(room, options.max_tokens)
        logits = self._prefill(prompt)
        if options.temperature > 0:
            ids = self._draw(logits, options)
        else:
            ids = self._search(logits, options)
        for _ in range(limit):
            started = time.perf_counter()
            token = next(ids)
            self.decode_s += time.perf_counter() - started
            yield token
            if token == self._eos:
                return

    def _prefill(self, prompt: Prompt) -> mx.array:
        """Place a prompt and score what follows it, ``(1, vocab)``."""
        keys = prompt.keys()
        pairs = zip(self._placed, keys[:-1], strict=False)
        n = self.n_reused = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        self._keep(n)
        self._cache.reserve(len(prompt))
        hidden = None
        for x in _rechunk(self._embeddings(prompt, n), PREFILL_POSITIONS):
            started = time.perf_counter()
            self._placed += keys[n : n + x.shape[1]]
            n += x.shape[1]
            hidden = self._model(x, self._cache)[:, -1:]
            mx.eval(hidden)
            self.n_passes += 1
            if self.n_passes % PASSES_A_CLEANING == 0:
                mx.clear_cache()  # shapes grow with the context, so old buffers fit nothing
            self.decode_s += time.perf_counter() - started
        if hidden is None:
            raise RuntimeError("a prompt without positions")
        return self._model.decoder.logits(hidden)[:, 0]

    def _embeddings(self, prompt: Prompt, start: int) -> Iterator[mx.array]:
        """Input embeddings of the positions from ``start`` on, ``(1, n, D)`` at a time."""
        for piece in prompt.pieces:
            n = piece.n_tokens if isinstance(piece, Clip) else len(piece)
            if start >= n:
                start -= n
                continue
            if isinstance(piece, Clip):
                yield from self._audio(piece, start)
            else:
                yield self._model.embed_tokens(list(piece[start:]))
            start = 0

    def _audio(self, clip: Clip, start: int) -> Iterator[mx.array]:
        """Audio embeddings of a clip from position ``start`` on, a chunk at a time."""
        per_chunk, n_frames = self._model.chunk_tokens, self._model.chunk_frames
        started = time.perf_counter()
        mel = self._mel(clip.padded)
        for i in range(start // per_chunk, clip.n_tokens // per_chunk):
            chunk = mx.array(mel[i * n_frames : (i + 1) * n_frames])[None]
            rows = self._model.embed_audio(chunk)[:, max(0, start - i * per_chunk) :]
            mx.eval(rows)
            self.encode_s += time.perf_counter() - started
            yield rows
            started = time.perf_counter()

    def _keep(self, n: int) -> None:
        """Forget all positions but the first ``n``."""
        self._cache.rewind(self._cache.offsets[0] - n)
        del self._placed[n:]

    def _place(self, tokens: mx.array) -> mx.array:
        """Place tokens, ``(T,)``, and start scoring what follows each, ``(T, vocab)``."""
        self.n_passes += 1
        x = self._model.decoder.embed_tokens(tokens[None])
        return self._model.decoder.logits(self._model(x, self._cache))[0]

    def _draw(self, logits: mx.array, options: TextOptions) -> Iterator[int]:
        """Draw one token after another."""
        key = mx.random.key(options.seed)
        while True:
            key, draw = mx.random.split(key)
            token = sample(logits, options.temperature, options.top_p, draw)
            (token_id,) = _read(token)
            yield token_id
            logits = self._place(token)
            self._placed.append(token_id)

    def _search(self, logits: mx.array, options: TextOptions) -> Iterator[int]:
        """Take the likeliest tokens; several in a pass where earlier text repeats.

        The pass after a token is under way before the token is read. A guess is tried once that
        pass has confirmed its first token, so a wrong one costs little.
        """
        guesser = LookupGuesser(options.likely_text)
        token = mx.argmax(logits, axis=-1)
        while True:
            following = mx.argmax(self._place(token), axis=-1)
            mx.async_eval(following)
            (token_id,) = _read(token)
            self._placed.append(token_id)
            guesser.add([token_id])
            yield token_id
            token = following
            guess = guesser.guess(self.context - len(self._placed)) if options.guess else []
            if guess and guess[:1] == _read(following):
                ids = _read(mx.argmax(self._place(mx.array(guess)), axis=-1))
                n = 1 + count_right(guess[1:], ids)
                guesser.learn(n, len(guess))
                self._cache.rewind(len(guess) - n)
                self._placed += guess[:n]
                guesser.add(guess[:n])
                yield from guess[:n]
                token = mx.array(ids[n - 1 : n])


def _read(ids: mx.array) -> list[int]:
    """Wait for ids, ``(n,)``."""
    return cast("list[int]", ids.tolist())


def _rechunk(parts: Iterator[mx.array], size: int) -> Iterator[mx.array]:
    """Join and cut ``(1, n, D)`` arrays into pieces of ``size``, the last one shorter."""
    held: list[mx.array] = []
    n_held = 0
    for part in parts:
        held.append(part)
        n_held += part.shape[1]
        while n_held >= size:
            joined = mx.concatenate(held, axis=1)
            yield joined[:, :size]
            held, n_held = [joined[:, size:]], n_held - size
    if n_held:
        yield mx.concatenate(held, axis=1)
