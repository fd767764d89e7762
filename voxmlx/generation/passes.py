"""What a pass of a batch consists of: each row's part, what comes out, embeddings by column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx

from voxmlx.generation.outputs import Outputs
from voxmlx.generation.row import Row


@dataclass(frozen=True)
class Work:
    """One row's part of a pass; ``first`` is the placed position of the first output."""

    slot: int
    key: int
    row: Row
    tokens: list[int]
    first: int


@dataclass(frozen=True)
class Pass:
    """A pass under way, its logits or what it chose; the rings do not count its positions yet."""

    work: list[Work]
    made: mx.array | Outputs


@dataclass(frozen=True)
class Block:
    """Embeddings of rows that go on together; ``first`` is the position of each row's first."""

    first: dict[int, int]
    audio: mx.array

    def column(self, work: Sequence[Work], start: int) -> mx.array | None:
        """Embeddings of the rows' next positions but ``start``, if they are all in one column."""
        columns = {w.row.n_placed + start - self.first.get(w.key, 1 << 60) for w in work}
        i = columns.pop()
        return self.audio[:, i : i + 1] if not columns and 0 <= i < self.audio.shape[1] else None
