"""The decoding loop of one stream: audio embeddings in, token ids out.

It owns the prompt, the schedule and the end of the stream; it knows no audio and no text.
"""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx

from voxmlx.generation.prompt import streaming_prompt
from voxmlx.generation.sampling import sample
from voxmlx.generation.step import DecodeState, decode_step
from voxmlx.models.voxtral_realtime import VoxtralRealtime


@dataclass(frozen=True)
class SpecialIds:
    """Ids that steer decoding."""

    bos: int
    eos: int
    pad: int


@dataclass(frozen=True)
class GeneratedToken:
    """One output position.

    Attributes:
        index: 0-based count of outputs; its audio ends ``(index + 1 + delay)`` positions in.
        id: The token.
        logprob: Natural logarithm of its probability.
    """

    index: int
    id: int
    logprob: float


class TokenStream:
    """Decode one stream, position by position.

    Args:
        model: The network.
        ids: Special ids of its tokenizer.
        n_delay: Delay in positions.
        temperature: 0 takes the likeliest token.
        top_p: See :func:`voxmlx.generation.sampling.sample`.
        seed: Seed of the draws where ``temperature`` is above 0.
    """

    def __init__(
        self,
        model: VoxtralRealtime,
        ids: SpecialIds,
        n_delay: int,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
    ):
        self._model = model
        self._ids = ids
        self._temperature = temperature
        self._top_p = top_p
        self._key = mx.random.key(seed)
        n_left_pad = model.config.n_left_pad_tokens
        self._prompt = streaming_prompt(ids.bos, ids.pad, n_left_pad, n_delay)
        cache = model.decoder.make_cache(max_step=len(self._prompt))
        self._state = DecodeState(cache, model.decoder.conditioning(n_delay))
        self._rows: list[mx.array] = []
        self._n_rows = 0
        self._last: mx.array | None = None
        self.n_tokens = 0
        self.finished = False

    @property
    def n_ready(self) -> int:
        """Tokens that the embeddings at hand allow to decode."""
        if self.finished:
            return 0
        if self._last is None:
            return max(0, self._n_rows - len(self._prompt) + 1)
        return self._n_rows

    def add(self, audio: mx.array) -> None:
        """Queue audio embeddings of the next positions, ``(1, n, D)``."""
        if audio.shape[1]:
            self._rows.append(audio)
            self._n_rows += audio.shape[1]

    def step(self, max_tokens: int) -> list[GeneratedToken]:
        """Decode up to ``max_tokens`` tokens of those ready; after EOS there are none."""
        n = min(max_tokens, self.n_ready)
        if n <= 0:
            return []
        drawn: list[tuple[mx.array, mx.array]] = []
        tokens: list[GeneratedToken] = []
        if self._last is None:
            drawn.append(self._draw(self._prompt_tokens(), self._pop(len(self._prompt))))
            n -= 1
        for _ in range(n):
            if self._last is None:
                raise RuntimeError("a step without a previous token")
            drawn.append(self._draw(self._last, self._pop(1)))
            if len(drawn) > 1 and self._settle(drawn[-2], tokens):
                self._n_rows, self._rows = 0, []
                return tokens
        self._settle(drawn[-1], tokens)
        return tokens

    def _prompt_tokens(self) -> mx.array:
        return mx.array([self._prompt], dtype=mx.int32)

    def _draw(self, tokens: mx.array, audio: mx.array) -> tuple[mx.array, mx.array]:
        """Place ``tokens``, ``(1, T)``, and start computing the next id and its log-probability."""
        logits = decode_step(self._model, self._state, tokens, audio, 1)[:, -1]
        if self._temperature > 0:
            self._key, key = mx.random.split(self._key)
        else:
            key = self._key
        token = sample(logits, self._temperature, self._top_p, key)[:, None]
        logits = logits.astype(mx.float32)
        logprob = mx.take_along_axis(logits, token, axis=-1) - mx.logsumexp(logits, -1)[:, None]
        self._last = token.astype(mx.int32)
        mx.async_eval(self._last, logprob)
        return self._last, logprob

    def _settle(self, drawn: tuple[mx.array, mx.array], tokens: list[GeneratedToken]) -> bool:
        """Read a token from the device; True at EOS."""
        token = GeneratedToken(self.n_tokens, int(drawn[0].item()), float(drawn[1].item()))
        self.n_tokens += 1
        tokens.append(token)
        self.finished = token.id == self._ids.eos
        return self.finished

    def _pop(self, n: int) -> mx.array:
        """Take the oldest ``n`` embeddings, ``(1, n, D)``."""
        if len(self._rows) > 1 and self._rows[0].shape[1] < n:
            self._rows = [mx.concatenate(self._rows, axis=1)]
        rows = self._rows[0]
        self._n_rows -= n
        if rows.shape[1] == n:
            del self._rows[0]
        else:
            self._rows[0] = rows[:, n:]
        return rows[:, :n]
