"""The reference fixtures' models, their recordings, and ways to feed them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.oracle import native
from voxmlx.pipeline import Pipeline, load
from voxmlx.streaming.session import StreamingSession
from voxmlx.types import Event

FIXTURES = Path(__file__).parents[1] / "fixtures"
SECONDS = 3.137
EOS = 2


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory) -> Pipeline:
    """Writes text all the time."""
    spread = np.load(FIXTURES / "oracle_a.npz")["spread"]
    weights = native.draw(10) | {native.SPREAD: spread}
    return load(native.write(tmp_path_factory.mktemp("a"), weights, 24, 20))


@pytest.fixture(scope="session")
def audio() -> np.ndarray:
    return native.speech_like(SECONDS, 10)


@dataclass(frozen=True)
class EosAt:
    """A logit rule that makes a decoder's token number ``index`` the end of the stream."""

    index: int
    initial: int = 0

    def next(self, state: int, token_id: int) -> int:
        return state + 1

    def bias(self, state: int) -> dict[int, float]:
        return {EOS: 1e4 if state == self.index else -1e4}


def random_splits(samples: np.ndarray, seed: int, longest: int = 160_000) -> Iterator[np.ndarray]:
    """Pieces of 1 sample to 10 s, with empty ones between them."""
    rng = np.random.default_rng(seed)
    start = 0
    while start < len(samples):
        n = 0 if rng.random() < 0.1 else int(np.exp(rng.uniform(0, np.log(longest))))
        yield samples[start : start + n]
        start += n


def drain(session: StreamingSession) -> list[Event]:
    """Work until there is nothing to do."""
    events: list[Event] = []
    while session.pending:
        events += session.step()
    return events
