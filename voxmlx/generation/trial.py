"""Trying phrases at one place of a row: each is placed ahead and scored as a whole.

What a token lacks is how far its logit lies below the highest one. A piece is right if its tokens
together lack no more than its budget, and a word ends behind it where one must. A trial costs one
pass for each piece that is still possible; what a pass tells about others that begin alike counts
for them too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from voxmlx.generation.bias import ContextBias, Piece

Place = tuple[int, int]
"""An output of a pass, counted from 0, and an id."""


class Trial:
    """The pieces that may come next, and what is known of them.

    Args:
        bias: Says where words end, and what a first token may lack.
        starts: Pieces by their first token.
        gaps: What first tokens lack, by id.
    """

    def __init__(
        self, bias: ContextBias, starts: Mapping[int, Sequence[Piece]], gaps: Mapping[int, float]
    ):
        self._bias = bias
        self._open: dict[Piece, tuple[float, ...]] = {}  # gaps of the tokens known so far
        self._right: dict[Piece, tuple[float, list[float]]] = {}  # sum and log-probabilities
        for token_id, gap in gaps.items():
            if gap <= bias.start_budget:
                for piece in starts[token_id]:
                    self._keep(piece, (gap,))

    @property
    def piece(self) -> Piece | None:
        """What to place next: the most promising; ``None`` if nothing is left to try."""
        return min(self._open, key=lambda piece: (sum(self._open[piece]), piece), default=None)

    @property
    def winner(self) -> list[tuple[int, float]]:
        """Ids and log-probabilities of the right piece with most left of its budget, if any."""
        right = self._right
        best = min(right, key=lambda piece: (right[piece][0] - piece.budget, piece), default=None)
        return [] if best is None else list(zip(best.tokens, right[best][1], strict=True))

    def questions(self) -> list[Place]:
        """Ids whose gaps the next pass tells: those of all pieces as far as they begin alike."""
        piece = self.piece
        if piece is None:
            return []
        found = {
            (n, other.tokens[n])
            for other in self._open
            for n in range(1, _alike(piece, other) + 1)
            if n < len(other.tokens)
        }
        return sorted(found)

    def learn(
        self, gaps: Mapping[Place, float], ids: Sequence[int], logprobs: Sequence[float]
    ) -> None:
        """Take over a pass that placed :attr:`piece`.

        Args:
            gaps: Answers to :meth:`questions`.
            ids: The network's choice at each output.
            logprobs: Their log-probabilities.
        """
        piece = self.piece
        if piece is None:
            raise RuntimeError("a trial with nothing to try")
        known, self._open = self._open, {}
        for other, own in known.items():
            n = min(_alike(piece, other) + 1, len(other.tokens))
            if other.tokens != piece.tokens:
                new = own[:1] + tuple(gaps[i, other.tokens[i]] for i in range(1, n))
                self._keep(other, max(own, new, key=len))
                continue
            whole = own[:1] + tuple(gaps[i, other.tokens[i]] for i in range(1, n))
            ends = not other.closed or self._bias.ends_word(ids[n])
            if ends and sum(whole) <= other.budget:
                scores = [best - gap for best, gap in zip(logprobs, whole, strict=False)]
                self._right[other] = (sum(whole), scores)

    def _keep(self, piece: Piece, gaps: tuple[float, ...]) -> None:
        if sum(gaps) <= piece.budget:
            self._open[piece] = gaps


def _alike(a: Piece, b: Piece) -> int:
    """Tokens with which both begin."""
    n = 0
    for one, other in zip(a.tokens, b.tokens, strict=False):
        if one != other:
            break
        n += 1
    return n
