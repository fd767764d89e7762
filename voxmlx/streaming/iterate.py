"""Sessions as generators: audio from any source in, events out.

Knows where arrays come from as little as what is done with the events.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import Protocol

import numpy as np

from voxmlx.types import Event


class Session(Protocol):
    """What a loop needs of a session."""

    @property
    def pending(self) -> bool:
        """Whether a :meth:`step` has work to do."""

    @property
    def done(self) -> bool:
        """Whether every event was returned."""

    def feed(self, samples: np.ndarray, sample_rate: int | None = None) -> None:
        """Queue audio."""

    def close(self) -> None:
        """End the audio."""

    def step(self) -> list[Event]:
        """Do a bounded piece of work and return what it settled."""


def iterate(
    session: Session, source: Iterable[np.ndarray], sample_rate: int | None = None
) -> Iterator[Event]:
    """Run a session over audio that a loop gives, and close it where the loop ends.

    Args:
        session: An open session; its result is complete at the end.
        source: ``(n,)`` float32 arrays of any length.
        sample_rate: Their rate in Hz; ``None`` means the model's.
    """
    for samples in source:
        session.feed(samples, sample_rate)
        while session.pending:
            yield from session.step()
    yield from finish(session)


async def iterate_async(
    session: Session,
    source: AsyncIterable[np.ndarray] | Iterable[np.ndarray],
    sample_rate: int | None = None,
) -> AsyncIterator[Event]:
    """Do what :func:`iterate` does beside other tasks.

    Steps run in the loop's own thread, since one thread owns the device; after each of them other
    tasks get their turn.
    """
    if not isinstance(source, AsyncIterable):
        source = _each(source)
    async for samples in source:
        session.feed(samples, sample_rate)
        while session.pending:
            for event in session.step():
                yield event
            await asyncio.sleep(0)
    session.close()
    while not session.done:
        for event in session.step():
            yield event
        await asyncio.sleep(0)


def finish(session: Session) -> Iterator[Event]:
    """Close a session and give its last events."""
    session.close()
    while not session.done:
        yield from session.step()


async def _each(source: Iterable[np.ndarray]) -> AsyncIterator[np.ndarray]:
    for samples in source:
        yield samples
