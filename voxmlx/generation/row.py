"""One row of a decoder: its known tokens, its guesses, its audio and its rules. No network here.

A pass places *known* tokens (the prompt, or the last output) and then guesses of the tokens that
follow. The network scores every placed position at once; guesses are kept up to the first one that
differs from what the network chose, so the tokens are those of a loop that places one at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import mlx.core as mx

from voxmlx.generation.bias import BiasState, ContextBias
from voxmlx.generation.rules import LogitRule, initial_states, next_states, total_bias
from voxmlx.generation.sampling import check_sampling, sample
from voxmlx.generation.speculative import Guesser, count_right
from voxmlx.generation.trial import Place, Trial


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
        bias: Phrases to try where words start.
    """

    n_delay: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    rules: tuple[LogitRule, ...] = ()
    positions_per_pass: int | None = None
    n_alternatives: int = 0
    bias: ContextBias | None = None

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
        self._phrases = None if options.bias is None else options.bias.initial
        self._trial: Trial | None = None
        self._tried = -1  # the output that phrases were last tried at
        self._audio: list[mx.array] = []
        self.n_audio = 0  # embeddings that wait
        self.n_placed = 0  # positions that are done
        self._n_dropped = 0  # of the first array

    @property
    def n_ready(self) -> int:
        """Tokens that the embeddings at hand allow to decode.

        A phrase that may come next is tried once there is audio for all of its tokens.
        """
        n_ahead = len(self._trial_tokens)
        return 0 if self.finished else max(0, self.n_audio - len(self.known) - n_ahead + 1)

    @property
    def samples(self) -> bool:
        """Whether tokens are drawn, which leaves nothing to guess."""
        return self.options.temperature > 0

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is taken, once rules have had their say."""
        return not (self.samples or self.options.n_alternatives or self.options.bias is not None)

    @property
    def plain(self) -> bool:
        """Whether the likeliest token is taken and nothing else is asked."""
        return self.greedy and not self.options.rules

    def add(self, audio: mx.array) -> None:
        """Queue embeddings of the next positions, ``(1, n, D)``."""
        if audio.shape[1] and not self.finished:
            self._audio.append(audio)
            self.n_audio += audio.shape[1]

    def skip(self, n: int) -> None:
        """Count the first ``n`` positions of the prompt as done; their embeddings still come."""
        self.known = self.known[n:]
        self.n_placed = self._n_dropped = n
        self.n_audio = -n

    def plan(self, width: int, max_positions: int, max_tokens: int | None) -> list[int]:
        """Tokens to place in the next pass: known ones, then guesses.

        Args:
            width: Positions to try, where the row has no number of its own.
            max_positions: Most positions of the pass.
            max_tokens: Most tokens to decode; ``None`` sets no limit.
        """
        if self._trial is not None:
            return self.known + self._trial_tokens
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

    def questions(self, placed: Sequence[int]) -> list[Place]:
        """Ids whose gaps to the highest logit :meth:`settle` needs, with their outputs."""
        bias = self.options.bias
        if bias is None or len(placed) < len(self.known):
            return []
        if self._trial is not None:
            return self._trial.questions()
        return [
            (n, token_id)
            for n, state in enumerate(self._phrase_states(placed[len(self.known) :]))
            if self.n_tokens + n != self._tried
            for token_id in bias.starts(state)
        ]

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
        gaps: Mapping[Place, float],
    ) -> tuple[list[GeneratedToken], int]:
        """Take over the outputs of a pass.

        Args:
            placed: The tokens placed, as planned.
            ids: The network's choice after the last known token and after each guess.
            logprobs: Their log-probabilities.
            alternatives: The likeliest ids at the same places, best first.
            gaps: Answers to :meth:`questions`.

        Returns:
            New tokens, and how many of the placed positions stay.
        """
        n_known = len(self.known)
        if len(placed) < n_known:
            self.known = self.known[len(placed) :]
            self._drop(len(placed))
            return [], len(placed)
        if self._trial is not None:
            return self._settle_trial(self._trial, ids, logprobs, gaps), 0
        guesses = placed[n_known:]
        tokens: list[GeneratedToken] = []
        outputs = list(zip(ids, logprobs, alternatives, strict=True))
        for n, (token_id, logprob, others) in enumerate(outputs[: count_right(guesses, ids) + 1]):
            if self._starts_trial(n, gaps):
                break
            others = tuple(others[: self.options.n_alternatives])
            tokens.append(self._write(token_id, logprob, others))
            self.finished = token_id == self._eos
            if self.finished:
                break
        n_stay = n_known + len(tokens) - 1
        self.guesser.learn([t.id for t in tokens], len(guesses), ids[len(tokens) :])
        self.known = [tokens[-1].id if tokens else self.known[-1]]
        self._drop(n_stay)
        return tokens, n_stay

    def _write(
        self, token_id: int, logprob: float, others: tuple[tuple[int, float], ...] = ()
    ) -> GeneratedToken:
        """Take over the next output."""
        token = GeneratedToken(self.n_tokens, token_id, logprob, others)
        self.n_tokens += 1
        self._states = next_states(self.options.rules, self._states, token_id)
        if self.options.bias is not None and self._phrases is not None:
            self._phrases = self.options.bias.next(self._phrases, token_id)
        return token

    def _starts_trial(self, n: int, gaps: Mapping[Place, float]) -> bool:
        """Whether phrases are tried at output ``n`` of a pass, the row's next one."""
        bias = self.options.bias
        if bias is None or self._phrases is None or self.n_tokens == self._tried:
            return False
        starts = bias.starts(self._phrases)
        trial = Trial(bias, starts, {token_id: gaps[n, token_id] for token_id in starts})
        if trial.piece is None:
            return False
        self._trial, self._tried = trial, self.n_tokens
        return True

    def _settle_trial(
        self,
        trial: Trial,
        ids: Sequence[int],
        logprobs: Sequence[float],
        gaps: Mapping[Place, float],
    ) -> list[GeneratedToken]:
        """Take over a pass that tried a phrase; none of its positions stays."""
        trial.learn(gaps, ids, logprobs)
        if trial.piece is not None:
            return []
        self._trial = None
        tokens = [self._write(token_id, logprob) for token_id, logprob in trial.winner]
        self.guesser.learn([t.id for t in tokens], 0, ())
        self.known += [t.id for t in tokens]
        return tokens

    @property
    def _trial_tokens(self) -> list[int]:
        """Tokens that a trial places next."""
        piece = None if self._trial is None else self._trial.piece
        return [] if piece is None else list(piece.tokens)

    def _phrase_states(self, tokens: Sequence[int]) -> list[BiasState]:
        """Where the phrases stand now and after each of some tokens."""
        bias = self.options.bias
        if bias is None or self._phrases is None:
            return []
        states = [self._phrases]
        for token_id in tokens:
            states.append(bias.next(states[-1], token_id))
        return states

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
