"""How a session opens its decoder: again after each EOS, so with other rules and draws."""

from __future__ import annotations

from dataclasses import dataclass

from voxmlx.generation.bias import ContextBias
from voxmlx.generation.eos_hold import EosHold
from voxmlx.generation.row import RowOptions, SpecialIds
from voxmlx.generation.rut_guard import RutGuard
from voxmlx.streaming.backend import Backend, Tokens
from voxmlx.streaming.options import StreamOptions
from voxmlx.tokenizer import Tokenizer


@dataclass(frozen=True)
class TokensOpener:
    """Opens decoders at their prompt.

    It holds no session: a session would hold itself, and its rings would stay until Python looks
    for such circles.

    Attributes:
        backend: Where decoders are opened.
        tokenizer: Names the special ids.
        options: How to decode.
        n_delay: Delay in positions.
        bias: Phrases to expect.
    """

    backend: Backend
    tokenizer: Tokenizer
    options: StreamOptions
    n_delay: int
    bias: ContextBias | None

    def __call__(self, n_restarts: int) -> Tokens:
        """A decoder after so many others of its session."""
        options, tokenizer = self.options, self.tokenizer
        rules = [*options.rules]
        if options.rut_guard:
            rules.append(RutGuard(tokenizer.pad_id))
        if n_restarts:
            rules.append(EosHold(tokenizer.eos_id))
        row = RowOptions(
            self.n_delay,
            temperature=options.temperature,
            top_p=options.top_p,
            seed=options.seed + n_restarts,
            rules=tuple(rules),
            n_alternatives=options.top_logprobs or 0,
            bias=self.bias,
        )
        ids = SpecialIds(tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id)
        return self.backend.open_tokens(ids, row)
