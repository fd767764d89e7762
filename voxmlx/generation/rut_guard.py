"""A logit rule against the rut of pads: minutes of silence written over clear speech.

Once the model has written a long run of pads it may keep writing them because it wrote them. The
guard takes a little from the pad's logit, the more the longer the run. Constants and the
measurements behind them: vLLM issue 47614 and pull request 47615. There the pad led by 3.5 to 6.6
logits in a false rut and by at least 8.5 in true silence, and the pauses of natural speech reached
165 positions (13 s). So 16 s are free, and a penalty of at most 7 ends a rut but never turns
silence into text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

FREE_RUN = 200
"""Pads in a row that cost nothing: 16 s."""
SLOPE = 0.5
"""Growth of the penalty with each further pad, in logits."""
CAP = 7.0
"""Largest penalty, in logits; reached 14 pads later."""


@dataclass(frozen=True)
class RutGuard:
    """Push the pad down after a long run of pads; a :class:`voxmlx.generation.rules.LogitRule`.

    The state is the length of the run so far.

    Args:
        pad_id: Id of ``[STREAMING_PAD]``.
        free_run: Pads in a row that cost nothing.
        slope: Growth of the penalty with each further pad.
        cap: Largest penalty.

    Raises:
        ValueError: If ``free_run`` is negative, or ``slope`` or ``cap`` is not positive.
    """

    pad_id: int
    free_run: int = FREE_RUN
    slope: float = SLOPE
    cap: float = CAP

    def __post_init__(self) -> None:
        """Check the values."""
        if self.free_run < 0:
            raise ValueError(f"free_run must be 0 or more, got {self.free_run!r}")
        if not (self.slope > 0 and self.cap > 0):
            raise ValueError(f"slope and cap must be positive, got {self.slope!r}, {self.cap!r}")

    @property
    def initial(self) -> int:
        """No run yet."""
        return 0

    def next(self, state: int, token_id: int) -> int:
        """Length of the run after ``token_id``; it stops counting where the penalty is full."""
        if token_id != self.pad_id:
            return 0
        return min(state + 1, self.free_run + math.ceil(self.cap / self.slope))

    def bias(self, state: int) -> Mapping[int, float]:
        """The penalty of the pad."""
        over = state - self.free_run
        return {self.pad_id: -min(self.cap, self.slope * over)} if over > 0 else {}
