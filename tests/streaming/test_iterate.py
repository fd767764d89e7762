from __future__ import annotations

import asyncio

from tests.streaming.conftest import random_splits
from voxmlx.streaming.iterate import iterate, iterate_async


def test_generator_gives_events_before_the_source_ends(pipeline, audio):
    taken = []

    def source():
        for start in range(0, len(audio), 1280):
            taken.append(start)
            yield audio[start : start + 1280]

    events = pipeline.stream().events(source())
    next(events)

    assert 0 < len(taken) < len(audio) // 1280


def test_async_gives_the_same_events(pipeline, audio):
    async def source():
        for samples in random_splits(audio, 1):
            yield samples

    async def collect(pieces):
        return [event async for event in pipeline.stream().events_async(pieces)]

    expected = list(iterate(pipeline.stream(), [audio]))
    assert asyncio.run(collect(source())) == expected
    assert asyncio.run(collect([audio])) == expected


def test_async_lets_other_tasks_run(pipeline, audio):
    turns = []

    async def other():
        while True:
            turns.append(1)
            await asyncio.sleep(0)

    async def main():
        task = asyncio.create_task(other())
        async for _ in iterate_async(pipeline.stream(), [audio]):
            pass
        task.cancel()

    asyncio.run(main())
    assert len(turns) >= 4
