"""One row of a decoder: its known tokens, its guesses, its audio and its rules. No network here.

A pass places *known* tokens (the prompt, or the last output) and then guesses of the tokens that
follow. The network scores every placed position at once; guesses are kept up to the first one that
differs from what the network chose, so the tokens are those of a loop that places one at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx

from voxmlx.generation.rules import LogitRule, initial_states, next_states, total_bias
from voxmlx.generation.sampling import check_sampling, sample
from voxmlx.generation.speculative import Guesser, count_right


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
        alternatives: The likeliest ids with their log-probabilities, best first, where asked for.
    """

    index: int
    id: int
    logprob: float
    alternatives: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class RowOptions:
    """How one row is decoded.

    Attributes:
        n_delay: Delay in positions.
        temperature: 0 takes the likeliest token.
        top_p: See :func:`voxmlx.generation.sampling.sample`.
        seed: Seed of the draws where ``temperature`` is above 0.
        rules: Push or bar tokens by what the row has written.
        positions_per_pass: Positions to try in a pass; ``None`` adapts to the guesses' success.
        n_alternatives: How many of the likeliest ids to report with each token.
    """

    n_delay: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    rules: tuple[LogitRule, ...] = ()
    positions_per_pass: int | None = None
    n_alternatives: int = 0

    def __post_init__(self) -> None:
        """Check the values."""
        check_sampling(self.temperature, self.top_p)
        if self.n_alternatives < 0:
            raise ValueError(f"n_alternatives must be 0 or more, got {self.n_alternatives!r}")
        if self.positions_per_pass is not None and self.positions_per_pass < 1:
            raise ValueError(
                f"positions_per_pass must be at least 1, got {self.positions_per_pass!r}"
            )


class Row:
    """What one row knows.

    Args:
        options: How to decode it.
        prompt: Ids of the positions before the first output.
        ids: Special ids.
    """

    def __init__(self, options: RowOptions, prompt: Sequence[int], ids: SpecialIds):
        self.options = options
        self.known = list(prompt)
        self.finished = False
        self.n_tokens = 0
        self._key = mx.random.key(options.seed)
        self.guesser = Guesser(ids.pad, options.positions_per_pass)
        self._eos = ids.eos
        self._states = initial_states(options.rules)
        self._audio: list[mx.array] = []
        self.n_audio = 0  # embeddings that wait
        self.n_placed = 0  # positions that are done
        self._n_dropped = 0  # of the first array

    @property
    def n_ready(self) -> int:
        """Tokens that the embeddings at hand allow to decode."""
        return 0 if self.finished else max(0, self.n_audio - len(self.known) + 1)

    @property
    def samples(self) -> bool:
        """Whether tokens are drawn, which leaves nothing to guess."""
        return self.options.temperature > 0

    @property
    def plain(self) -> bool:
        """Whether the likeliest token is taken and nothing else is asked."""
        return not (self.samples or self.options.rules or self.options.n_alternatives)

    def add(self, audio: mx.array) -> None:
        """Queue embeddings of the next positions, ``(1, n, D)``."""
        if audio.shape[1] and not self.finished:
            self._audio.append(audio)
            self.n_audio += audio.shape[1]

    def plan(self, width: int, max_positions: int, max_tokens: int | None) -> list[int]:
        """Tokens to place in the next pass: known ones, then guesses.

        Args:
            width: Positions to try, where the row has no number of its own.
            max_positions: Most positions of the pass.
            max_tokens: Most tokens to decode; ``None`` sets no limit.
        """
        n = width if self.guesser.fixed is None else self.guesser.fixed
        n_guess = 0 if self.samples else n - 1
        n_guess = min(n_guess, self.n_audio - len(self.known))
        if max_tokens is not None:
            n_guess = min(n_guess, max_tokens - 1)
        return (self.known + self.guesser.guess(n_guess))[:max_positions]

    def biases(self, placed: Sequence[int]) -> list[dict[int, float]]:
        """What the rules add to the logits of each output of a pass."""
        rules = self.options.rules
        if not rules:
            return []
        states = self._states
        biases = [total_bias(rules, states)]
        for token_id in placed[len(self.known) :]:
            states = next_states(rules, states, token_id)
            biases.append(total_bias(rules, states))
        return biases

    def audio(self, start: int, n: int) -> mx.array:
        """Queued embeddings from the ``start``-th oldest on, ``(1, n, D)``; they stay queued."""
        start += self._n_dropped
        if len(self._audio) > 1 and self._audio[0].shape[1] < start + n:
            self._audio = [mx.concatenate(self._audio, axis=1)]
        return self._audio[0][:, start : start + n]

    def draw(self, logits: mx.array) -> mx.array:
        """Draw an id for each row of ``logits``, ``(n, V) -> (n,)``, with this row's settings."""
        self._key, key = mx.random.split(self._key)
        return sample(logits, self.options.temperature, self.options.top_p, key)

    def settle(
        self,
        placed: Sequence[int],
        ids: Sequence[int],
        logprobs: Sequence[float],
        alternatives: Sequence[Sequence[tuple[int, float]]],
    ) -> tuple[list[GeneratedToken], int]:
        """Take over the outputs of a pass.

        Args:
            placed: The tokens placed, as planned.
            ids: The network's choice after the last known token and after each guess.
            logprobs: Their log-probabilities.
            alternatives: The likeliest ids at the same places, best first.

        Returns:
            New tokens, and how many of the placed positions stay.
        """
        n_known = len(self.known)
        if len(placed) < n_known:
            self.known = self.known[len(placed) :]
            self._drop(len(placed))
            return [], len(placed)
        guesses = placed[n_known:]
        tokens: list[GeneratedToken] = []
        outputs = list(zip(ids, logprobs, alternatives, strict=True))
        for token_id, logprob, others in outputs[: count_right(guesses, ids) + 1]:
            others = tuple(others[: self.options.n_alternatives])
            tokens.append(GeneratedToken(self.n_tokens, token_id, logprob, others))
            self.n_tokens += 1
            self._states = next_states(self.options.rules, self._states, token_id)
            self.finished = token_id == self._eos
            if self.finished:
                break
        n_right = len(tokens) - 1
        self.guesser.learn([t.id for t in tokens], len(guesses), ids[len(tokens) :])
        self.known = [tokens[-1].id]
        self._drop(n_known + n_right)
        return tokens, n_known + n_right

    def _drop(self, n: int) -> None:
        """Forget the oldest ``n`` embeddings."""
        if self.finished:
            self._audio, self.n_audio, self._n_dropped = [], 0, 0
            return
        self.n_audio -= n
        self.n_placed += n
        self._n_dropped += n
        while self._audio and self._audio[0].shape[1] <= self._n_dropped:
            self._n_dropped -= self._audio.pop(0).shape[1]
